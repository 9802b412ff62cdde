"""The tables of models × groups: means over subjects with intervals, counts of empties beside them, the best marked where a test says so.

Models stand side by side over the same cases; those that share no case stand there without tests. Statistics and tests are those of
`utseg.evaluate.compare`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from utseg.errors import InputError
from utseg.evaluate.compare import LEAST_SUBJECTS, OVER_LABELS, compare_models, why_none
from utseg.evaluate.metrics import AT_A_GLANCE, EMPTIES, METRIC, Row
from utseg.evaluate.summary import mean_over_labels
from utseg.evaluate.tables import NOTHING, Table, digits_apart, number, p_text, with_interval
from utseg.report.entries import Entry

MARK = " †"
MARK_NOTE = (
    "† the best of the models: better than every other by a paired test over subjects, p < 0.05 after Holm's correction over all pairs and "
    f"labels of the group; never with fewer than {LEAST_SUBJECTS} subjects, nor where mean difference and test point to different models."
)
INTERVAL_NOTE = (
    "Means over subjects, of each the mean over its cases (in parentheses: bootstrap 95 % interval). Missed, extra, neither: structures "
    "that only the reference has, only the prediction, or none of both; undefined scores are left out of the means."
)
SAME_NOTE = "Every mean is over the same cases (subjects, cases): those in which all models have a value; a model without any has none."
RANK_NOTE = (
    "In the test a structure that is missed, or extra, is worse than any value, and one rightly left out as good as can be: distances are "
    "compared by signed ranks, overlaps by their mean, both by random changes of sign, two-sided."
)
Comparison = dict[str, Any]


def compare_entries(
    entries: Sequence[Entry], columns: Sequence[str]
) -> tuple[dict[str, Comparison], list[str]]:
    """For each metric that all have, what `compare_models` says; and lines on what could not be compared.

    Raises InputError where the models were scored on other labels.
    """
    rows = {entry.name: entry.rows for entry in entries}
    _require_same_labels(rows)
    metrics = [
        metric for metric in AT_A_GLANCE if all(metric in row for own in rows.values() for row in own[:1])
    ]
    cases = [{row["case"] for row in own} for own in rows.values()]
    if not set.intersection(*cases):
        return {metric: _side_by_side(rows, metric, columns) for metric in metrics}, [
            "The models were scored on different cases: they stand side by side, and no test compares them."
        ]
    found = {
        metric: compare_models(rows, metric=metric, columns=columns, only_common=True) for metric in metrics
    }
    notices = [
        f"{name} was not scored on {len(lacking)} of the cases; models are compared on those that all have."
        for name, lacking in next(iter(found.values()))["left_out"].items()
    ]
    return found, notices


def _require_same_labels(rows: Mapping[str, Sequence[Row]]) -> None:
    labels = {name: sorted({str(row["label_name"]) for row in own}) for name, own in rows.items()}
    first_name, first = next(iter(labels.items()))
    for name, own in labels.items():
        if own != first:
            raise InputError(
                f"{name}: scored on the labels {', '.join(own)}, {first_name} on {', '.join(first)}; report them one by one"
            )


def _side_by_side(rows: Mapping[str, Sequence[Row]], metric: str, columns: Sequence[str]) -> Comparison:
    """Models without a case in common, each by itself, in the form that `compare_models` has."""
    alone = {name: compare_models({name: own}, metric=metric, columns=columns) for name, own in rows.items()}
    groups: dict[str, Any] = {}
    for column in columns:
        values = sorted({value for own in alone.values() for value in own["groups"][column]})
        groups[column] = {
            value: _joined([own["groups"][column].get(value) for own in alone.values()]) for value in values
        }
    first = next(iter(alone.values()))
    return first | {
        "models": list(rows),
        "groups": groups,
        "all": _joined([own["all"] for own in alone.values()]),
    }


def _joined(groups: Sequence[Any]) -> dict[str, Any]:
    there = [group for group in groups if group]
    labels = list(dict.fromkeys(name for group in there for name in group["labels"]))
    return {
        "cases": sum(group["cases"] for group in there),
        "subjects": sum(group["subjects"] for group in there),
        "labels": {
            name: {
                "models": {
                    model: found
                    for group in there
                    for model, found in group["labels"].get(name, {"models": {}})["models"].items()
                },
                "pairs": [],
                "best": None,
                "best_is_significant": False,
            }
            for name in labels
        },
    }


def glance_tables(comparisons: Mapping[str, Comparison], *, detailed: bool = False) -> list[Table]:
    """All cases by label, then each group by the mean over labels; `detailed`: by every label.

    One model: one table with a column for each metric. Several: one table for each metric with a column for each model.
    """
    models = next(iter(comparisons.values()))["models"]
    title = "group and label" if detailed else "group"
    if len(models) == 1:
        heads = [METRIC[metric].title for metric in comparisons]
        chosen = [(metric, models[0]) for metric in comparisons]
        return [_table(f"{models[0]} by {title}", heads, comparisons, chosen, detailed)]
    return [
        _table(
            f"{METRIC[metric].title} by model and {title}",
            models,
            comparisons,
            [(metric, model) for model in models],
            detailed,
        )
        for metric in comparisons
    ]


def _table(
    title: str,
    heads: Sequence[str],
    comparisons: Mapping[str, Comparison],
    chosen: Sequence[tuple[str, str]],
    detailed: bool,
) -> Table:
    """Rows: groups and labels; columns: the chosen (metric, model) pairs, then missed/extra/neither of each model."""
    models = list(dict.fromkeys(model for _, model in chosen))
    one = len(models) == 1
    columns = ["group", "label", "subjects", "cases", *heads]
    columns += [*EMPTIES] if one else [f"{model}: empties" for model in models]
    first = comparisons[chosen[0][0]]
    groups = {"all": ("all", "")} | {
        f"{column} {value}": (column, value) for column, values in first["groups"].items() for value in values
    }
    rows = []
    for name, (column, value) in groups.items():
        group = _group(first, column, value)
        labels = list(group["labels"])
        shown = labels if detailed or column == "all" else labels[-1:]
        for label in shown:
            cells = [
                _cell(_group(comparisons[metric], column, value)["labels"][label], metric, model)
                for metric, model in chosen
            ]
            empties = [_empties(group, label, model) for model in models]
            counts = empties[0] if one else ["/".join(own) for own in empties]
            rows.append([name, label, *_compared(group, label, one), *cells, *counts])
    note = INTERVAL_NOTE if one else f"{INTERVAL_NOTE} {SAME_NOTE} Empties: missed/extra/neither. {MARK_NOTE}"
    return Table(title, columns, rows, note)


def _group(comparison: Comparison, column: str, value: str) -> dict[str, Any]:
    group: dict[str, Any] = comparison["all"] if column == "all" else comparison["groups"][column][value]
    return group


def _compared(group: Mapping[str, Any], label: str, one: bool) -> tuple[str, str]:
    """Subjects and cases of a row: of one model all, of several those that their means are over, slashes where these differ."""
    if one:
        return str(group["subjects"]), str(group["cases"])
    found = [own for own in group["labels"][label]["models"].values() if own["n"]]
    subjects, cases = (list(dict.fromkeys(str(own[key]) for own in found)) for key in ("n", "cases"))
    return "/".join(subjects) or "0", "/".join(cases) or "0"


def _cell(label: Mapping[str, Any], metric: str, model: str) -> str:
    found = label["models"].get(model)
    if found is None or found["mean"] is None:
        return NOTHING
    digits = METRIC[metric].digits
    means = [own["mean"] for own in label["models"].values()]
    text = with_interval(number(found["mean"], digits_apart(means, digits)), found["interval95"], digits)
    return text + (MARK if label["best_is_significant"] and label["best"] == model else "")


def _empties(group: Mapping[str, Any], label: str, model: str) -> list[str]:
    """Missed, extra, neither; of the mean over labels the sums over them."""
    own = group["labels"] if label == OVER_LABELS and "empty" not in _first_model(group, label) else [label]
    counts = [
        group["labels"][name]["models"][model]["empty"]
        for name in own
        if "empty" in group["labels"][name]["models"].get(model, {})
    ]
    if not counts:
        return [NOTHING] * len(EMPTIES)
    return [str(sum(count[status] for count in counts)) for status in EMPTIES.values()]


def _first_model(group: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(iter(group["labels"][label]["models"].values()), {})
    return found


def pair_table(comparisons: Mapping[str, Comparison]) -> Table | None:
    """Every pair of models over all cases: means, difference, test, who is better. None with one model, or where nothing was compared."""
    columns = ["metric", "label", "A", "B", "subjects", "mean A", "mean B", "A − B", "wrong A/B"]
    columns += ["subjects tested", "p", "p (Holm)", "better", "d_z", "rank-biserial"]
    rows = [
        [METRIC[metric].title, label, *_pair_row(comparison["all"], label, pair, METRIC[metric].digits)]
        for metric, comparison in comparisons.items()
        for label, found in comparison["all"]["labels"].items()
        for pair in found["pairs"]
    ]
    note = (
        f"{SAME_NOTE} Difference: mean over subjects with its bootstrap 95 % interval, † where one is better. Wrong: cases in which the "
        f"structure is missed or extra. {RANK_NOTE} p after Holm's correction over pairs and labels of a metric; better: p < 0.05, at "
        f"least {LEAST_SUBJECTS} subjects, and the difference says the same. d_z: mean / sd of the subjects' differences."
    )
    return Table("Pairs of models, all cases", columns, rows, note) if rows else None


def _pair_row(group: Mapping[str, Any], label: str, pair: Mapping[str, Any], digits: int) -> list[str]:
    a, b = pair["means"] or (None, None)
    digits = digits_apart((a, b), digits)
    difference = with_interval(number(pair["difference"], digits), pair["interval95"], digits, " to ")
    wrong = [sum(map(int, _empties(group, label, pair[side])[:2])) for side in ("a", "b")]
    return [
        pair["a"],
        pair["b"],
        str(pair["subjects"]),
        number(a, digits),
        number(b, digits),
        difference + (MARK if pair["significant"] else ""),
        "/".join(map(str, wrong)),
        str(pair["tested_subjects"]),
        p_text(pair["p"]),
        p_text(pair["p_holm"]),
        pair["better"] or why_none(pair["difference"], pair["p_holm"], pair["subjects"]),
        number(pair["cohen_dz"], 2),
        number(pair["rank_biserial"], 2),
    ]


def mean_dice(entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
    """By case, then by entry: the mean Dice over the labels that have one; NaN where none has."""
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        for case, mean in mean_over_labels(entry.rows, "dice").items():
            found.setdefault(case, {})[entry.name] = mean
    return found
