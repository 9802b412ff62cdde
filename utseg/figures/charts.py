"""Charts as inline SVG, in the colours of the page (CSS classes), so that they are sharp in light, dark and print.

Rows of points with boxes for distributions, Bland–Altman plots, and curves. All text is escaped. Which numbers are drawn is for others to
choose; boxes are quartiles with whiskers to the last value within 1.5 times their distance (Tukey 1977).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

WIDTH = 360
LEFT = 92
RIGHT = 34
TOP = 26
BOTTOM = 34
ROW = 15
COLOURS = 6
POINTS_SHOWN = 160
LONGEST_NAME = 15
LEAST_SPAN = 1e-6
BEYOND = "missed or extra"


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
class Scale:
    """Maps values onto pixels, with ticks at round numbers; `logarithmic`: by log(1 + value), for what is at least 0."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float] = field(default_factory=list)
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, to a tenth; outside values go to the border."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        if self.logarithmic:
            share = math.log1p(inside) / math.log1p(self.high)
        return round(self.start + share * (self.end - self.start), 1)


def scale(low: float, high: float, start: float, end: float, *, wanted: int = 5) -> Scale:
    """A scale over at least [low, high], from tick to tick."""
    if high - low <= LEAST_SPAN * max(abs(low), abs(high), 1):
        half = 0.5 * max(abs(low), 1)
        low, high = low - half, high + half
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(index * step, 10) for index in range(first, last + 1)]
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def logarithmic_scale(high: float, start: float, end: float) -> Scale:
    """A scale over [0, high] by log(1 + value), with ticks at 0, 1, 2, 5, 10, …"""
    ticks = [0.0]
    for power in range(6):
        for factor in (1, 2, 5):
            if ticks[-1] < high:
                ticks.append(float(factor * 10**power))
    return Scale(0.0, ticks[-1], start, end, ticks, logarithmic=True)


def tick_text(value: float) -> str:
    """A number at an axis."""
    return f"{value:g}".replace("-", "−")


def distribution(
    title: str, unit: str, rows: Sequence[Dots], limits: tuple[float, float], *, logarithmic: bool = False
) -> Markup:
    """Rows of points with a box each, values along x, n at the right."""
    height = TOP + BOTTOM + sum(ROW + (5 if row.name else 0) for row in rows)
    span = LEFT, WIDTH - RIGHT
    x = logarithmic_scale(limits[1], *span) if logarithmic else scale(*limits, *span)
    parts = [x_axis(x, TOP, height - BOTTOM, unit)]
    y = TOP - 2.0
    for row in rows:
        if row.name:
            y += 5
            parts.append(row_name(row.name, y + ROW / 2))
        parts.append(_row(row, x, y + ROW / 2))
        y += ROW
    return svg(title, WIDTH, height, parts)


def row_name(name: str, y: float) -> Markup:
    """The name of a row at the left, shortened."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return Markup('<text class="name" x="{}" y="{}"><title>{}</title>{}</text>').format(
        LEFT - 8, y + 3.5, name, short
    )


def _row(row: Dots, x: Scale, y: float) -> Markup:
    count = len(row.values)
    note = f"{count}" + (f"+{row.undefined}∅" if row.undefined else "")
    parts = [Markup('<text class="count" x="{}" y="{}">{}</text>').format(WIDTH - RIGHT + 6, y + 3.5, note)]
    if not count:
        return parts[0]
    values = np.minimum(row.values, x.high)
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    within = values[(values >= q1 - reach) & (values <= q3 + reach)]
    low, high = float(within.min()), float(within.max())
    outside = (values < low) | (values > high)
    shown = [index for index in range(count) if count <= POINTS_SHOWN or outside[index]]
    if count >= 4:
        box = '<path class="whisker" d="M{a} {y}H{b}M{c} {y}H{d}"/><rect class="box" x="{b}" y="{top}" width="{w}" height="9" rx="1"/>'
        left, right = x(q1), x(q3)
        parts.append(
            Markup(box).format(
                a=x(low), b=left, c=right, d=x(high), y=y, top=y - 4.5, w=round(right - left, 1)
            )
        )
    for index in shown:
        shift = ((index * 7919) % 11 - 5) * 0.62
        value = float(row.values[index])
        parts.append(
            Markup('<circle data-case="{}" cx="{}" cy="{}" r="1.8"><title>{}: {}</title></circle>').format(
                row.cases[index],
                x(value),
                round(y + shift, 1),
                row.cases[index],
                f"{value:.4g}" if math.isfinite(value) else BEYOND,
            )
        )
    parts.append(Markup('<path class="median" d="M{} {}v11"/>').format(x(median), y - 5.5))
    return Markup('<g class="c{}">{}</g>').format(row.colour % COLOURS, Markup("").join(parts))


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
    height = 230
    mean, difference = (prediction + reference) / 2, prediction - reference
    lines = [found["bias"], *(found["limits"] or ())]
    spread = float(np.abs([*difference, *lines, 1e-6]).max())
    left, right = 44, 62
    x = scale(float(mean.min()), float(mean.max()), left, WIDTH - right, wanted=4)
    y = scale(-spread, spread, height - BOTTOM, TOP, wanted=4)
    parts = [x_axis(x, TOP, height - BOTTOM, f"mean of both, {unit}"), y_ticks(y, left, WIDTH - right)]
    for value, kind in zip(lines, ("bias", "limit", "limit"), strict=False):
        line = '<path class="{}" d="M{} {}H{}"/><text class="side" x="{}" y="{}">{}</text>'
        parts.append(
            Markup(line).format(
                kind, left, y(value), WIDTH - right, WIDTH - right + 5, y(value) + 3.5, _signed(value)
            )
        )
    dots = [
        Markup('<circle data-subject="{}" cx="{}" cy="{}" r="2.2"><title>{}: {} {}</title></circle>').format(
            name, x(float(m)), y(float(d)), name, _signed(float(d)), unit
        )
        for name, m, d in zip(names, mean, difference, strict=True)
    ]
    parts.append(Markup('<g class="c{}">{}</g>').format(colour % COLOURS, Markup("").join(dots)))
    return svg(title, WIDTH, height, parts)


def curves(title: str, unit: str, lines: Sequence[Curve], limits: tuple[float, float]) -> Markup:
    """Lines over epochs, with a legend below."""
    named = [line for line in lines if line.name]
    columns = 2
    legend = 16 * math.ceil(len(named) / columns)
    width, height, left = 460, 250 + legend, 44
    last = max((max(line.x) for line in lines if len(line.x)), default=1.0)
    x = scale(0, last, left, width - 12)
    bottom = height - BOTTOM - legend
    y = scale(*limits, bottom, TOP)
    parts = [x_axis(x, TOP, bottom, unit), y_ticks(y, left, width - 12)]
    for line in lines:
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b))
        kind = "curve dashed" if line.dashed else "curve"
        parts.append(
            Markup('<g class="c{}"><polyline class="{}" points="{}"/></g>').format(
                line.colour % COLOURS, kind, points
            )
        )
    for number, line in enumerate(named):
        at_x = left + (number % columns) * (width - left) / columns
        at_y = bottom + BOTTOM + 8 + 16 * (number // columns)
        kind = "curve dashed" if line.dashed else "curve"
        parts.append(
            Markup(
                '<g class="c{}"><path class="{}" d="M{} {}h18"/></g><text class="key" x="{}" y="{}">{}</text>'
            ).format(line.colour % COLOURS, kind, at_x, at_y - 3.5, at_x + 24, at_y, line.name)
        )
    return svg(title, width, height, parts)


def svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """A chart from its parts, under its title."""
    head = '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><text class="title" x="0" y="12">{}</text>{}</svg>'
    return Markup(head).format(width, height, title, title, Markup("").join(parts))


def x_axis(
    x: Scale, top: float, bottom: float, unit: str, text: Callable[[float], str] = tick_text
) -> Markup:
    """Grid, ticks and unit below; `text`: of a tick."""
    parts = [
        Markup('<path class="grid" d="M{0} {1}V{2}"/><text class="tick" x="{0}" y="{3}">{4}</text>').format(
            x(tick), top, bottom, bottom + 13, text(tick)
        )
        for tick in x.ticks
    ]
    caption = Markup('<text class="unit" x="{}" y="{}">{}</text>').format(
        (x.start + x.end) / 2, bottom + 28, unit
    )
    line = Markup('<path class="axis" d="M{} {}H{}"/>').format(x.start, bottom, x.end)
    return Markup("").join([*parts, line, caption])


def y_ticks(y: Scale, left: float, right: float) -> Markup:
    """Grid and ticks at the left."""
    return Markup("").join(
        Markup('<path class="grid" d="M{} {}H{}"/><text class="name" x="{}" y="{}">{}</text>').format(
            left, y(tick), right, left - 6, y(tick) + 3.5, tick_text(tick)
        )
        for tick in y.ticks
    )


def _signed(value: float) -> str:
    text = f"{value:+.1f}" if abs(value) >= 1 else f"{value:+.2f}"
    return "0" if float(text) == 0 else text.replace("-", "−")
