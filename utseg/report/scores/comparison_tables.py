"""The tables of models × groups: means over subjects with intervals, counts of empties beside them, the best marked where a test says so.

Models stand side by side over the same cases; those that share no case stand there without tests. Statistics and tests are those of
`utseg.evaluate.compare`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from utseg.errors import InputError
from utseg.evaluate.compare import LEAST_SUBJECTS, compare_models, why_none
from utseg.evaluate.metrics import EMPTIES, METRIC, Row, metrics_for
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
Comparisons = dict[str, dict[str, Any]]  # by metric what `compare_models` says


def compare_entries(entries: Sequence[Entry], columns: Sequence[str]) -> tuple[list[Comparisons], list[str]]:
    """The models compared on the cases that all have, for each metric; each alone where no case is in all. And lines that say so.

    Raises InputError where the models were scored on other labels.
    """
    rows = {entry.name: entry.rows for entry in entries}
    _require_same_labels(rows)
    metrics = [key for key in metrics_for("comparison") if all(key in some[0] for some in rows.values())]
    unlike = _differing_definitions(entries)
    if unlike:
        metrics = [key for key in metrics if METRIC[key].missed is None]

    def compared(models: Mapping[str, Sequence[Row]]) -> Comparisons:
        return {
            metric: compare_models(models, metric=metric, columns=columns, only_common=True)
            for metric in metrics
        }

    if not set.intersection(*({row["case"] for row in some} for some in rows.values())):
        line = "The models were scored on different cases: they stand one after the other, and no test compares them."
        return [compared({name: some}) for name, some in rows.items()], [line, *unlike]
    found = compared(rows)
    notices = [
        f"{name} was not scored on {len(lacking)} of the cases; models are compared on those that all have."
        for name, lacking in next(iter(found.values()))["left_out"].items()
    ]
    return [found], [*notices, *unlike]


def _differing_definitions(entries: Sequence[Entry]) -> list[str]:
    """A line where scores were made by different surfaces, percentiles or tolerances, so that what is of surfaces cannot be compared."""
    found = [scores.summary.get("definitions") for entry in entries for scores in entry.scores]
    known = [one for one in found if one]
    if all(one == known[0] for one in known):
        return []
    return [
        "The models were scored by different definitions (see the provenance): no table compares their distances and surface Dice; score "
        "all of them alike."
    ]


def _require_same_labels(rows: Mapping[str, Sequence[Row]]) -> None:
    labels = {name: sorted({str(row["label_name"]) for row in some}) for name, some in rows.items()}
    first_name, first = next(iter(labels.items()))
    for name, found in labels.items():
        if found != first:
            raise InputError(
                f"{name}: scored on the labels {', '.join(found)}, {first_name} on {', '.join(first)}; report them one by one"
            )


def comparison_tables(comparisons: Comparisons, *, detailed: bool = False) -> list[Table]:
    """All cases by label, then each group by the mean over labels; `detailed`: by every label.

    One model: one table with a column for each metric. Several: one table for each metric with a column for each model.
    """
    models = next(iter(comparisons.values()))["models"]
    by = "group and label" if detailed else "group"
    if len(models) == 1:
        heads = [METRIC[metric].title for metric in comparisons]
        return [_table(f"{models[0]} by {by}", heads, comparisons, models, detailed)]
    return [
        _table(f"{METRIC[metric].title} by model and {by}", models, {metric: comparison}, models, detailed)
        for metric, comparison in comparisons.items()
    ]


def _table(
    title: str, heads: Sequence[str], comparisons: Comparisons, models: Sequence[str], detailed: bool
) -> Table:
    """Rows: groups and labels; columns: metrics or models, then missed/extra/neither of each model."""
    one = len(models) == 1
    columns = ["group", "label", "subjects", "cases", *heads]
    columns += [*EMPTIES] if one else [f"{model}: empties" for model in models]
    groups = {metric: _groups(comparison) for metric, comparison in comparisons.items()}
    rows = []
    for name, group in next(iter(groups.values())).items():
        labels = list(group["labels"])
        for label in labels if detailed or name == "all" else labels[-1:]:
            every = [(some[name]["labels"][label], metric) for metric, some in groups.items()]
            cells = [_cell(*found, model) for found in every for model in models]
            empties = [_empties(group, label, model) for model in models]
            counts = empties[0] if one else ["/".join(some) for some in empties]
            rows.append([name, label, *_compared(group, label, one), *cells, *counts])
    note = INTERVAL_NOTE if one else f"{INTERVAL_NOTE} {SAME_NOTE} Empties: missed/extra/neither. {MARK_NOTE}"
    return Table(title, columns, rows, note)


def _groups(comparison: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All cases, then those of each value of each column."""
    return {"all": comparison["all"]} | {
        f"{column} {value}": group
        for column, values in comparison["groups"].items()
        for value, group in values.items()
    }


def _compared(group: Mapping[str, Any], label: str, one: bool) -> tuple[str, str]:
    """Subjects and cases of a row: of one model all, of several those that their means are over."""
    if one:
        return str(group["subjects"]), str(group["cases"])
    found = [model for model in group["labels"][label]["models"].values() if model["n"]]
    return (str(found[0]["n"]), str(found[0]["cases"])) if found else ("0", "0")


def _cell(label: Mapping[str, Any], metric: str, model: str) -> str:
    found = label["models"][model]
    if found["mean"] is None:
        return NOTHING
    digits = METRIC[metric].digits
    means = [some["mean"] for some in label["models"].values()]
    text = with_interval(number(found["mean"], digits_apart(means, digits)), found["interval95"], digits)
    return text + (MARK if label["best_is_significant"] and label["best"] == model else "")


def _empties(group: Mapping[str, Any], label: str, model: str) -> list[str]:
    """Missed, extra, neither; of the mean over labels the sums over them."""
    labels = group["labels"]
    names = (
        [label] if "empty" in labels[label]["models"][model] else [name for name in labels if name != label]
    )
    counts = [labels[name]["models"][model]["empty"] for name in names]
    return [str(sum(count[status] for count in counts)) for status in EMPTIES.values()]


def pair_table(comparisons: Comparisons) -> Table | None:
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
    better = pair["better"] or why_none(pair["difference"], pair["p_holm"], pair["subjects"])
    sizes = number(pair["cohen_dz"], 2), number(pair["rank_biserial"], 2)
    means = [str(pair["subjects"]), number(a, digits), number(b, digits)]
    wrongs = [difference + (MARK if pair["significant"] else ""), "/".join(map(str, wrong))]
    tested = [str(pair["tested_subjects"]), p_text(pair["p"]), p_text(pair["p_holm"])]
    return [pair["a"], pair["b"], *means, *wrongs, *tested, better, *sizes]
