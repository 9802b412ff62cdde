"""Tables, charts and sentences of losses, pairs of models, ablations, learning curves and chance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from utseg.evaluate.metrics import METRIC
from utseg.evaluate.tables import NOTHING, Table, duration_text, mean_of, number
from utseg.figures.charts import ForestRow, Point, forest, points_chart
from utseg.report.page import Charts
from utseg.report.study.words import (
    HOLM_NOTE,
    RANKED,
    Claim,
    difference_cell,
    difference_cells,
    mean_cell,
    means_cells,
    plain,
    plural,
    sentence,
    slashed,
)
from utseg.study.findings.data import StudyData
from utseg.study.findings.difference import Difference
from utseg.study.findings.unseen import LOSS, ON_ALL, ON_UNSEEN, Loss, ModelPair
from utseg.study.findings.variants import Ablation, SeedSpread, Step, TriedVariant, pooled_sd
from utseg.study.record import MEAN_LABEL, StudyRun

REFERENCE = "reference"
CHANCE_REACH = 1.96 * 2**0.5


@dataclass(frozen=True)
class Finding:
    """A table with its charts, and sentences that say what is in it."""

    table: Table
    charts: Charts | None = None
    sentences: Sequence[str] = ()


def loss_table(data: StudyData, losses: Sequence[Loss]) -> Table:
    """The losses of all models by label."""
    metric, by = METRIC[losses[0].difference.metric], data.record.by
    of = {False: f"{plural(by)} seen and not (paired)", True: f"{plural(by)} never seen (unpaired)"}
    rows = []
    for loss in losses:
        one, seen, unseen = loss.difference, loss.seen, loss.unseen
        means = [
            mean_cell(
                data.statistics(side, one.metric, one.label, beside=[other] if one.paired else ()), one.metric
            )
            for side, other in ((seen, unseen), (unseen, seen))
        ]
        empties = slashed(data.empties(seen | unseen, one.label))
        compared = difference_cells(one, "loses", "gains")
        rows.append(
            [loss.model, of[loss.never], one.label, slashed(one.subjects), *means, *compared, empties]
        )
    note = (
        f"{metric.title}. Means over the subjects compared; loss: mean over subjects of "
        f"{'seen − unseen' if metric.better > 0 else 'unseen − seen'}; bootstrap 95 % intervals. Paired: of each subject the mean over "
        f"the runs that saw its {by} against the mean over those that did not; two-sided permutation test"
        f"{RANKED if metric.ranked else ''}; a run on several {plural(by)} had more subjects, too. Unpaired: subjects of {plural(by)} "
        "that no run saw against those of seen ones (subjects: of both sides); there other scans are compared, not only other training. "
        f"{HOLM_NOTE} Empties: missed/extra/neither, over all runs; a score that is undefined in one of the runs compared is in no mean."
    )
    columns = ["model", "of", "label", "subjects", "seen", "unseen", "loss", "p", "p (Holm)", "verdict"]
    return Table(f"Loss of {metric.name} on unseen {plural(by)}", [*columns, "empties"], rows, note)


def loss_sentences(data: StudyData, losses: Sequence[Loss]) -> list[str]:
    """What each model loses in the mean over labels."""
    by = plural(data.record.by)
    never_seen = f"On {by} that no run saw, whose scans may be harder in themselves"
    lines = []
    for never, start in ((False, f"On unseen {by}"), (True, never_seen)):
        claims = [
            Claim(loss.model, loss.difference, f"{loss.model} loses {{}}", f"{loss.model} gains {{}}")
            for loss in losses
            if loss.never is never and loss.difference.label == MEAN_LABEL
        ]
        lines += sentence(start, claims)
    return lines


def loss_by_group_table(data: StudyData, found: dict[str, list[Difference]]) -> Table:
    """The paired loss on each group, a column a model."""
    rows = [
        [plain(group), slashed(dict.fromkeys(one.subjects[0] for one in some)), *map(difference_cell, some)]
        for group, some in found.items()
    ]
    by = data.record.by
    note = (
        f"Paired over subjects, mean over labels: what is lost by runs that did not see the {by}. {HOLM_NOTE}"
    )
    return Table(f"Loss of Dice by {by}", ["tested on", "subjects", *data.models], rows, note)


def pair_table(data: StudyData, pairs: Sequence[ModelPair]) -> Table:
    """Each two models: means, difference, test, who is better."""
    metric, by = METRIC[pairs[0].difference.metric], plural(data.record.by)
    names = {
        ON_UNSEEN: f"score on unseen {by}",
        LOSS: "loss, seen to unseen",
        ON_ALL: "score on all test cases",
    }
    rows = []
    for pair in pairs:
        compared = [str(pair.difference.subjects[0]), *means_cells(pair.difference)]
        tested = [*difference_cells(pair.difference, "", "")[:-1], pair.verdict]
        rows.append([names[pair.what], pair.a, pair.b, *compared, *tested])
    note = (
        f"{metric.title}, mean over labels, paired over subjects; of each pair only runs with the same training set, seed and fold. "
        f"Means are of these subjects and runs. Two-sided permutation test{RANKED if metric.ranked else ''}. {HOLM_NOTE}"
    )
    columns = ["what", "A", "B", "subjects", "mean A", "mean B", "A − B", "p", "p (Holm)", "verdict"]
    return Table(f"Models compared: {metric.name}", columns, rows, note)


def pair_sentences(data: StudyData, pairs: Sequence[ModelPair]) -> list[str]:
    """How the model that is ahead of most others compares with them."""
    on_unseen = f"On unseen {plural(data.record.by)}"
    where = {ON_UNSEEN: on_unseen, LOSS: "From seen to unseen", ON_ALL: "On all test cases"}
    lines = []
    for what, start in where.items():
        some = [pair for pair in pairs if pair.what == what]
        first = [model for model, _ in Counter(pair.ahead for pair in some).most_common(1)]
        said = "{} loses {{}} less than {}" if what == LOSS else "{} is {{}} ahead of {}"
        claims = []
        for pair in some:
            if {pair.a, pair.b}.intersection(first):
                words = said.format(pair.ahead, pair.behind)
                claims.append(Claim(f"{pair.a} and {pair.b}", pair.difference, words, words))
        lines += sentence(start, claims)
    return lines


def ablation_finding(data: StudyData, ablation: Ablation) -> Finding:
    """The variants of a part against their reference."""
    several = ablation.several_networks
    columns = ["variant", *(["network"] if several else []), "parameters M", "GMAC", "training", "subjects"]
    for where in ("", ", unseen")[: 1 + ablation.unseen]:
        columns += [f"Dice{where}", f"reference{where}", f"difference{where}", "p (Holm)", "verdict"]
    rows = [_variant_row(data, variant, several) for variant in ablation.variants]
    note = (
        "Dice: mean over labels and tested subjects, with bootstrap 95 % intervals; beside it that of the reference on the same "
        f"subjects, from runs with the same training set, seed and fold, and the difference of both. {HOLM_NOTE} GMAC: 10⁹ multiply–adds "
        "for one patch. Empties: missed/extra/neither."
    )
    if max(len(variant.runs) for variant in ablation.variants) == 1:
        note += " Each variant was trained once: what another seed would change is not in the intervals."
    part = ablation.part
    table = Table(f"Ablation: {part}" if part else "Variants", [*columns, "empties"], rows, note)
    caption = "Difference to the reference, filled where it is beyond chance; at the right the parameters"
    chart = forest(part or "Variants", "Dice, variant − reference", _forest_rows(ablation))
    claims = [
        Claim(name, variant.differences[0], f"{name} is {{}} better", f"{name} is {{}} worse")
        for variant in ablation.variants
        if variant.differences
        for name in [f"“{variant.name}”"]
    ]
    references = [f"“{variant.name}”" for variant in ablation.variants if not variant.differences]
    against = references[0] if len(references) == 1 else "their reference"
    start = f"{part[:1].upper()}{part[1:]}" if part else "Variants"
    return Finding(table, Charts(caption, [chart]), sentence(f"{start} against {against}", claims))


def _variant_row(data: StudyData, variant: TriedVariant, several: bool) -> list[str]:
    time = duration_text(mean_of(run.training_seconds for run in variant.runs))
    cells = [variant.name, *([variant.network] if several else []), *capacity(variant.runs[0]), time]
    for number_, (side, reference) in enumerate(variant.sides):
        found = data.statistics(side, beside=[reference])
        cells += [mean_cell(found)] if number_ else [str(found["n"]), mean_cell(found)]
        if variant.differences:
            cells += _against_other(variant.differences[number_], 1, "better", "worse")
        else:
            cells += ["", REFERENCE, "", ""]
    return [*cells, slashed(data.empties(data.side(variant.runs)))]


def _against_other(one: Difference, side: int, if_more: str, if_less: str) -> list[str]:
    """The mean of the other side, the difference, p after Holm, and the verdict."""
    difference, _, *tested = difference_cells(one, if_more, if_less)
    return [means_cells(one)[side], difference, *tested]


def capacity(run: StudyRun) -> tuple[str, str]:
    """Parameters in millions and GMAC, as text."""
    return number(None if run.parameters is None else run.parameters / 1e6, 2), number(run.gmac, 2)


def _forest_rows(ablation: Ablation) -> list[ForestRow]:
    rows = []
    for variant in ablation.variants:
        name = f"{variant.name} ({variant.network})" if ablation.several_networks else variant.name
        millions = capacity(variant.runs[0])[0]
        note = "" if millions == NOTHING else f"{millions} M"
        if not variant.differences:
            rows.append(ForestRow(name, None, None, f"{REFERENCE}, {note}"))
        elif (one := variant.differences[0]).difference is not None:
            rows.append(ForestRow(name, one.difference, one.interval95, note, one.significant))
    return rows


def learning_finding(data: StudyData, steps: Sequence[Step]) -> Finding:
    """Score against the number of subjects."""
    rows = []
    lines: dict[tuple[str, str], list[Point]] = {}
    several = len({step.base for step in steps}) > 1
    for step in steps:
        found, base = data.statistics(step.side, beside=[step.whole]), plain(step.base)
        gained = ["", "", "", "all of them"]
        if step.gain:
            gained = _against_other(step.gain, 0, "more is better", "fewer is better")
        counts = map(str, (step.size, len(step.runs), found["n"]))
        rows.append([step.model, base, *counts, mean_cell(found), *gained])
        found = data.statistics(data.side(step.runs))
        if found["mean"] is not None:
            title = f"{step.model}, {base}, {step.size} subjects: {found['mean']:.3f}"
            name = f"{step.model}, {base}" if several else step.model
            colour = data.models.index(step.model)
            point = Point(step.size, found["mean"], colour, title, name, found["interval95"])
            lines.setdefault((step.model, step.base), []).append(point)
    joined = [[*(replace(point, name="") for point in line[:-1]), line[-1]] for line in lines.values()]
    units = "subjects to train and validate (logarithmic)", "mean Dice"
    every = [point for line in joined for point in line]
    chart = points_chart("Learning curve", units, every, lines=joined, logarithmic=True)
    note = (
        "Subjects: those that train and those that validate. Dice: mean over labels and the tested subjects, bootstrap 95 % "
        "interval; beside it that of the runs with all subjects and the same seed and fold, on the same tested subjects, and the gain, the "
        f"difference of both. {HOLM_NOTE}"
    )
    columns = ["model", "trained on", "subjects", "runs", "tested subjects", "Dice", "with all", "gain"]
    table = Table("Score by number of subjects", [*columns, "p (Holm)", "verdict"], rows, note)
    return Finding(table, Charts("Dice by number of subjects", [chart]))


def chance_finding(spreads: Sequence[SeedSpread]) -> Finding:
    """How far runs spread that differ in nothing but the seed."""
    rows = []
    for one in spreads:
        counts = map(str, (one.fold, len(one.means), one.subjects))
        mean, *ends = (
            number(float(value), 3) for value in (one.means.mean(), one.means.min(), one.means.max())
        )
        rows.append([one.model, plain(one.trained_on), *counts, mean, number(one.sd, 4), *ends])
    sd, (low, high), freedom = pooled_sd(spreads)
    said = (
        f"Chance: runs that differ in the seed only have a standard deviation of {sd:.4f} Dice (95 % {low:.4f} … {high:.4f}, "
        f"{freedom} degrees of freedom); two single runs differ by up to {CHANCE_REACH * sd:.3f} for that alone, 19 times in 20."
    )
    note = (
        "Mean Dice over labels and all tested subjects, of each run; sd over seeds (n − 1). Intervals over subjects do not hold this "
        "spread: a difference between single runs that is no larger may be the seed's."
    )
    columns = ["model", "trained on", "fold", "seeds", "tested subjects", "mean", "sd over seeds"]
    return Finding(Table("Spread over seeds", [*columns, "lowest", "highest"], rows, note), None, [said])
