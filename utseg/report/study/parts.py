"""Ablations, learning curves and chance: what variants differ by, what more subjects bring, and how far seeds alone spread.

Differences are paired over subjects, between runs with the same training set, seed and fold; p after Holm over one table. Parameters and
GMAC stand beside every score, for a variant with more of them may be better for that alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utseg.evaluate.subjects import statistics, subject_means
from utseg.evaluate.tables import NOTHING, Table, duration_text, mean_of, number, p_text
from utseg.report.scores.score_charts import Charts
from utseg.report.study.charts import ForestRow, Point, forest, points_chart
from utseg.report.study.compare import Difference, corrected, difference_text, mean_text, means_text, paired
from utseg.report.study.gap import HOLM_NOTE, plain
from utseg.study.findings.data import DEFAULT, Side, StudyData, comparable
from utseg.study.record import StudyRun

SIZED = re.compile(r"(.*) · \d+ subjects")
REFERENCE = "reference"
CHANCE_REACH = 1.96 * 2**0.5


@dataclass(frozen=True)
class Section:
    """A table with its charts, and sentences that say what is in it."""

    table: Table
    charts: Charts | None
    sentences: Sequence[str] = ()


@dataclass(frozen=True)
class _Variant:
    name: str
    network: str
    runs: list[StudyRun]
    default: bool


def ablations(data: StudyData) -> list[Section]:
    """A section for each part with at least two variants that have scores."""
    parts: dict[str, dict[tuple[str, str], _Variant]] = {}
    by_id = {run.id: run for run in data.runs}
    for run in data.record.runs:
        if run.id not in by_id or not (run.part or run.variant):
            continue
        name = run.variant or DEFAULT
        own = parts.setdefault(run.part, {})
        variant = own.setdefault((name, run.network), _Variant(name, run.network, [], data.is_default(run)))
        if all(run.id != known.id for known in variant.runs):
            variant.runs.append(by_id[run.id])
    return [_ablation(data, part, list(own.values())) for part, own in parts.items() if len(own) > 1]


def _reference(variant: _Variant, every: Sequence[_Variant]) -> _Variant:
    """The default, else the first: of the same network where it has one."""
    same = [own for own in every if own.network == variant.network]
    candidates = [own for own in same if own.default] or [own for own in every if own.default]
    candidates = candidates or (same if len(same) > 1 else list(every))
    return candidates[0]


def _ablation(data: StudyData, part: str, variants: Sequence[_Variant]) -> Section:
    has_both = bool((data.saw == 0).any() and (data.saw == 1).any())
    compared: list[list[Difference]] = []
    every_sides: list[list[tuple[Side, Side]]] = []
    for own in variants:
        a, b = comparable(data, own.runs, _reference(own, variants).runs)
        sides = [(a, b), (a & (data.saw == 0), b & (data.saw == 0))][: 2 if has_both else 1]
        every_sides.append(sides)
        compared.append([paired(data, *both) for both in sides])
    is_reference = [_reference(own, variants) is own for own in variants]
    tested = [one for own, same in zip(compared, is_reference, strict=True) if not same for one in own]
    found = iter(corrected(tested))
    width = len(compared[0])
    after = [None if same else [next(found) for _ in range(width)] for same in is_reference]
    several = len({own.network for own in variants}) > 1
    rows = [
        _ablation_row(data, own, sides, differences, several)
        for own, sides, differences in zip(variants, every_sides, after, strict=True)
    ]
    columns = ["variant", *(["network"] if several else []), "parameters M", "GMAC", "training", "subjects"]
    for where in ("", ", unseen")[:width]:
        columns += [f"Dice{where}", f"reference{where}", f"difference{where}", "p (Holm)", "verdict"]
    title = f"Ablation: {part}" if part else "Variants"
    note = (
        "Dice: mean over labels and tested subjects, with bootstrap 95 % intervals; beside it that of the reference on the same "
        f"subjects, from runs with the same training set, seed and fold, and the difference of both. {HOLM_NOTE} GMAC: 10⁹ multiply–adds "
        "for one patch. Empties: missed/extra/neither."
    )
    if max(len(own.runs) for own in variants) == 1:
        note += " Each variant was trained once: what another seed would change is not in the intervals."
    chart = _forest(part, variants, after)
    sentences = [_ablation_sentence(part, variants, after)]
    return Section(Table(title, [*columns, "empties"], rows, note), chart, sentences)


def _ablation_row(
    data: StudyData,
    own: _Variant,
    sides: Sequence[tuple[Side, Side]],
    differences: Sequence[Difference] | None,
    several: bool,
) -> list[str]:
    """`sides`: of the variant and of its reference, over all and over unseen groups; `differences` is None for the reference itself."""
    cells = [
        own.name,
        *([own.network] if several else []),
        *capacity(own.runs[0]),
        duration_text(mean_of(run.training_seconds for run in own.runs)),
    ]
    for place, (side, reference) in enumerate(sides):
        dice, subjects = mean_text(data, side, beside=[reference])
        cells += [dice] if place else [str(subjects), dice]
        if differences is None:
            cells += ["", REFERENCE, "", ""]
        else:
            one = differences[place]
            cells += [means_text(one)[1], difference_text(one), p_text(one.p_holm)]
            cells.append(one.verdict("better", "worse"))
    return [*cells, "/".join(map(str, data.empties(data.side(own.runs))))]


def capacity(run: StudyRun) -> tuple[str, str]:
    """Parameters in millions and GMAC, as text."""
    return number(None if run.parameters is None else run.parameters / 1e6, 2), number(run.gmac, 2)


def _forest(part: str, variants: Sequence[_Variant], found: Sequence[Sequence[Difference] | None]) -> Charts:
    several = len({own.network for own in variants}) > 1
    rows = []
    for own, differences in zip(variants, found, strict=True):
        name = f"{own.name} ({own.network})" if several else own.name
        millions = capacity(own.runs[0])[0]
        note = "" if millions == NOTHING else f"{millions} M"
        if differences is None:
            rows.append(ForestRow(name, None, None, f"{REFERENCE}, {note}"))
        elif differences[0].difference is not None:
            one = differences[0]
            rows.append(ForestRow(name, one.difference, one.interval95, note, one.significant))
    caption = "Difference to the reference, filled where it is beyond chance; at the right the parameters"
    return Charts(caption, [forest(part or "Variants", "Dice, variant − reference", rows)])


def _ablation_sentence(
    part: str, variants: Sequence[_Variant], found: Sequence[Sequence[Difference] | None]
) -> str:
    start = part[:1].upper() + part[1:] if part else "Variants"
    references = [own.name for own, differences in zip(variants, found, strict=True) if differences is None]
    tested = [
        (own.name, differences[0])
        for own, differences in zip(variants, found, strict=True)
        if differences and differences[0].difference is not None
    ]
    apart = [
        f"“{name}” is {abs(one.difference or 0.0):.3f} Dice {one.verdict('better', 'worse')}"
        for name, one in tested
        if one.significant
    ]
    ties = [name for name, one in tested if not one.significant]
    few = "" if any(one.could_be for _, one in tested) else ", with too few subjects to tell"
    clauses = apart + ([f"a tie with {', '.join(f'“{name}”' for name in ties)}{few}"] if ties else [])
    against = f"against “{references[0]}”" if len(references) == 1 else "against their reference"
    return f"{start}, {against}: {'; '.join(clauses) or 'nothing could be compared'}."


@dataclass(frozen=True)
class _Step:
    """The runs of a model with so many subjects, and those with all of them."""

    model: str
    base: str
    size: int
    runs: list[StudyRun]
    whole: list[StudyRun]


def learning_curve(data: StudyData) -> Section | None:
    """Score against the number of subjects, where subsets were trained on. None without any."""
    steps = _steps(data)
    if not steps:
        return None
    sides = [_same_seed(data, step.runs, step.whole) for step in steps]
    tested = [
        paired(data, whole, some)
        for step, (some, whole) in zip(steps, sides, strict=True)
        if step.runs is not step.whole
    ]
    found = iter(corrected(tested))
    rows: list[list[str]] = []
    lines: dict[tuple[str, str], list[Point]] = {}
    for step, (side, whole) in zip(steps, sides, strict=True):
        gain = None if step.runs is step.whole else next(found)
        cells = [step.model, plain(step.base), str(step.size), str(len(step.runs))]
        dice, subjects = mean_text(data, side, beside=[whole])
        cells += [
            str(subjects),
            dice,
            means_text(gain)[0] if gain else "",
            difference_text(gain) if gain else "",
            p_text(gain.p_holm) if gain else "",
        ]
        rows.append([*cells, gain.verdict("more is better", "fewer is better") if gain else "all of them"])
        if point := _point(data, step):
            lines.setdefault((step.model, step.base), []).append(point)
    several = len({base for _, base in lines}) > 1
    joined = [
        [*line[:-1], replace(line[-1], name=f"{model}, {plain(base)}" if several else model)]
        for (model, base), line in lines.items()
    ]
    units = "subjects to train and validate (logarithmic)", "mean Dice"
    every = [point for line in joined for point in line]
    chart = points_chart("Learning curve", units, every, lines=joined, logarithmic=True)
    note = (
        "Subjects: those that train and those that validate. Dice: mean over labels and the tested subjects, bootstrap 95 % "
        "interval; beside it that of the runs with all subjects and the same seed and fold, on the same tested subjects, and the gain, the "
        f"difference of both. {HOLM_NOTE}"
    )
    columns = [
        "model",
        "trained on",
        "subjects",
        "runs",
        "tested subjects",
        "Dice",
        "with all",
        "gain",
        "p (Holm)",
        "verdict",
    ]
    table = Table("Score by number of subjects", columns, rows, note)
    return Section(table, Charts("Dice by number of subjects", [chart]))


def _steps(data: StudyData) -> list[_Step]:
    groups: dict[tuple[str, str], dict[int, list[StudyRun]]] = {}
    for run in data.runs:
        sized = SIZED.fullmatch(run.trained_on)
        size = len(run.subjects.training) + len(run.subjects.validation)
        key = data.model_of(run), sized[1] if sized else run.trained_on
        groups.setdefault(key, {}).setdefault(size, []).append(run)
    if not any(SIZED.fullmatch(run.trained_on) for run in data.runs):
        return []
    return [
        _Step(*key, size, own[size], own[max(own)])
        for key, own in groups.items()
        if len(own) > 1
        for size in sorted(own)
    ]


def _point(data: StudyData, step: _Step) -> Point | None:
    found = data.averaged([data.side(step.runs)])
    own = statistics(found.values[0], found.subjects)
    if own["mean"] is None:
        return None
    title = f"{step.model}, {plain(step.base)}, {step.size} subjects: {own['mean']:.3f}"
    return Point(step.size, own["mean"], data.models.index(step.model), title, "", own["interval95"])


def _same_seed(data: StudyData, a: Sequence[StudyRun], b: Sequence[StudyRun]) -> tuple[Side, Side]:
    shared = {(run.seed, run.fold) for run in a} & {(run.seed, run.fold) for run in b}
    first, second = (data.side([run for run in own if (run.seed, run.fold) in shared]) for own in (a, b))
    return first, second


def chance(data: StudyData) -> Section | None:
    """How far runs spread that differ in nothing but the seed. None where no training was repeated."""
    groups: dict[tuple[str, str, int], list[StudyRun]] = {}
    for run in data.runs:
        groups.setdefault((data.model_of(run), run.trained_on, run.fold), []).append(run)
    groups = {key: own for key, own in groups.items() if len(own) > 1}
    if not groups:
        return None
    rows, variances, freedom = [], [], 0
    for (model, trained_on, fold), runs in groups.items():
        found = data.averaged([data.side([run]) for run in runs])
        means = np.array([subject_means(own, found.subjects).mean() for own in found.values])
        sd = float(means.std(ddof=1))
        variances.append(sd**2 * (len(runs) - 1))
        freedom += len(runs) - 1
        own = [model, plain(trained_on), str(fold), str(len(runs)), str(found.subject_count)]
        own += [number(float(means.mean()), 3), number(sd, 4), number(float(means.min()), 3)]
        rows.append([*own, number(float(means.max()), 3)])
    sd = float(np.sqrt(sum(variances) / freedom))
    low, high = _sd_interval(sd, freedom)
    sentence = (
        f"Chance: runs that differ in the seed only have a standard deviation of {sd:.4f} Dice (95 % {low:.4f} … {high:.4f}, "
        f"{freedom} degrees of freedom); two single runs differ by up to {CHANCE_REACH * sd:.3f} for that alone, 19 times in 20."
    )
    note = (
        "Mean Dice over labels and all tested subjects, of each run; sd over seeds (n − 1). Intervals over subjects do not hold this "
        "spread: a difference between single runs that is no larger may be the seed's."
    )
    columns = [
        "model",
        "trained on",
        "fold",
        "seeds",
        "tested subjects",
        "mean",
        "sd over seeds",
        "lowest",
        "highest",
    ]
    return Section(Table("Spread over seeds", columns, rows, note), None, [sentence])


def _sd_interval(sd: float, freedom: int) -> tuple[float, float]:
    """95 % interval of a standard deviation of normal values."""
    from scipy.stats import chi2

    small, large = chi2.ppf([0.025, 0.975], freedom)
    return float(sd * np.sqrt(freedom / large)), float(sd * np.sqrt(freedom / small))
