"""The page of all cines: their table, which leads to the page of each, distributions by group, agreement with references."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from utseg.errors import number_of
from utseg.evaluate.tables import Table, interval, number
from utseg.figures.charts import Dots, agreement, distribution
from utseg.measure.group import GROUP_COLUMNS
from utseg.measure.record import CineMeasures, MeasuresRecord
from utseg.report.measures.one import KIND, SCRIPT
from utseg.report.measures.origin import origin_section, when_measured
from utseg.report.measures.words import HEADLINES, name_of, unit_of, value_of
from utseg.report.page import AnyBlock, Block, Charts, Page, Section, TableBlock, folded, note

PAGES = "pages"
MOST_VALUES = 14
SHOWN = ("lv_ef_percent", "lv_edv_ml", "lv_mass_g", "rv_ef_percent", "rv_edv_ml")
"""The measures of which there are charts."""
IN_TABLE = tuple(column for column in HEADLINES if not column.endswith("_sv_ml"))
CHARTS_IN_SIGHT = 2
DISTRIBUTIONS_NOTE = (
    "Each point is a cine; box: quartiles, line: median, whiskers: to the last value within 1.5 times the box. At the right the number of "
    "cines, and after + those whose measure is not known (∅). A point leads to its page."
)
AGREEMENT_NOTE = (
    "Bland–Altman plots: by the masks − by the reference, over the mean of both; bias (line) and limits of agreement, bias ± 1.96 sd "
    "(dashed). A point finds its cine in the table."
)
CINES_NOTE = "Flags: what to doubt, by its name; the page of the cine says it in words."

OF_ONE_EXAMINATION = {"model", "field_strength_t", "age_years"}


def page_of_group(record: MeasuresRecord, notices: Sequence[str]) -> Page:
    """The page of all cines."""
    doubted = sum(any(flag.severity == "check" for flag in cine.flags) for cine in record.cines)
    subjects = len({cine.subject for cine in record.cines})
    return Page(
        kind=KIND,
        title=f"{number_of(len(record.cines), 'cine')} of {number_of(subjects, 'subject')}",
        made=[f"{doubted} with something to check", when_measured(record)],
        notices=notices,
        sections=[
            Section("cases", "All cines", [_table(record)]),
            Section("distributions", "Distributions", [note(DISTRIBUTIONS_NOTE), *_distributions(record)]),
            Section("agreement", "Agreement with the reference", _agreement(record), "Agreement"),
            origin_section(record),
        ],
        scripts=(SCRIPT,),
    )


def address_of(cine: str) -> str:
    """The page of a cine, as seen from that of all."""
    return f"{PAGES}/{quote(cine)}.html"


def group_columns(record: MeasuresRecord) -> list[str]:
    """The columns by which the cines are grouped; what is of a single examination stands on its page."""
    columns = dict.fromkeys(column for cine in record.cines for column in cine.groups)
    return [column for column in columns if column not in OF_ONE_EXAMINATION]


def _table(record: MeasuresRecord) -> Block:
    columns = group_columns(record)
    measured = [column for column in IN_TABLE if any(column in cine.values for cine in record.cines)]
    heads = [
        "cine",
        "subject",
        *columns,
        "frames",
        *(f"{name_of(c)} {unit_of(c)}" for c in measured),
        "flags",
    ]
    rows = [
        [
            *(
                cine.cine,
                cine.subject,
                *(cine.groups.get(column, "") for column in columns),
                str(cine.frames),
            ),
            *(value_of(column, cine.values.get(column)) for column in measured),
            "; ".join(dict.fromkeys(flag.name.replace("_", " ") for flag in cine.flags)),
        ]
        for cine in record.cines
    ]
    filters = [
        {"index": 2 + index, "column": column, "values": sorted({row[2 + index] for row in rows} - {""})}
        for index, column in enumerate(columns)
        if len({cine.groups.get(column) for cine in record.cines}) <= MOST_VALUES
    ]
    content = {
        "table": Table("All cines", heads, rows, CINES_NOTE),
        "texts": 2 + len(columns),
        "filters": filters,
        "addresses": [address_of(cine.cine) for cine in record.cines],
    }
    return Block("cines", content)


def _distributions(record: MeasuresRecord) -> list[AnyBlock]:
    """For each group column one chart a measure: all cines above, then the column's values."""
    found: list[AnyBlock] = []
    shown = [column for column in SHOWN if any(cine.values.get(column) is not None for cine in record.cines)]
    columns = [column for column in GROUP_COLUMNS if any(column in cine.groups for cine in record.cines)]
    for group in columns or [""]:
        values = sorted({cine.groups.get(group, "") for cine in record.cines} - {""})
        charts = [_distribution(record.cines, column, group, values[:MOST_VALUES]) for column in shown]
        caption = f"Measures of every cine{f' by {group}' if group else ''}"
        caption += f" (the first {MOST_VALUES} of {len(values)})" if len(values) > MOST_VALUES else ""
        found.append(Charts(caption, charts, "closed" if len(found) >= CHARTS_IN_SIGHT else ""))
    return [*found, *folded(_summaries(record))]


def _distribution(cines: Sequence[CineMeasures], column: str, group: str, values: Sequence[str]) -> Markup:
    def dots(name: str, some: Sequence[CineMeasures]) -> Dots:
        known = {cine.cine: value for cine in some if (value := cine.values.get(column)) is not None}
        return Dots(name, 0, np.array(list(known.values()), dtype=float), list(known), len(some) - len(known))

    rows = [dots("all", cines)]
    rows += [dots(value, [cine for cine in cines if cine.groups.get(group) == value]) for value in values]
    every = rows[0].values
    return distribution(name_of(column), unit_of(column), rows, (float(every.min()), float(every.max())))


def _summaries(record: MeasuresRecord) -> list[Table]:
    if not record.distributions:
        return []
    heads = ["group", "measure", "unit", "cines", "mean", "sd", "median", "lowest", "highest"]
    rows = [
        [
            f"{one.column} {one.value}".strip() or "all",
            *(name_of(one.measure), one.unit, str(one.n)),
            *(number(value, 1) for value in (one.mean, one.sd, one.median, one.lowest, one.highest)),
        ]
        for one in record.distributions
    ]
    return [Table("The same in numbers", heads, rows)]


def _agreement(record: MeasuresRecord) -> list[AnyBlock]:
    """A Bland–Altman plot of each measure that two cines have by masks and by references, and the numbers."""
    charts = [
        chart for column, found in record.agreement.items() if (chart := _bland_altman(record, column, found))
    ]
    if not charts:
        return []
    heads = [
        "measure",
        "unit",
        "n",
        "reference",
        "by the masks",
        "bias",
        "limits of agreement",
        "mean absolute",
    ]
    rows = [
        [
            *(name_of(column), str(found["unit"]), str(found["n"])),
            *(number(found[key], 1) for key in ("reference_mean", "prediction_mean")),
            *(number(found["bias"], 2), interval(found["limits"], 2), number(found["mae"], 2)),
        ]
        for column, found in record.agreement.items()
    ]
    numbers = TableBlock(Table("Agreement in numbers", heads, rows), titled=False)
    return [note(AGREEMENT_NOTE), Charts("Measures of every cine", charts), numbers]


def _bland_altman(record: MeasuresRecord, column: str, found: Mapping[str, object]) -> Markup | None:
    pairs = [
        (pair.cine, pair.reference, pair.prediction)
        for pair in record.references
        if pair.measure == column and pair.reference is not None and pair.prediction is not None
    ]
    if len(pairs) < 2:
        return None
    names, reference, prediction = zip(*pairs, strict=True)
    return agreement(
        name_of(column), unit_of(column), np.array(reference), np.array(prediction), names, dict(found)
    )
