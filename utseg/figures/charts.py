"""Charts as inline SVG: distributions, Bland–Altman plots, curves, points with intervals, and rows of differences.

Which numbers are drawn is for others to choose. Boxes are quartiles with whiskers to the last value within 1.5 times their distance
(Tukey 1977).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from utseg.figures import axes as svg

LEFT = 44
WIDTH = 360
NAMES = 92
COUNTS = 34
ROW = 15
POINTS_SHOWN = 160
LONGEST_NAME = 15
BEYOND = "missed or extra"
POINTS_WIDTH, POINTS_HEIGHT, POINTS_TOP = 380, 250, svg.TOP + 10
NAME_HEIGHT = 11
LETTER = 5.2
FOREST_ROW = 20
FOREST_NAMES = 178
LONGEST_FOREST_NAME = 32


@dataclass(frozen=True)
class Dots:
    """One row of a distribution: a name (empty: belongs to the row above), the colour's number, values, and for each its case.

    An infinite value is one beyond all others: it is drawn at the end of the axis.
    """

    name: str
    colour: int
    values: NDArray[np.float64]
    cases: Sequence[str]
    undefined: int = 0


@dataclass(frozen=True)
class Curve:
    """A line of a chart of curves: its name in the legend, colour, whether dashed, and points."""

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Point:
    """A value with its interval. `name` stands beside it, `title` is shown on hovering; `hollow`: drawn as a ring."""

    x: float
    y: float
    colour: int
    title: str
    name: str = ""
    interval: Sequence[float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class ForestRow:
    """A difference with its interval; None where it is the reference itself. `note` stands at the right."""

    name: str
    difference: float | None
    interval: Sequence[float] | None
    note: str = ""
    significant: bool = False


def distribution(
    title: str, unit: str, rows: Sequence[Dots], limits: tuple[float, float], *, logarithmic: bool = False
) -> Markup:
    """Rows of points with a box each, values along x, n at the right."""
    height = svg.TOP + svg.BOTTOM + sum(ROW + (5 if row.name else 0) for row in rows)
    x = (svg.logarithmic_scale if logarithmic else svg.scale)(*limits, NAMES, WIDTH - COUNTS)
    parts = [svg.x_axis(x, height - svg.BOTTOM, unit)]
    y = svg.TOP - 2.0
    for row in rows:
        if row.name:
            y += 5
            parts.append(svg.row_name(row.name, NAMES - 8, y + ROW / 2, LONGEST_NAME))
        parts += _dots(row, x, y + ROW / 2)
        y += ROW
    return svg.chart(title, WIDTH, height, parts)


def _dots(row: Dots, x: svg.Scale, y: float) -> list[Markup]:
    count = len(row.values)
    note = svg.text("count", x.end + 6, y + 3.5, f"{count}" + (f"+{row.undefined}∅" if row.undefined else ""))
    if not count:
        return [note]
    values = np.minimum(row.values, x.high)
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    within = values[(values >= q1 - reach) & (values <= q3 + reach)]
    low, high = float(within.min()), float(within.max())
    parts = []
    if count >= 4:
        left, right = x(q1), x(q3)
        box = svg.element("rect", "box", x=left, y=y - 4.5, width=round(right - left, 1), height=9, rx=1)
        parts = [svg.path("whisker", f"M{x(low)} {y}H{left}M{right} {y}H{x(high)}"), box]
    for index, (value, case) in enumerate(zip(row.values.tolist(), row.cases, strict=True)):
        if count <= POINTS_SHOWN or not low <= values[index] <= high:
            at = round(y + ((index * 7919) % 11 - 5) * 0.62, 1)
            shown = f"{value:.4g}" if math.isfinite(value) else BEYOND
            parts.append(svg.circle(x(value), at, 1.8, f"{case}: {shown}", data_case=case))
    return [note, svg.coloured(row.colour, [*parts, svg.path("median", f"M{x(median)} {y - 5.5}v11")])]


def agreement(
    title: str,
    unit: str,
    reference: NDArray[np.float64],
    prediction: NDArray[np.float64],
    names: Sequence[str],
    found: dict[str, Any],
    colour: int = 0,
) -> Markup:
    """A Bland–Altman plot: difference (prediction − reference) over mean, with bias and limits of agreement from `found`."""
    height, right = 230, WIDTH - 62
    mean, difference = (prediction + reference) / 2, prediction - reference
    lines = [found["bias"], *(found["limits"] or ())]
    spread = float(np.abs([*difference, *lines, 1e-6]).max())
    x = svg.scale(float(mean.min()), float(mean.max()), LEFT, right, wanted=4)
    y = svg.scale(-spread, spread, height - svg.BOTTOM, svg.TOP, wanted=4)
    parts = [svg.x_axis(x, height - svg.BOTTOM, f"mean of both, {unit}"), svg.y_axis(y, LEFT, right)]
    for value, kind in zip(lines, ("bias", "limit", "limit"), strict=False):
        parts.append(svg.path(kind, f"M{LEFT} {y(value)}H{right}"))
        parts.append(svg.text("side", right + 5, y(value) + 3.5, _signed(value)))
    dots = [
        svg.circle(x(m), y(d), 2.2, f"{name}: {_signed(d)} {unit}", data_subject=name)
        for name, m, d in zip(names, mean.tolist(), difference.tolist(), strict=True)
    ]
    return svg.chart(title, WIDTH, height, [*parts, svg.coloured(colour, dots)])


def curves(
    title: str,
    unit: str,
    lines: Sequence[Curve],
    limits: tuple[float, float],
    *,
    marks: Sequence[tuple[float, str]] = (),
    frames: Sequence[float] = (),
) -> Markup:
    """Lines over epochs, or over the frames of a cine, with a legend below in two columns. A line of one point is that point.

    marks: names at values of x. frames: x of each frame; it makes every value a point that knows its frame, and adds a cursor for a script.
    """
    width, bottom = 460, 250 - svg.BOTTOM
    right = width - 12
    last = max((max(line.x) for line in lines if len(line.x)), default=1.0)
    x, y = svg.scale(0, last, LEFT, right, whole=True), svg.scale(*limits, bottom, svg.TOP)
    parts = [svg.x_axis(x, bottom, unit), svg.y_axis(y, LEFT, right)]
    for at, name in marks:
        parts.append(svg.path("mark", f"M{x(at)} {svg.TOP}V{bottom}"))
        parts.append(svg.text("mark-name", x(at), svg.TOP - 5, name))
    if frames:
        parts.append(svg.path("cursor", f"M{x(frames[0])} {svg.TOP}V{bottom}"))
    for number, line in enumerate(lines):
        kind = "curve dashed" if line.dashed else "curve"
        at_x, at_y = LEFT + (number % 2) * (width - LEFT) / 2, bottom + svg.BOTTOM + 8 + 16 * (number // 2)
        finite = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b)]
        drawn = [
            svg.circle(x(finite[0][0]), y(finite[0][1]), 3.2, f"{line.name}: {finite[0][1]:.4g}")
            if len(finite) == 1
            else svg.polyline(kind, x, y, finite)
        ]
        drawn.append(svg.path(kind, f"M{at_x} {at_y - 3.5}h18"))
        drawn += _frame_points(line, x, y) if frames else []
        parts.append(svg.coloured(line.colour, drawn))
        parts.append(svg.text("key", at_x + 24, at_y, line.name))
    return svg.chart(title, width, 250 + 16 * math.ceil(len(lines) / 2), parts)


def _frame_points(line: Curve, x: svg.Scale, y: svg.Scale) -> list[Markup]:
    """A point for each value of a cine's curve."""
    return [
        svg.circle(x(at), y(value), 2.4, f"frame {frame}: {line.name} {value:.1f}", data_frame=frame)
        for frame, (at, value) in enumerate(zip(line.x, line.y, strict=True))
        if math.isfinite(value)
    ]


def points_chart(
    title: str,
    units: tuple[str, str],
    points: Sequence[Point],
    *,
    lines: Sequence[Sequence[Point]] = (),
    logarithmic: bool = False,
    limits: Sequence[float] = (),
    radius: float = 3.2,
) -> Markup:
    """Points over x; `lines` join some of them. `units`: of x, which may be logarithmic, and y; `limits`: y values that have to fit in."""
    width, height = POINTS_WIDTH, POINTS_HEIGHT
    values = [point.x for point in points]
    spread = svg.logarithmic_scale if logarithmic and min(values) > 0 else svg.scale
    x = spread(min(values), max(values), LEFT, width - 14)
    bounds = [*limits, *(value for point in points for value in (point.y, *(point.interval or ())))]
    y = svg.scale(min(bounds), max(bounds), height - svg.BOTTOM, POINTS_TOP)
    parts = [svg.x_axis(x, height - svg.BOTTOM, units[0], POINTS_TOP), svg.y_axis(y, LEFT, width - 14)]
    parts.append(svg.text("side", 0, svg.TOP + 2, units[1]))
    for line in lines:
        joined = svg.polyline("curve", x, y, [(point.x, point.y) for point in line])
        parts.append(svg.coloured(line[0].colour, [joined]))
    for point in points:
        drawn = [svg.circle(x(point.x), y(point.y), radius, point.title, "ring" if point.hollow else "")]
        if point.interval:
            low, high = map(y, point.interval)
            drawn.insert(0, svg.path("whisker", f"M{x(point.x)} {low}V{high}"))
        parts.append(svg.coloured(point.colour, drawn))
    named = sorted((y(point.y), x(point.x), point.name) for point in points if point.name)
    return svg.chart(title, width, height, [*parts, *_names(named)])


def _names(placed: Sequence[tuple[float, float, str]]) -> list[Markup]:
    """Names beside their points (y, x), at the left where the right has no room, moved apart where they would overlap."""
    parts: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for at_y, at_x, name in placed:
        width = LETTER * len(name)
        at_left = at_x + 7 + width > POINTS_WIDTH
        start = max(at_x - 7 - width, 0) if at_left else at_x + 7
        y = at_y - 5
        beside = [other for other, first, end in taken if start < end and first < start + width]
        while any(abs(y - other) < NAME_HEIGHT for other in beside):
            y += 2
        taken.append((y, start, start + width))
        x = round(start + width if at_left else start, 1)
        parts.append(svg.text("label end" if at_left else "label", x, round(y + 3.5, 1), name))
    return parts


def forest(title: str, unit: str, rows: Sequence[ForestRow]) -> Markup:
    """Rows of differences around 0, with their intervals; the reference is the row without one."""
    bounds = [value for row in rows for value in (row.difference or 0.0, *(row.interval or ()))]
    width, right = 460, 460 - 92
    height = svg.TOP + svg.BOTTOM + FOREST_ROW * len(rows)
    x = svg.scale(min(0.0, *bounds), max(0.0, *bounds), FOREST_NAMES, right, wanted=4)
    parts = [
        svg.x_axis(x, height - svg.BOTTOM, unit),
        svg.path("bias", f"M{x(0.0)} {svg.TOP}V{height - svg.BOTTOM}"),
    ]
    for number, row in enumerate(rows):
        y = svg.TOP + FOREST_ROW * (number + 0.5)
        parts.append(svg.row_name(row.name, FOREST_NAMES - 8, y, LONGEST_FOREST_NAME))
        parts.append(svg.text("count", right + 8, y + 3.5, row.note))
        if row.difference is None:
            parts.append(svg.path("bias", f"M{x(0.0)} {y - 5}v10"))
            continue
        low, high = row.interval or (row.difference, row.difference)
        kind, said = "" if row.significant else "ring", f"{row.name}: {row.difference:+.4f}"
        dot = svg.circle(x(row.difference), y, 3.4, said, kind)
        parts.append(svg.coloured(0, [svg.path("whisker", f"M{x(low)} {y}H{x(high)}"), dot]))
    return svg.chart(title, width, height, parts)


def _signed(value: float) -> str:
    shown = f"{value:+.1f}" if abs(value) >= 1 else f"{value:+.2f}"
    return "0" if float(shown) == 0 else shown.replace("-", "−")
