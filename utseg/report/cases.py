"""The table of all cases, worst first, and the choice of cases for the figures.

First come cases in which a structure is missed or extra, those with most of them (mean over the models that have the case), then the
order is that of the mean Dice over labels and models; cases without any Dice come last.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from utseg.evaluate.compare import WRONG
from utseg.evaluate.metrics import Row
from utseg.evaluate.tables import Table, number
from utseg.report.entries import Entry
from utseg.report.scores.comparison_tables import mean_dice

LABELS_FOR_MODELS = 3
"""With more models than this, the table has their mean Dice only."""
FIGURES = ("best", "median", "worst")
FLAGS = {"prediction_empty": "missed", "reference_empty": "extra", "both_empty": "neither has"}
CASES_NOTE = (
    "Worst first: by the number of missed and extra structures, then by the mean Dice over labels. Flags: a structure "
    "is missed (only the reference has it), extra (only the prediction), or neither has it."
)


@dataclass(frozen=True)
class Chosen:
    """A case for a figure, and why."""

    case_id: str
    group: str
    why: str


def worst_first(entries: Sequence[Entry]) -> dict[str, float]:
    """Mean Dice by case over labels and models, the worst case first; NaN (no Dice at all) last."""
    means: dict[str, float] = {}
    wrong_by_case: dict[str, float] = {}
    wrong: Counter[str] = Counter()
    for entry in entries:
        wrong.update(str(row["case"]) for row in entry.rows if row["status"] in WRONG)
    for case, by_entry in mean_dice(entries).items():
        defined = [value for value in by_entry.values() if not math.isnan(value)]
        means[case] = sum(defined) / len(defined) if defined else math.nan
        wrong_by_case[case] = wrong[case] / len(by_entry)
    return dict(
        sorted(
            means.items(), key=lambda item: (math.isnan(item[1]), -wrong_by_case[item[0]], item[1], item[0])
        )
    )


def case_table(entries: Sequence[Entry], columns: Sequence[str], order: Collection[str]) -> Table:
    """A row for each case in that order: its groups, mean Dice, and Dice of each label for each model; HD95 where there is one model."""
    rows_of = {entry.name: _by_case(entry.rows) for entry in entries}
    labels = list(dict.fromkeys(str(row["label_name"]) for entry in entries for row in entry.rows))
    single = len(entries) == 1
    heads = ["case", "subject", *columns]
    for entry in entries:
        before = "" if single else f"{entry.name}: "
        heads.append(f"{before}mean Dice")
        if len(entries) <= LABELS_FOR_MODELS:
            heads += [f"{before}{label} Dice" if single else f"{before}{label}" for label in labels]
    if single:
        heads += [f"{label} HD95 mm" for label in labels]
    means = mean_dice(entries)
    rows = []
    for case in order:
        first = next(own[case] for own in rows_of.values() if case in own)
        some = next(iter(first.values()))
        cells = [case, str(some["subject"]), *(str(some.get(column, "")) for column in columns)]
        for entry in entries:
            own = rows_of[entry.name].get(case, {})
            cells.append(number(means[case].get(entry.name), 3))
            if len(entries) <= LABELS_FOR_MODELS:
                cells += [number(own.get(label, {}).get("dice"), 3) for label in labels]
        if single:
            cells += [number(first.get(label, {}).get("hd95_mm"), 1) for label in labels]
        rows.append([*cells, _flags(rows_of, case, single)])
    return Table("All cases", [*heads, "flags"], rows, CASES_NOTE)


def _by_case(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(str(row["case"]), {})[str(row["label_name"])] = row
    return found


def _flags(rows_of: Mapping[str, Mapping[str, Mapping[str, Row]]], case: str, single: bool) -> str:
    found = [
        f"{label} {FLAGS[str(row['status'])]}" + ("" if single else f" ({name})")
        for name, own in rows_of.items()
        for label, row in own.get(case, {}).items()
        if row["status"] in FLAGS
    ]
    return "; ".join(found)


def dice_by_label(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, float | None]]]:
    """By case, entry and label: the Dice of the volume, None where it is not defined."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for entry in entries:
        for row in entry.rows:
            value = float(row["dice"])
            own = found.setdefault(str(row["case"]), {}).setdefault(entry.name, {})
            own[str(row["label_name"])] = None if math.isnan(value) else value
    return found


def choose_figures(
    entries: Sequence[Entry],
    column: str,
    order: Mapping[str, float],
    shown: Collection[str],
    which: Collection[str] = FIGURES,
) -> list[Chosen]:
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
        places = {last: "best", last // 2: "median", 0: "worst"} if last > 1 else {last: "best", 0: "worst"}
        wanted = {place: why for place, why in places.items() if why in which}
        chosen += [Chosen(cases[place], name, f"{why} of {len(cases)}") for place, why in wanted.items()]
    return chosen
