"""The cases that a page shows: their table, worst first, their pictures, and which of them become figures.

First come cases in which a structure is missed or extra, those with most of them (mean over the models that have the case), then the
order is that of the mean Dice over labels and models; cases without any Dice come last.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from utseg.case import Dataset
from utseg.compute.pool import process_pool, run_each
from utseg.evaluate.compare import WRONG
from utseg.evaluate.metrics import Row
from utseg.evaluate.tables import NOTHING, Table, mean_of, number
from utseg.home import Home
from utseg.label_map import LabelValue
from utseg.progress import progress
from utseg.report.case_files import CaseFiles, find_case_files, unlike_references
from utseg.report.entries import Entry
from utseg.report.stacks import PIXELS_PER_CASE, Stack, StackRequest, make_stack

LABELS_FOR_MODELS = 3  # with more models than this, the table has their mean Dice only
STACKS_SHOWN = 400
CASES_AT_FULL_SIZE = 500
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
    """The scored models of a page and their cases. `order`: cases worst first, with their mean Dice; `rows`: by case, entry, label.

    `lacking`: what stands where a model has no mask of a case. `notices`: what to know of the references, and what is left out
    of the pictures, and why.
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
    def labels(self) -> dict[str, LabelValue]:
        """The labels that were scored, by name, with their values."""
        known: dict[str, LabelValue] = {}
        found: dict[str, LabelValue] = {}
        for entry in self.entries:
            for scores in entry.scores:
                known |= scores.sources.labels if scores.sources else {}
            for row in entry.rows:
                name = str(row["label_name"])
                found.setdefault(name, known.get(name) or int(row.get("label") or len(found) + 1))
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
    rows: dict[str, dict[str, dict[str, Row]]] = {}
    for entry in entries:
        for row in entry.rows:
            of_entry = rows.setdefault(str(row["case"]), {}).setdefault(entry.name, {})
            of_entry[str(row["label_name"])] = row
    order = worst_first(rows)
    table = case_table(entries, columns, {case: rows[case] for case in order})
    return ShownCases(
        entries=entries,
        columns=columns,
        order=order,
        rows=rows,
        table=table,
        lacking=lacking,
        notices=unlike_references(entries),
    )


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
    cases: ShownCases, column: str, shown: Collection[str], which: Collection[str] = FIGURES
) -> list[Figure]:
    """Best, median (the lower of two) and worst of the cases that can be shown, or `which` of them, for each value of a column, or of
    all (column "")."""
    groups: dict[str, list[str]] = {}
    value_of = _group_of_case(cases.entries, column)
    for case, mean in cases.order.items():
        if case in shown and not math.isnan(mean):
            groups.setdefault(value_of[case], []).append(case)
    chosen = []
    for value, names in sorted(groups.items()):
        group = f"{column} {value}" if column and value else "all cases"
        last = len(names) - 1
        reasons = {last: "best", last // 2: "median", 0: "worst"} if last > 1 else {last: "best", 0: "worst"}
        for index, why in reasons.items():
            if why in which:
                chosen.append(Figure(names[index], group, f"{why} of {len(names)}"))
    return chosen


def _group_of_case(entries: Sequence[Entry], column: str) -> dict[str, str]:
    return {str(row["case"]): str(row.get(column, "")) for entry in entries for row in entry.rows}


def with_pictures(
    cases: ShownCases,
    column: str,
    *,
    home: Home,
    dataset: Dataset | None = None,
    which: Collection[str] = FIGURES,
    most: int = STACKS_SHOWN,
    executor: Executor | None = None,
    workers: int | None = None,
) -> ShownCases:
    """The cases with these figures of each value of the group column ("": of all), and stacks of at most so many cases.

    Drawn in parallel; what cannot be drawn is left out with the reason.
    """
    files, notices = find_case_files(cases.entries, home, dataset)
    figures = choose_figures(cases, column, _fullest(cases, files, column), which)
    in_figures = dict.fromkeys(figure.case_id for figure in figures)
    wanted = [case for case in cases.order if case in files]
    shown = dict.fromkeys([*wanted[:most], *in_figures])
    if len(wanted) > len(shown):
        notices.append(
            f"Only the {len(shown)} worst cases and those of the figures have their stack of slices."
        )
    # fewer pixels each where there are very many cases
    pixels = min(PIXELS_PER_CASE, PIXELS_PER_CASE * CASES_AT_FULL_SIZE // max(len(shown), 1))
    requests = [StackRequest(files[case], cases.labels, case in in_figures, pixels) for case in shown]
    stacks: dict[str, Stack] = {}
    if requests:
        with (
            nullcontext(executor) if executor else process_pool(workers) as pool,
            progress("pictures", len(requests)) as advance,
        ):
            for outcome in run_each(make_stack, requests, pool, workers=workers):
                if outcome.result is not None:
                    stacks[outcome.result.case_id] = outcome.result
                elif outcome.error is not None:
                    notices += [f"No picture: {line}" for line in outcome.error.lines()]
                advance()
    drawn = [figure for figure in figures if figure.case_id in stacks]
    return replace(cases, stacks=stacks, figures=drawn, notices=[*cases.notices, *notices])


def _fullest(cases: ShownCases, files: Mapping[str, CaseFiles], column: str) -> set[str]:
    """Of each group the cases that as many models have as any of its cases."""
    group = _group_of_case(cases.entries, column)
    most: dict[str, int] = {}
    for case, found in files.items():
        most[group[case]] = max(most.get(group[case], 0), len(found.predictions))
    return {case for case, found in files.items() if len(found.predictions) == most[group[case]]}
