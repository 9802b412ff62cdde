"""A summary as Markdown for a README and as LaTeX for a paper. (The CSV files and their columns are in `records.py`.)

Counts of empty structures stand beside every mean. Which numbers are in a summary is decided in `summary.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from utseg.cardiac.thirds import REGIONS
from utseg.evaluate.compare import ALPHA
from utseg.evaluate.metrics import EMPTIES, METRIC

MARKDOWN_FILE = "tables.md"
LATEX_FILE = "tables.tex"
NOTHING = "–"
CLINICAL_TITLE = "Clinical measures"
MOST_DIGITS = 12
LEAST_APART = 1e-12
"""Numbers that are nearer to each other differ by rounding only."""
LEAST_P = 0.001
OF_ALL = (
    *("dice", "dice±", "surface_dice", "hd95_mm#", "hd95_mm"),
    *("hd_mm", "assd_mm", "slice_dice", "slice_hd95_mm", "difference_ml"),
)
OF_GROUPS = ("dice", "dice±", "hd95_mm#", "hd95_mm", "hd95_mm±", "surface_dice")
"""The columns of the tables of all cases, and of groups."""
EMPTY_NOTE = (
    "Means over subjects, of each the mean over its cases, with bootstrap 95 % intervals. Missed: structures that only the reference has; "
    "extra: that only the prediction has; neither: that none of both has. Distances are of the cases in which both have the structure: "
    "read them beside the missed and extra ones."
)
LATEX_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"–": "--", "−": "$-$", "±": r"$\pm$", "…": r"\dots{}"}
)


@dataclass(frozen=True)
class Table:
    """A title, column heads, rows of cells as text, and a note below. The first column is text, the others are aligned right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def summary_tables(summary: Mapping[str, Any]) -> list[Table]:
    """All tables of a `summary.json`: per label, per group, per region, clinical measures, the official UTNet's numbers."""
    whole = summary["all"]
    title = f"All {whole['cases']} cases of {whole['subjects']} subjects"
    tables = [_scores_table(title, {"": whole}, OF_ALL)]
    tables += [
        _scores_table(f"By {column}", groups, OF_GROUPS)
        for column, groups in summary["groups"].items()
        if len(groups) > 1
    ]
    if regions := summary.get("regions"):
        ordered = {region: regions[region] for region in REGIONS if region in regions}
        tables.append(_scores_table("By region of the short-axis stack", ordered, OF_GROUPS))
    if clinical := summary.get("clinical"):
        tables.append(_clinical_table(clinical))
    if official := summary.get("official_utnet"):
        tables.append(_official_table(official))
    return tables


def _scores_table(title: str, groups: Mapping[str, Any], columns: Sequence[str]) -> Table:
    """A row for each group and label; `columns`: keys of metrics, KEY± its interval, KEY# the cases in which it is defined."""
    heads = {"±": "95 % interval", "#": "cases with distances"}
    first = ["label"] if columns is OF_ALL else ["group", "label"]
    rows = [
        [*[value, name][-len(first) :], *label_cells(label, columns)]
        for value, group in groups.items()
        for name, label in group["labels"].items()
    ]
    names = [heads.get(column[-1]) or METRIC[column].head for column in columns]
    return Table(title, [*first, "subjects", "cases", *names, *EMPTIES], rows, EMPTY_NOTE)


def label_cells(label: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Subjects and cases of a label's summary, the columns (as of `OF_ALL`), and how many are missed, extra, and neither."""
    cells = [str(label["dice"]["n"]), str(label["dice"]["cases"])]
    for column in columns:
        key, end = column.rstrip("±#"), column[-1]
        if end == "#":
            cells.append(str(label[key]["cases"]))
        elif end == "±":
            cells.append(interval(label[key]["interval95"], METRIC[key].digits))
        else:
            cells.append(mean_cell(label, key))
    return cells + [str(label["empty"][status]) for status in EMPTIES.values()]


def _clinical_table(clinical: Mapping[str, Any]) -> Table:
    columns = {
        "reference": ("reference_mean", 1),
        "prediction": ("prediction_mean", 1),
        "bias": ("bias", 2),
        "95 % interval": ("bias_interval95", 2),
        "limits of agreement": ("limits", 2),
        "mean absolute": ("mae", 2),
        "r": ("r", 3),
        "concordance": ("ccc", 3),
    }
    rows = [
        [
            f"{measure.replace('_', ' ')} ({found['unit']})",
            *(str(found[count]) for count in ("n", "undefined")),
            *(
                interval(found[key], digits) if isinstance(found[key], list) else number(found[key], digits)
                for key, digits in columns.values()
            ),
        ]
        for measure, found in clinical["all"].items()
    ]
    left_out = len(clinical["incomplete"]) + len(clinical["ambiguous"])
    note = f"{clinical['subjects']} subjects with one case at ED and one at ES; {left_out} without, not counted. Limits: bias ± 1.96 sd."
    return Table(
        f"{CLINICAL_TITLE}, prediction against reference", ["measure", "n", "undefined", *columns], rows, note
    )


def _official_table(official: Mapping[str, Any]) -> Table:
    heads = ["group", "label", "cases", "Dice", "ASD mm", "maximum Hausdorff mm", "counted as 500 mm"]
    groups = {"all": official["all"]}
    for column, values in official["groups"].items():
        groups |= {f"{column} {value}": group for value, group in values.items()}
    rows = [
        [
            value,
            name,
            str(group["cases"]),
            number(label["official_dice"], 4),
            number(label["official_asd_mm"], 3),
            number(label["official_hd_mm"], 3),
            str(label["worst_distances"]),
        ]
        for value, group in groups.items()
        for name, label in group["labels"].items()
    ]
    note = "On a grid of 1.2 mm, cropped; empty structures are averaged in as Dice 0 and 500 mm. For comparison with old tables only."
    return Table("As the official UTNet scores", heads, rows, note)


def mean_cell(label: Mapping[str, Any], metric: str) -> str:
    """The mean of a metric in a label's summary."""
    return number(label.get(metric, {}).get("mean"), METRIC[metric].digits)


def number(value: float | None, digits: int) -> str:
    """A number as text; a dash for none, or NaN. 0 and 1 stand only for themselves: 0.99996 is not 1.000, 0.0004 not 0.000."""
    if value is None or math.isnan(value):
        return NOTHING
    while (
        digits < MOST_DIGITS
        and round(value, digits) in (-1, 0, 1)
        and abs(value - round(value)) > LEAST_APART
    ):
        digits += 1
    return f"{value if round(value, digits) else 0.0:.{digits}f}"


def signed_number(value: float, digits: int) -> str:
    """With its sign; 0 has none."""
    text = number(value, digits)
    return f"+{text}" if float(text) > 0 else text.replace("-", "−")


def digits_apart(values: Iterable[float | None], digits: int) -> int:
    """How many digits tell all values apart that are not the same; `digits` at least."""
    known = sorted({value for value in values if value is not None})
    apart = [b - a for a, b in pairwise(known) if b - a > LEAST_APART]
    while digits < MOST_DIGITS and len({round(value, digits) for value in known}) < len(apart) + 1 and known:
        digits += 1
    return digits


def p_text(value: float | None) -> str:
    """A p value for a cell. One near 0.05 has the digits that say on which side it is."""
    if value is None:
        return NOTHING
    return f"<{LEAST_P}" if value < LEAST_P else f"{value:.{digits_apart((value, ALPHA), 3)}f}"


def interval(bounds: Sequence[float] | None, digits: int, joint: str = " … ") -> str:
    """Two bounds as text; a dash for none."""
    return NOTHING if bounds is None else joint.join(number(bound, digits) for bound in bounds)


def with_interval(
    text: str,
    bounds: Sequence[float] | None,
    digits: int,
    joint: str = "–",
    show: Callable[[float, int], str] = number,
) -> str:
    """A number's text with its interval in parentheses, where it has one."""
    return f"{text} ({joint.join(show(bound, digits) for bound in bounds)})" if bounds else text


def duration_text(seconds: float | None) -> str:
    """Hours, minutes and seconds as people write them; a dash for none."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def to_text(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a terminal: columns as wide as their longest cell, the first aligned left, the others right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        f"{row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def to_markdown(tables: Iterable[Table]) -> str:
    """The tables one after the other, each under its title."""
    blocks = []
    for table in tables:
        lines = [f"## {table.title}", "", _line(table.columns)]
        lines.append(_line(["---"] + ["---:"] * (len(table.columns) - 1)))
        lines += [_line(row) for row in table.rows]
        if table.note:
            lines += ["", table.note]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def to_latex(tables: Iterable[Table]) -> str:
    """The tables one after the other, with booktabs' rules; to be included in a document that loads booktabs."""
    blocks = []
    for table in tables:
        body = [" & ".join(map(latex_text, row)) + r" \\" for row in (table.columns, *table.rows)]
        lines = [
            *(r"\begin{table}", r"\centering"),
            rf"\caption{{{latex_text(table.title)}. {latex_text(table.note)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *(r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"),
            *(r"\end{tabular}", r"\end{table}"),
        ]
        blocks.append("\n".join(lines))
    return "% \\usepackage{booktabs}\n" + "\n\n".join(blocks) + "\n"


def latex_text(text: str) -> str:
    """Text with what LaTeX reads as commands escaped."""
    return text.translate(LATEX_SPECIAL)
