"""How far a test scan is from what a run was trained on, and whether scores go down with it; and in what vendors' images differ.

Distance, for a kind of features (spacing, intensity, contrast, texture): the root mean square over its features of z = (x − m) / s, where x
is the test case's value, m the mean over the cases that the run was trained on, and s² the mean of the variance over these and over all
measured cases, so that a feature which training had in one value only does not count without limit. Over all kinds: the root mean square of
the four. A point is a subject under one training set. Rank correlations are Spearman's, with intervals by drawing subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import holm
from utseg.evaluate.metrics import Row
from utseg.evaluate.subjects import SEED, by_subject, mean_defined, times_drawn
from utseg.study.findings.data import Floats, StudyData
from utseg.study.images import KINDS, features_of, kind_of, read_images
from utseg.study.record import IMAGES_FILE, StudyRun

OVERALL = "all kinds"
RAW = "raw"
LEAST_POINTS = 6


@dataclass(frozen=True)
class Images:
    """The measured images: the index of each (dataset, case), whose it is, features, and values (images, features), NaN for none."""

    index: Mapping[tuple[str, str], int]
    subjects: NDArray[np.str_]
    rows: Sequence[Row]
    features: Sequence[str]
    values: Floats


@dataclass(frozen=True)
class CloudPoint:
    """A subject under one training set: its mean Dice, distance by kind, group, and whether that was seen (1, 0 or −1)."""

    subject: str
    trained_on: str
    tested_on: str
    saw: int
    dice: float
    distance: Mapping[str, float]


@dataclass(frozen=True)
class Cloud:
    """The points of a model."""

    model: str
    points: list[CloudPoint] = field(default_factory=list)

    def of_kind(self, kind: str) -> tuple[Floats, Floats, NDArray[np.str_]]:
        """Distance, Dice and subject of the points that have a distance of this kind."""
        points = [point for point in self.points if not np.isnan(point.distance[kind])]
        subjects = np.array([point.subject for point in points], dtype=np.str_)
        return (
            np.array([point.distance[kind] for point in points]),
            np.array([point.dice for point in points]),
            subjects,
        )


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of Dice with a kind of distance, None where one of them is constant."""

    model: str
    kind: str
    subjects: int
    points: int
    rho: float | None
    interval95: tuple[float, float] | None


@dataclass(frozen=True)
class FeatureDifference:
    """A feature's median in each group, the share of the variance over subjects that lies between groups (η²), p after Holm."""

    feature: str
    medians: Sequence[float]
    between: float
    p_holm: float


def read_image_table(folder: Path) -> Images | None:
    """The `images.csv` of a study as arrays. None where there is none, or nothing in it."""
    path = folder / IMAGES_FILE
    rows = read_images(path) if path.is_file() else []
    if not rows:
        return None
    features = features_of(rows)
    index = {(str(row["dataset"]), str(row["case"])): number for number, row in enumerate(rows)}
    subjects = np.array([f"{row['dataset']}/{row['subject']}" for row in rows], dtype=np.str_)
    values = np.array([[row[name] for name in features] for row in rows], dtype=float)
    return Images(index, subjects, rows, features, values)


def distances(images: Images, run: StudyRun) -> dict[str, Floats]:
    """Of every image from what a run was trained on, by kind and over all (`OVERALL`). Empty where none of these was measured."""
    trained = images.values[
        np.isin(images.subjects, [f"{run.dataset}/{name}" for name in run.subjects.training])
    ]
    if not len(trained):
        return {}
    scale = np.sqrt((_variance(trained) + _variance(images.values)) / 2)
    z = np.where(scale > 0, (images.values - mean_defined(trained, 0)) / np.where(scale > 0, scale, 1), 0.0)
    found = {}
    for kind in KINDS:
        columns = [number for number, name in enumerate(images.features) if kind_of(name) == kind != RAW]
        if columns:
            found[kind] = np.sqrt(mean_defined(np.square(z[:, columns]), 1))
    found[OVERALL] = np.sqrt(mean_defined(np.square(np.array(list(found.values()))), 0))
    return found


def _variance(values: Floats) -> Floats:
    return mean_defined(np.square(values - mean_defined(values, 0)), 0)


def clouds(data: StudyData, images: Images) -> list[Cloud]:
    """The points of each model: of each training set (seeds and folds averaged) each tested subject that was measured."""
    found = {model: Cloud(model) for model in data.models}
    image_C = np.array([images.index.get((case.dataset, case.case), -1) for case in data.cases])
    for model, trained_on in data.training_sets:
        runs = data.runs_of(model, trained_on)
        by_run = [distances(images, run) for run in runs]
        if not all(by_run):
            continue
        averages = data.averaged([data.side(runs)])
        known = (image_C[averages.cases] >= 0) & ~np.isnan(averages.values[0])
        cases, dice = averages.cases[known], averages.values[0, known]
        far = {kind: np.mean([one[kind][image_C[cases]] for one in by_run], axis=0) for kind in by_run[0]}
        ids = {run.id for run in runs}
        saw = data.saw[[run.id in ids for run in data.runs]].max(axis=0)
        for subject in dict.fromkeys(data.subjects[cases].tolist()):
            its = np.flatnonzero(data.subjects[cases] == subject)
            first = cases[its[0]]
            distance = {kind: float(values[its].mean()) for kind, values in far.items()}
            group = data.cases[first].tested_on
            found[model].points.append(
                CloudPoint(subject, trained_on, group, int(saw[first]), float(dice[its].mean()), distance)
            )
    return [
        cloud
        for cloud in found.values()
        if sum(not np.isnan(point.distance[OVERALL]) for point in cloud.points) >= LEAST_POINTS
    ]


def correlations(cloud: Cloud) -> list[Correlation]:
    """Of Dice with each kind of distance, the one over all kinds last."""
    found = []
    for kind in cloud.points[0].distance:
        x, y, subjects = cloud.of_kind(kind)
        rho = spearman(x, y)
        bounds = None if np.isnan(rho) else spearman_interval(x, y, subjects)
        known = None if np.isnan(rho) else rho
        found.append(Correlation(cloud.model, kind, len(np.unique(subjects)), len(x), known, bounds))
    return found


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation with mean ranks for ties; NaN where one is constant."""
    from scipy.stats import spearmanr

    constant = len(np.unique(x)) < 2 or len(np.unique(y)) < 2
    return float("nan") if constant else float(spearmanr(x, y).statistic)


def spearman_interval(x: Floats, y: Floats, subjects: NDArray[np.str_]) -> tuple[float, float] | None:
    """95 % percentile interval, subjects drawn with replacement with all their points. None with fewer than three subjects."""
    _, owner = np.unique(subjects, return_inverse=True)
    count = int(owner.max()) + 1
    if count < 3:
        return None
    weights = times_drawn(count, SEED)[:, owner]
    centre = (weights.sum(axis=1, keepdims=True) + 1) / 2
    first, second = (_weighted_ranks(values, weights) - centre for values in (x, y))
    norm = np.sqrt((weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1))
    found = (weights * first * second).sum(axis=1)[norm > 0] / norm[norm > 0]
    if not len(found):
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _weighted_ranks(values: Floats, weights_BP: Floats) -> Floats:
    """Mean ranks (B, P) of the points where each is there as often as its weight says."""
    _, first, owner = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    together = np.add.reduceat(weights_BP[:, order], first, axis=1)
    ranks = np.cumsum(together, axis=1) - together + (together + 1) / 2
    back = np.empty(len(values), dtype=np.intp)
    back[order] = owner
    found: Floats = ranks[:, back]
    return found


def feature_differences(images: Images, by: str) -> tuple[dict[str, int], list[FeatureDifference]]:
    """The groups of a column with their subjects, and in which features they differ, most first. Empty with fewer than two groups."""
    from scipy.stats import kruskal

    groups = np.array([str(row.get(by, "")) for row in images.rows], dtype=np.str_)
    names = [str(name) for name in np.unique(groups) if name]
    if len(names) < 2:
        return {}, []
    _, first = np.unique(images.subjects, return_index=True)
    owners = groups[first]
    found = []
    for feature, values in zip(images.features, images.values.T, strict=True):
        _, means = by_subject(values, images.subjects)
        parts = [means[(owners == name) & ~np.isnan(means)] for name in names]
        if all(len(part) for part in parts) and np.ptp(np.concatenate(parts)) > 0:
            medians = [float(np.median(part)) for part in parts]
            p = float(kruskal(*parts).pvalue)
            found.append(FeatureDifference(feature, medians, _between(parts), p))
    adjusted = holm([one.p_holm for one in found])
    found = [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]
    counts = {name: int((owners == name).sum()) for name in names}
    return counts, sorted(found, key=lambda one: -one.between)


def _between(groups: Sequence[Floats]) -> float:
    """η²: sum of squares between groups over that of all."""
    everyone = np.concatenate(groups)
    between = sum(len(group) * (group.mean() - everyone.mean()) ** 2 for group in groups)
    return float(between / np.square(everyone - everyone.mean()).sum())
