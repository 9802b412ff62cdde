"""Charts of a study: points with intervals and names, lines of points, clouds, and rows of differences. Inline SVG in the page's colours.

Which numbers are drawn is for others to choose. All text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from utseg.figures.charts import (
    BOTTOM,
    COLOURS,
    TOP,
    Scale,
    scale,
    svg,
    tick_text,
    x_axis,
    y_ticks,
)

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT = 44, 14
NAME_HEIGHT = 11
LETTER = 5.2
ROW = 20
FOREST_LEFT = 178
LONGEST_NAME = 32
HOLLOW_NOTE = "hollow: seen in training"


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
    x, to_x = _x_scale([point.x for point in points], logarithmic)
    bounds = [value for point in points for value in (point.y, *(point.interval or ()))]
    bounds += limits
    y = scale(min(bounds), max(bounds), HEIGHT - BOTTOM, TOP + 10)
    parts = [x_axis(x, TOP + 10, HEIGHT - BOTTOM, units[0], to_x.text), y_ticks(y, LEFT, WIDTH - RIGHT)]
    parts.append(Markup('<text class="side" x="0" y="{}">{}</text>').format(TOP + 2, units[1]))
    for line in lines:
        joined = " ".join(f"{to_x(point.x)},{y(point.y)}" for point in line)
        parts.append(
            Markup('<g class="c{}"><polyline class="curve" points="{}"/></g>').format(
                line[0].colour % COLOURS, joined
            )
        )
    parts += [_point(point, to_x(point.x), y, radius) for point in points]
    parts += _names([(point, to_x(point.x), y(point.y)) for point in points if point.name])
    return svg(title, WIDTH, HEIGHT, parts)


@dataclass(frozen=True)
class _ToX:
    """From a value to a pixel along x."""

    x: Scale
    logarithmic: bool

    def __call__(self, value: float) -> float:
        return self.x(math.log10(value) if self.logarithmic else value)

    def text(self, tick: float) -> str:
        """A tick's text, in the value's own units."""
        return tick_text(round(10**tick, 6)) if self.logarithmic else tick_text(tick)


def _x_scale(values: Sequence[float], logarithmic: bool) -> tuple[Scale, _ToX]:
    if not logarithmic or min(values) <= 0:
        x = scale(min(values), max(values), LEFT, WIDTH - RIGHT)
        return x, _ToX(x, False)
    low, high = min(values), max(values)
    steps = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for factor in (1, 2, 5)
    ]
    below = [step for step in steps if step <= low * 0.95][-1]
    above = next(step for step in steps if step >= high * 1.05)
    ticks = [math.log10(step) for step in steps if below <= step <= above]
    x = Scale(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT, ticks)
    return x, _ToX(x, True)


def _point(point: Point, at_x: float, y: Scale, radius: float) -> Markup:
    bar = Markup("")
    if point.interval:
        low, high = (y(bound) for bound in point.interval)
        bar = Markup('<path class="whisker" d="M{} {}V{}"/>').format(at_x, low, high)
    return Markup('<g class="c{}">{}<circle{} cx="{}" cy="{}" r="{}"><title>{}</title></circle></g>').format(
        point.colour % COLOURS,
        bar,
        Markup(' class="ring"') if point.hollow else "",
        at_x,
        y(point.y),
        radius,
        point.title,
    )


def _names(placed: Sequence[tuple[Point, float, float]]) -> list[Markup]:
    """Names beside their points, at the left where the right has no room, moved apart where they would overlap."""
    parts: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for point, at_x, at_y in sorted(placed, key=lambda own: own[2]):
        width = LETTER * len(point.name)
        at_left = at_x + 7 + width > WIDTH
        start = max(at_x - 7 - width, 0) if at_left else at_x + 7
        y = at_y - 5
        while any(
            abs(y - other) < NAME_HEIGHT and start < end and first < start + width
            for other, first, end in taken
        ):
            y += 2
        taken.append((y, start, start + width))
        text = Markup('<text class="label{}" x="{}" y="{}">{}</text>')
        parts.append(
            text.format(
                " end" if at_left else "",
                round(start + width if at_left else start, 1),
                round(y + 3.5, 1),
                point.name,
            )
        )
    return parts


@dataclass(frozen=True)
class ForestRow:
    """A difference with its interval; None where it is the reference itself. `note` stands at the right."""

    name: str
    difference: float | None
    interval: Sequence[float] | None
    note: str = ""
    significant: bool = False


def forest(title: str, unit: str, rows: Sequence[ForestRow]) -> Markup:
    """Rows of differences around 0, with their intervals; the reference is the row without one."""
    bounds = [value for row in rows for value in (row.difference or 0.0, *(row.interval or ()))]
    width, right = 460, 92
    height = TOP + BOTTOM + ROW * len(rows)
    x = scale(min(0.0, *bounds), max(0.0, *bounds), FOREST_LEFT, width - right, wanted=4)
    parts = [x_axis(x, TOP, height - BOTTOM, unit)]
    parts.append(Markup('<path class="bias" d="M{} {}V{}"/>').format(x(0.0), TOP, height - BOTTOM))
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        short = row.name if len(row.name) <= LONGEST_NAME else row.name[: LONGEST_NAME - 1] + "…"
        drawn = Markup('<text class="name" x="{}" y="{}"><title>{}</title>{}</text>').format(
            FOREST_LEFT - 8, y + 3.5, row.name, short
        )
        drawn += Markup('<text class="count" x="{}" y="{}">{}</text>').format(
            width - right + 8, y + 3.5, row.note
        )
        if row.difference is None:
            drawn += Markup('<path class="bias" d="M{} {}v10"/>').format(x(0.0), y - 5)
        else:
            low, high = row.interval or (row.difference, row.difference)
            drawn += Markup('<path class="whisker" d="M{} {}H{}"/>').format(x(low), y, x(high))
            ring = "" if row.significant else Markup(' class="ring"')
            drawn += Markup('<circle{} cx="{}" cy="{}" r="3.4"><title>{}: {:+.4f}</title></circle>').format(
                ring, x(row.difference), y, row.name, row.difference
            )
        parts.append(Markup('<g class="c0">{}</g>').format(drawn))
    return svg(title, width, height, parts)
