"""Dice over the distance from the training images, and how images of groups differ: tables, charts, a sentence."""

import math
from collections.abc import Mapping, Sequence

from utseg.evaluate.compare import ALPHA
from utseg.evaluate.tables import NOTHING, Table, p_text, signed_number, with_interval
from utseg.figures.charts import Point, points_chart
from utseg.report.page import Charts
from utseg.report.scores.comparison_tables import MARK
from utseg.report.study.words import MOST_CLAUSES, plain, plural
from utseg.study.findings.images import OVERALL, Cloud, Correlation, FeatureDifference

CHARTS_SHOWN = 6


def rho_text(one: Correlation) -> str:
    """Rho with its interval."""
    text = NOTHING if one.rho is None else signed_number(one.rho, 2)
    return with_interval(text, one.interval95, 2, " to ", signed_number)


def correlation_table(found: Sequence[Correlation]) -> Table:
    """Spearman's rho of Dice with each kind of distance, for each model."""
    note = (
        "A point is a subject under one training set. Distance: root mean square over the kind's features of (value − mean of the training "
        "cases) / s, with s² = (variance of the training cases + variance of all cases) / 2; over all kinds: root mean square of the four. "
        "Rho: Spearman's, bootstrap 95 % interval over subjects. Exploratory: intervals are not corrected for their number, and vendors "
        "differ in more than is measured here."
    )
    rows = [[one.model, one.kind, str(one.subjects), str(one.points), rho_text(one)] for one in found]
    columns = ["model", "distance in", "subjects", "points", "rho"]
    return Table("Dice and distance from the training images", columns, rows, note)


def correlation_sentence(found: Sequence[Correlation]) -> list[str]:
    """Whether Dice falls with distance: a clause for each model, of many only the lowest and the highest."""
    overall = [one for one in found if one.kind == OVERALL and one.rho is not None]
    clauses = [f"{one.model} {rho_text(one)}" for one in sorted(overall, key=lambda one: one.rho or 0.0)]
    if not clauses:
        return []
    shown = "; ".join(clauses) if len(clauses) <= MOST_CLAUSES else f"from {clauses[0]} to {clauses[-1]}"
    return [f"Spearman's rho of Dice with the distance from the training images: {shown}."]


def cloud_charts(clouds: Sequence[Cloud], tested_on: Sequence[str]) -> Charts:
    """A scatter for each model: Dice over distance, a colour for each group, rings where it was seen in training."""
    charts = []
    limits = [point.dice for cloud in clouds for point in cloud.points]
    for cloud in clouds[:CHARTS_SHOWN]:
        points = []
        for one in cloud.points:
            subject, at = one.subject.partition("/")[2], one.distance[OVERALL]
            title = f"{subject} ({plain(one.tested_on)}), trained on {plain(one.trained_on)}: {one.dice:.3f}"
            if not math.isnan(at):
                colour = tested_on.index(one.tested_on)
                points.append(Point(at, one.dice, colour, title, hollow=one.saw == 1))
        units = "distance from the training images", "mean Dice"
        charts.append(points_chart(cloud.model, units, points, limits=limits, radius=2.2))
    return Charts("Dice over distance; rings: the run saw this group in training", charts)


def feature_table(by: str, groups: Mapping[str, int], found: Sequence[FeatureDifference]) -> Table:
    """In which features the groups of a column differ most."""
    rows = []
    for one in found:
        medians = [f"{value:.3g}" for value in one.medians]
        p = p_text(one.p_holm) + (MARK if one.p_holm < ALPHA else "")
        rows.append([one.feature.replace("_", " "), *medians, f"{one.between:.2f}", p])
    note = (
        f"Medians over subjects (n). Between: share of the variance over subjects that lies between {plural(by)} (η²). p: Kruskal–Wallis, "
        "after Holm over all features; † below 0.05. Intensity, contrast and texture are in units of each image's own standard deviation, "
        "raw ones as in the file."
    )
    heads = [f"{name} (n {count})" for name, count in groups.items()]
    columns = ["feature", *heads, "between", "p (Holm)"]
    return Table(f"How images of {plural(by)} differ", columns, rows, note)
