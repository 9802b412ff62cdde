"""Scales, axes and elements of charts as inline SVG, in the colours of the page (CSS classes): sharp in light, dark and print.

All text is escaped.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

TOP = 26
BOTTOM = 34
COLOURS = 6
LEAST_SPAN = 1e-6


@dataclass(frozen=True)
class Scale:
    """Maps values onto pixels, with ticks at round numbers. `warp`: what is drawn evenly, as the logarithm."""

    ticks: Sequence[float]
    start: float
    end: float
    warp: Callable[[float], float] = float

    @property
    def high(self) -> float:
        """The last tick."""
        return self.ticks[-1]

    def __call__(self, value: float) -> float:
        """The pixel of a value, to a tenth; outside values go to the border."""
        low, high = self.warp(self.ticks[0]), self.warp(self.high)
        share = (self.warp(min(max(value, self.ticks[0]), self.high)) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)


def scale(
    low: float, high: float, start: float, end: float, *, wanted: int = 5, whole: bool = False
) -> Scale:
    """A scale over at least [low, high], from tick to tick. whole: ticks are whole numbers, as of frames and epochs."""
    if high - low <= LEAST_SPAN * max(abs(low), abs(high), 1):
        half = 0.5 * max(abs(low), 1)
        low, high = low - half, high + half
    raw = max((high - low) / wanted, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if whole and power < 10 else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale([round(index * step, 10) for index in range(first, last + 1)], start, end)


def logarithmic_scale(low: float, high: float, start: float, end: float) -> Scale:
    """A scale with ticks at 1, 2, 5, 10, …: by the logarithm of the value, or of 1 + value where it begins at 0."""
    powers = range(6) if low <= 0 else range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    if low <= 0:
        above = [index for index, step in enumerate(steps) if step >= high] or [len(steps) - 1]
        return Scale([0.0, *steps[: above[0] + 1]], start, end, math.log1p)
    first = max(index for index, step in enumerate(steps) if step < low)
    last = min(index for index, step in enumerate(steps) if step > high)
    return Scale(steps[first : last + 1], start, end, math.log10)


def number_text(value: float) -> str:
    """A number at an axis."""
    return f"{value:g}".replace("-", "−")


def element(name: str, kind: str, content: object = "", **attributes: object) -> Markup:
    """An SVG element of a CSS class with attributes; `_` in their names stands for `-`."""
    shown = {"class": kind, **attributes}.items()
    words = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in shown if value != "")
    return Markup(f"<{name}{words}>{escape(content)}</{name}>")


def text(kind: str, x: float, y: float, content: object) -> Markup:
    """A line of text."""
    return element("text", kind, content, x=x, y=y)


def path(kind: str, d: str) -> Markup:
    """A path."""
    return element("path", kind, d=d)


def polyline(kind: str, x: Scale, y: Scale, points: Iterable[tuple[float, float]]) -> Markup:
    """A line through the points that are finite."""
    words = [f"{x(a)},{y(b)}" for a, b in points if math.isfinite(b)]
    return element("polyline", kind, points=" ".join(words))


def circle(x: float, y: float, radius: float, title: str, kind: str = "", **attributes: object) -> Markup:
    """A point with a title on hovering."""
    return element("circle", kind, element("title", "", title), cx=x, cy=y, r=radius, **attributes)


def coloured(colour: int, parts: Sequence[Markup]) -> Markup:
    """A group in one of the page's colours."""
    return element("g", f"c{colour % COLOURS}", Markup("").join(parts))


def row_name(name: str, x: float, y: float, longest: int) -> Markup:
    """The name of a row, ending at x, shortened."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return text("name", x, y + 3.5, element("title", "", name) + short)


def x_axis(x: Scale, bottom: float, unit: str, top: float = TOP) -> Markup:
    """Grid, ticks and unit below."""
    parts = [path("axis", f"M{x.start} {bottom}H{x.end}")]
    for tick in x.ticks:
        parts.append(path("grid", f"M{x(tick)} {top}V{bottom}"))
        parts.append(text("tick", x(tick), bottom + 13, number_text(tick)))
    return Markup("").join([*parts, text("unit", (x.start + x.end) / 2, bottom + 28, unit)])


def y_axis(y: Scale, left: float, right: float) -> Markup:
    """Grid and ticks at the left."""
    return Markup("").join(
        path("grid", f"M{left} {y(tick)}H{right}") + text("name", left - 6, y(tick) + 3.5, number_text(tick))
        for tick in y.ticks
    )


def chart(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """A chart from its parts, under its title."""
    content = Markup("").join([text("title", 0, 12, title), *parts])
    return element("svg", "chart", content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title)
