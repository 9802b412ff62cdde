"""The cases that a page shows: their table, worst first, their pictures, and which of them become figures.

First come cases in which a structure is missed or extra, those with most of them (mean over the models that have the case), then the
order is that of the mean Dice over labels and models; cases without any Dice come last.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from utseg.evaluate.compare import WRONG
from utseg.evaluate.metrics import Row
from utseg.evaluate.tables import NOTHING, Table, mean_of, number
from utseg.report.entries import Entry
from utseg.report.stacks import Stack

LABELS_FOR_MODELS = 3  # with more models than this, the table has their mean Dice only
FIGURES = ("best", "median", "worst")
FLAGS = {"prediction_empty": "missed", "reference_empty": "extra", "both_empty": "neither has"}
CASES_NOTE = (
    "Worst first: by the number of missed and extra structures, then by the mean Dice over labels. Flags: a structure "
    "is missed (only the reference has it), extra (only the prediction), or neither has it."
)
LabelRows = Mapping[str, Row]


@dataclass(frozen=True)
class Figure:
    """A case for a figure, and why."""

    case_id: str
    group: str
    why: str


@dataclass(frozen=True, kw_only=True)
class ShownCases:
    """The scored models of a page and their cases. `order`: cases worst first, with their mean Dice; `rows`: as of `rows_by_case`.

    `lacking`: what stands where a model has no mask of a case. `notices`: what is left out of the pictures, and why.
    """

    entries: Sequence[Entry]
    columns: Sequence[str]
    order: Mapping[str, float]
    rows: Mapping[str, Mapping[str, LabelRows]]
    table: Table
    lacking: str = "not scored"
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    notices: Sequence[str] = ()

    @property
    def labels(self) -> dict[str, int]:
        """The labels that were scored, by name, with their values."""
        known: dict[str, int] = {}
        found: dict[str, int] = {}
        for entry in self.entries:
            for scores in entry.scores:
                known |= scores.sources.labels if scores.sources else {}
            for row in entry.rows:
                name = str(row["label_name"])
                found.setdefault(name, int(row.get("label") or known.get(name) or len(found) + 1))
        return found

    def dice(self, case_id: str) -> list[dict[str, float | None]]:
        """For each model the Dice of the case's labels, None where it is not defined."""
        of_entry = self.rows[case_id]
        return [
            {label: dice_of(row) for label, row in of_entry.get(entry.name, {}).items()}
            for entry in self.entries
        ]


def show_cases(entries: Sequence[Entry], columns: Sequence[str], lacking: str = "not scored") -> ShownCases:
    """All cases of the entries, without pictures."""
    rows = rows_by_case(entries)
    order = worst_first(rows)
    table = case_table(entries, columns, {case: rows[case] for case in order})
    return ShownCases(entries=entries, columns=columns, order=order, rows=rows, table=table, lacking=lacking)


def rows_by_case(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, Row]]]:
    """By case, entry and label: the row of scores."""
    found: dict[str, dict[str, dict[str, Row]]] = {}
    for entry in entries:
        for row in entry.rows:
            of_entry = found.setdefault(str(row["case"]), {}).setdefault(entry.name, {})
            of_entry[str(row["label_name"])] = row
    return found


def dice_of(row: Row) -> float | None:
    """A row's Dice; None where it is not defined."""
    return None if math.isnan(row["dice"]) else float(row["dice"])


def mean_dice(rows: LabelRows) -> float | None:
    """The mean over the labels that have a Dice; None where none has."""
    return mean_of(map(dice_of, rows.values()))


def worst_first(rows_of: Mapping[str, Mapping[str, LabelRows]]) -> dict[str, float]:
    """Mean Dice by case over labels and models, the worst case first; NaN (no Dice at all) last."""

    def rank(case: str) -> tuple[bool, float, float, str]:
        wrong = [row["status"] in WRONG for rows in rows_of[case].values() for row in rows.values()]
        return math.isnan(means[case]), -sum(wrong) / len(rows_of[case]), means[case], case

    found = {case: mean_of(map(mean_dice, by_entry.values())) for case, by_entry in rows_of.items()}
    means = {case: math.nan if mean is None else mean for case, mean in found.items()}
    return {case: means[case] for case in sorted(means, key=rank)}


def case_table(
    entries: Sequence[Entry], columns: Sequence[str], rows_of: Mapping[str, Mapping[str, LabelRows]]
) -> Table:
    """A row for each case: its groups, mean Dice, and Dice of each label for each model; HD95 where there is one model."""
    labels = list(dict.fromkeys(str(row["label_name"]) for entry in entries for row in entry.rows))
    single = len(entries) == 1
    with_labels = labels if len(entries) <= LABELS_FOR_MODELS else []
    heads = ["case", "subject", *columns]
    for entry in entries:
        before = "" if single else f"{entry.name}: "
        heads.append(f"{before}mean Dice")
        heads += [f"{before}{label} Dice" if single else f"{before}{label}" for label in with_labels]
    heads += [f"{label} HD95 mm" for label in labels] if single else []
    table = []
    for case, by_entry in rows_of.items():
        some = next(row for rows in by_entry.values() for row in rows.values())
        cells = [case, str(some["subject"]), *(str(some.get(column, "")) for column in columns)]
        for entry in entries:
            rows = by_entry.get(entry.name, {})
            cells.append(number(mean_dice(rows), 3))
            cells += [number(dice_of(rows[label]), 3) if label in rows else NOTHING for label in with_labels]
            if single:
                cells += [number(rows.get(label, {}).get("hd95_mm"), 1) for label in labels]
        flags = [
            f"{label} {FLAGS[str(row['status'])]}" + ("" if single else f" ({name})")
            for name, rows in by_entry.items()
            for label, row in rows.items()
            if row["status"] in FLAGS
        ]
        table.append([*cells, "; ".join(flags)])
    return Table("All cases", [*heads, "flags"], table, CASES_NOTE)


def choose_figures(
    entries: Sequence[Entry],
    column: str,
    order: Mapping[str, float],
    shown: Collection[str],
    which: Collection[str] = FIGURES,
) -> list[Figure]:
    """Best, median (the lower of two) and worst of the cases that can be shown, or `which` of them, for each value of a column, or of
    all (column "")."""
    groups: dict[str, list[str]] = {}
    value_of = {str(row["case"]): str(row.get(column, "")) for entry in entries for row in entry.rows}
    for case, mean in order.items():
        if case in shown and not math.isnan(mean):
            groups.setdefault(value_of[case], []).append(case)
    chosen = []
    for value, cases in sorted(groups.items()):
        name = f"{column} {value}" if column and value else "all cases"
        last = len(cases) - 1
        reasons = {last: "best", last // 2: "median", 0: "worst"} if last > 1 else {last: "best", 0: "worst"}
        chosen += [
            Figure(cases[index], name, f"{why} of {len(cases)}")
            for index, why in reasons.items()
            if why in which
        ]
    return chosen
