"""Ablations, learning curves and chance: what variants differ by, what more subjects bring, and how far seeds alone spread.

Differences are paired over subjects, between runs with the same training set, seed and fold; p after Holm over one table.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utseg.evaluate.subjects import subject_means
from utseg.study.findings.data import DEFAULT, Side, StudyData
from utseg.study.findings.difference import Difference, correct, paired
from utseg.study.record import StudyRun

SIZED = re.compile(r"(.*) · \d+ subjects")


@dataclass(frozen=True)
class TriedVariant:
    """A variant and its reference: their scores over all groups and over unseen ones, and the differences; none of the reference itself."""

    name: str
    network: str
    runs: list[StudyRun]
    default: bool
    sides: Sequence[tuple[Side, Side]] = ()
    differences: Sequence[Difference] = ()


@dataclass(frozen=True)
class Ablation:
    """The variants of a part. `unseen`: whether they are compared on unseen groups too."""

    part: str
    variants: Sequence[TriedVariant]
    unseen: bool

    @property
    def several_networks(self) -> bool:
        """Whether the variants are of more than one network."""
        return len({variant.network for variant in self.variants}) > 1


def ablations(data: StudyData) -> list[Ablation]:
    """The parts with at least two variants that have scores."""
    parts: dict[str, dict[tuple[str, str], TriedVariant]] = {}
    by_id = {run.id: run for run in data.runs}
    for run in data.record.runs:
        if run.id not in by_id or not (run.part or run.variant):
            continue
        name = run.variant or DEFAULT
        variants = parts.setdefault(run.part, {})
        new = TriedVariant(name, run.network, [], data.is_default(run))
        runs = variants.setdefault((name, run.network), new).runs
        if all(run.id != known.id for known in runs):
            runs.append(by_id[run.id])
    return [_ablation(data, part, [*some.values()]) for part, some in parts.items() if len(some) > 1]


def _reference(variant: TriedVariant, every: Sequence[TriedVariant]) -> TriedVariant:
    """The default, else the first: of the same network where it has one."""
    same = [other for other in every if other.network == variant.network]
    candidates = [other for other in same if other.default] or [other for other in every if other.default]
    return (candidates or (same if len(same) > 1 else list(every)))[0]


def _ablation(data: StudyData, part: str, variants: Sequence[TriedVariant]) -> Ablation:
    unseen = bool((data.saw == 0).any() and (data.saw == 1).any())
    found = []
    for variant in variants:
        reference = _reference(variant, variants)
        a, b = data.comparable(variant.runs, reference.runs)
        sides = [(a, b), (a & (data.saw == 0), b & (data.saw == 0))][: 1 + unseen]
        differences = [] if reference is variant else [paired(data, *pair) for pair in sides]
        found.append(replace(variant, sides=sides, differences=differences))
    correct([one for variant in found for one in variant.differences])
    return Ablation(part, found, unseen)


@dataclass(frozen=True)
class Step:
    """A model trained on so many subjects of a set: its scores, and those of the runs with all of them; no gain where it is these."""

    model: str
    base: str
    size: int
    runs: list[StudyRun]
    side: Side
    whole: Side
    gain: Difference | None


def learning_curve(data: StudyData) -> list[Step]:
    """Scores by the number of subjects that train and validate, where subsets were trained on."""
    groups: dict[tuple[str, str], dict[int, list[StudyRun]]] = {}
    for run in data.runs:
        sized = SIZED.fullmatch(run.trained_on)
        size = len(run.subjects.training) + len(run.subjects.validation)
        key = data.model_of(run), sized[1] if sized else run.trained_on
        groups.setdefault(key, {}).setdefault(size, []).append(run)
    if not any(SIZED.fullmatch(run.trained_on) for run in data.runs):
        return []
    steps = []
    for key, by_size in groups.items():
        for size in sorted(by_size) if len(by_size) > 1 else ():
            some, whole = by_size[size], by_size[max(by_size)]
            a, b = data.comparable(some, whole, same=lambda run: (run.seed, run.fold))
            gain = None if some is whole else paired(data, b, a)
            steps.append(Step(*key, size, some, a, b, gain))
    correct([step.gain for step in steps if step.gain])
    return steps


@dataclass(frozen=True)
class SeedSpread:
    """The mean Dice of each run of a model, training set and fold; the runs differ in the seed only."""

    model: str
    trained_on: str
    fold: int
    subjects: int
    means: np.ndarray

    @property
    def sd(self) -> float:
        """Standard deviation over seeds (n − 1)."""
        return float(self.means.std(ddof=1))


def seed_spreads(data: StudyData) -> list[SeedSpread]:
    """Of each training that was repeated with other seeds."""
    groups: dict[tuple[str, str, int], list[StudyRun]] = {}
    for run in data.runs:
        groups.setdefault((data.model_of(run), run.trained_on, run.fold), []).append(run)
    spreads = []
    for key, runs in groups.items():
        if len(runs) > 1:
            found = data.averaged([data.side([run]) for run in runs])
            means = np.array([subject_means(values, found.subjects).mean() for values in found.values])
            spreads.append(SeedSpread(*key, found.subject_count, means))
    return spreads


def pooled_sd(spreads: Sequence[SeedSpread]) -> tuple[float, tuple[float, float], int]:
    """The standard deviation over seeds of all of them, its 95 % interval for normal values, and the degrees of freedom."""
    from scipy.stats import chi2

    freedom = sum(len(spread.means) - 1 for spread in spreads)
    sd = float(np.sqrt(sum(spread.sd**2 * (len(spread.means) - 1) for spread in spreads) / freedom))
    small, large = chi2.ppf([0.025, 0.975], freedom)
    return sd, (float(sd * np.sqrt(freedom / large)), float(sd * np.sqrt(freedom / small))), freedom
