"""How far a test scan is from what a run was trained on, and whether scores go down with it; and in what vendors' images differ.

Distance, for a kind of features (spacing, intensity, contrast, texture): the root mean square over its features f of
z_f = (x_f − m_f) / s_f, where x_f is the test case's value, m_f the mean over the cases that the run was trained on, and
s_f² = (variance over these + variance over all measured cases) / 2, so that a feature which training had in one value only (a spacing)
does not count without limit. The distance over all kinds is the root mean square of the four. Raw intensities are left out, for
networks never see them.

A point is a subject under one training set. Rank correlations are Spearman's, with intervals by drawing subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import ALPHA, holm
from utseg.evaluate.metrics import Row
from utseg.evaluate.subjects import SEED, by_subject, mean_defined, times_drawn
from utseg.evaluate.tables import NOTHING, Table, p_text, signed_number, with_interval
from utseg.report.scores.comparison_tables import MARK
from utseg.report.scores.score_charts import Charts
from utseg.report.study.charts import Point, points_chart
from utseg.report.study.gap import MOST_CLAUSES, plain, plural
from utseg.report.study.matrix import training_sets
from utseg.study.findings.data import Floats, StudyData
from utseg.study.images import KINDS, features_of, kind_of
from utseg.study.record import StudyRun

OVERALL = "all"
RAW = "raw"
LEAST_POINTS = 6
CHARTS_SHOWN = 6


@dataclass(frozen=True)
class Images:
    """The measured images: their keys (dataset, case), who each is, features, and values (images, features), NaN where there is none."""

    place: Mapping[tuple[str, str], int]
    subjects: NDArray[np.str_]
    rows: Sequence[Row]
    features: Sequence[str]
    values: Floats

    @property
    def seen_features(self) -> list[int]:
        """Places of the features that networks can see: all but raw intensities."""
        return [place for place, name in enumerate(self.features) if kind_of(name) != RAW]


@dataclass(frozen=True)
class Cloud:
    """Subjects under training sets, of one model: (points,) each. `distance`: by kind; `saw` 1, 0 or −1."""

    model: str
    subjects: NDArray[np.str_]
    dice: Floats
    distance: Mapping[str, Floats]
    tested_on: Sequence[str]
    trained_on: Sequence[str]
    saw: NDArray[np.int8]


def read_table(rows: Sequence[Row]) -> Images:
    """The rows of `images.csv` as arrays."""
    features = features_of(rows)
    values = np.array([[row[name] for name in features] for row in rows], dtype=float)
    place = {(str(row["dataset"]), str(row["case"])): number for number, row in enumerate(rows)}
    subjects = np.array([f"{row['dataset']}/{row['subject']}" for row in rows], dtype=np.str_)
    return Images(place, subjects, rows, features, values.reshape(len(rows), len(features)))


def distances(images: Images, run: StudyRun) -> dict[str, Floats]:
    """Of every image from what a run was trained on, by kind and over all (`OVERALL`). Empty where none of these was measured."""
    trained = {f"{run.dataset}/{subject}" for subject in run.subjects.training}
    own = images.values[[subject in trained for subject in images.subjects]]
    if not len(own):
        return {}
    with np.errstate(invalid="ignore"):
        scale = np.sqrt((_variance(own) + _variance(images.values)) / 2)
        z = np.where(scale > 0, (images.values - mean_defined(own, 0)) / np.where(scale > 0, scale, 1), 0.0)
    found = {}
    for kind in KINDS:
        columns = [place for place in images.seen_features if kind_of(images.features[place]) == kind]
        if columns:
            found[kind] = np.sqrt(mean_defined(np.square(z[:, columns]), 1))
    found[OVERALL] = np.sqrt(mean_defined(np.square(np.array(list(found.values()))), 0))
    return found


def _variance(values: Floats) -> Floats:
    return mean_defined(np.square(values - mean_defined(values, 0)), 0)


def clouds(data: StudyData, images: Images) -> list[Cloud]:
    """The points of each model: of each training set (seeds and folds averaged) each tested subject that was measured."""
    place = np.array([images.place.get((case.dataset, case.case), -1) for case in data.cases])
    found = []
    for model in data.models:
        parts: list[tuple[str, Floats, dict[str, Floats], NDArray[np.int8], list[int]]] = []
        for own_model, trained_on in training_sets(data):
            runs = [run for run in data.runs_of(model) if run.trained_on == trained_on]
            if own_model != model:
                continue
            averages = data.averaged([data.side(runs)])
            by_run = [distances(images, run) for run in runs]
            if not all(by_run):
                continue
            kept = [
                n
                for n, c in enumerate(averages.places)
                if place[c] >= 0 and not np.isnan(averages.values[0, n])
            ]
            cases = averages.places[kept]
            far = {kind: np.mean([one[kind][place[cases]] for one in by_run], axis=0) for kind in by_run[0]}
            saw = data.saw[[run.id in {own.id for own in runs} for run in data.runs]].max(axis=0)[cases]
            parts.append((plain(trained_on), averages.values[0, kept], far, saw, cases.tolist()))
        if parts:
            found.append(_cloud(data, model, parts))
    return [cloud for cloud in found if (~np.isnan(cloud.distance[OVERALL])).sum() >= LEAST_POINTS]


def _cloud(
    data: StudyData,
    model: str,
    parts: Sequence[tuple[str, Floats, dict[str, Floats], NDArray[np.int8], list[int]]],
) -> Cloud:
    """Cases of one subject and training set joined into a point."""
    subjects, dice, saw, tested_on, trained = [], [], [], [], []
    far: dict[str, list[float]] = {kind: [] for kind in parts[0][2]}
    for trained_on, values, distance, own_saw, cases in parts:
        owners = data.subjects[cases]
        for subject in dict.fromkeys(owners.tolist()):
            own = np.flatnonzero(owners == subject)
            subjects.append(subject)
            dice.append(float(values[own].mean()))
            saw.append(int(own_saw[own[0]]))
            tested_on.append(data.cases[cases[own[0]]].tested_on)
            trained.append(trained_on)
            for kind, all_distances in distance.items():
                far[kind].append(float(all_distances[own].mean()))
    return Cloud(
        model,
        np.array(subjects, dtype=np.str_),
        np.array(dice),
        {kind: np.array(values) for kind, values in far.items()},
        tested_on,
        trained,
        np.array(saw, dtype=np.int8),
    )


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation with mean ranks for ties; NaN where one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (x, y)]
    norm = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / norm if norm else float("nan")


def spearman_interval(x: Floats, y: Floats, subjects: NDArray[np.str_]) -> tuple[float, float] | None:
    """95 % percentile interval, subjects drawn with replacement with all their points. None with fewer than three subjects."""
    _, owner = np.unique(subjects, return_inverse=True)
    count = int(owner.max()) + 1
    if count < 3:
        return None
    weights = times_drawn(count, SEED)[:, owner]
    ranks = [_weighted_ranks(values, weights) for values in (x, y)]
    centre = (weights.sum(axis=1, keepdims=True) + 1) / 2
    first, second = (own - centre for own in ranks)
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


def correlation_table(every: Sequence[Cloud]) -> tuple[Table, dict[str, tuple[float, str]]]:
    """Spearman's rho of Dice with each kind of distance, for each model; and for each model that of all kinds, as text."""
    rows: list[list[str]] = []
    overall: dict[str, tuple[float, str]] = {}
    for cloud in every:
        for kind, distance in cloud.distance.items():
            there = ~np.isnan(distance)
            x, y, subjects = distance[there], cloud.dice[there], cloud.subjects[there]
            rho = spearman(x, y)
            bounds = None if np.isnan(rho) else spearman_interval(x, y, subjects)
            text = NOTHING if np.isnan(rho) else signed_number(rho, 2)
            text = with_interval(text, bounds, 2, " to ", signed_number)
            if kind == OVERALL and not np.isnan(rho):
                overall[cloud.model] = rho, text
            counts = str(len(np.unique(subjects))), str(len(x))
            rows.append([cloud.model, kind if kind != OVERALL else "all kinds", *counts, text])
    note = (
        "A point is a subject under one training set. Distance: root mean square over the kind's features of (value − mean of the training "
        "cases) / s, with s² = (variance of the training cases + variance of all cases) / 2; over all kinds: root mean square of the four. "
        "Rho: Spearman's, bootstrap 95 % interval over subjects. Exploratory: intervals are not corrected for their number, and vendors "
        "differ in more than is measured here."
    )
    return Table(
        "Dice and distance from the training images",
        ["model", "distance in", "subjects", "points", "rho"],
        rows,
        note,
    ), overall


def cloud_charts(every: Sequence[Cloud], tested_on: Sequence[str]) -> Charts:
    """A scatter for each model: Dice over distance, a colour for each group, rings where it was seen in training."""
    charts = []
    limits = [float(bound) for cloud in every for bound in (cloud.dice.min(), cloud.dice.max())]
    for cloud in every[:CHARTS_SHOWN]:
        points = [
            Point(
                float(x),
                float(y),
                tested_on.index(group),
                f"{subject.partition('/')[2]} ({plain(group)}), trained on {trained}: {y:.3f}",
                hollow=bool(saw == 1),
            )
            for x, y, group, subject, trained, saw in zip(
                cloud.distance[OVERALL],
                cloud.dice,
                cloud.tested_on,
                cloud.subjects,
                cloud.trained_on,
                cloud.saw,
                strict=True,
            )
            if not np.isnan(x)
        ]
        units = "distance from the training images", "mean Dice"
        charts.append(points_chart(cloud.model, units, points, limits=limits, radius=2.2))
    return Charts("Dice over distance; rings: the run saw this group in training", charts)


def difference_table(images: Images, by: str) -> Table | None:
    """In which features the groups of a column differ most: medians of each, and the share of variance that lies between them."""
    groups = np.array([str(row.get(by, "")) for row in images.rows], dtype=np.str_)
    names = [str(name) for name in np.unique(groups) if name]
    if len(names) < 2:
        return None
    _, first = np.unique(images.subjects, return_index=True)
    owners = groups[first]
    found = []
    for place, feature in enumerate(images.features):
        _, means = by_subject(images.values[:, place], images.subjects)
        own = [means[(owners == name) & ~np.isnan(means)] for name in names]
        if all(len(values) for values in own) and np.ptp(np.concatenate(own)) > 0:
            found.append((_between(own), _kruskal_p(own), feature, [float(np.median(v)) for v in own]))
    corrected = holm([p for _, p, *_ in found])
    rows = [
        [
            feature.replace("_", " "),
            *(f"{value:.3g}" for value in medians),
            f"{share:.2f}",
            p_text(p) + (MARK if p < ALPHA else ""),
        ]
        for (share, _, feature, medians), p in sorted(
            zip(found, corrected, strict=True), key=lambda own: -own[0][0]
        )
    ]
    counts = [int((owners == name).sum()) for name in names]
    heads = [f"{name} (n {count})" for name, count in zip(names, counts, strict=True)]
    note = (
        f"Medians over subjects (n). Between: share of the variance over subjects that lies between {plural(by)} (η²). p: Kruskal–Wallis, "
        "after Holm over all features; † below 0.05. Intensity, contrast and texture are in units of each image's own standard deviation, "
        "raw ones as in the file."
    )
    columns = ["feature", *heads, "between", "p (Holm)"]
    return Table(f"How images of {plural(by)} differ", columns, rows, note)


def _between(groups: Sequence[Floats]) -> float:
    """η²: sum of squares between groups over that of all."""
    every = np.concatenate(groups)
    between = sum(len(own) * (own.mean() - every.mean()) ** 2 for own in groups)
    return float(between / np.square(every - every.mean()).sum())


def _kruskal_p(groups: Sequence[Floats]) -> float:
    from scipy.stats import kruskal

    return float(kruskal(*groups).pvalue)


def look_sentences(overall: Mapping[str, tuple[float, str]]) -> list[str]:
    """Whether Dice falls with distance: a clause for each model, of many only the lowest and the highest."""
    clauses = [f"{model} {text}" for model, (_, text) in sorted(overall.items(), key=lambda own: own[1][0])]
    if not clauses:
        return []
    shown = "; ".join(clauses) if len(clauses) <= MOST_CLAUSES else f"from {clauses[0]} to {clauses[-1]}"
    return [f"Spearman's rho of Dice with the distance from the training images: {shown}."]
