"""A picture of one slice: image, reference and prediction side by side, labels in fixed colours, with a scale bar in mm.

Drawn by matplotlib without a display, imported when the first picture is made. Which slice and which case is for others to choose;
`largest_slice` helps.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.tables import number
from utseg.figures.outlines import (
    GREY_PERCENTILES,
    bar_length_mm,
    label_colour,
    label_contours,
    window_around,
)
from utseg.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["label_colour", "largest_slice", "overlay_picture"]

SHADE = 0.28
INCHES = 3.6


def largest_slice(label_ZYX: NDArray[np.uint8]) -> int:
    """The slice with most labelled pixels; the middle one of a volume without labels."""
    areas = np.count_nonzero(label_ZYX, axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(label_ZYX) // 2


def overlay_picture(
    image_YX: NDArray[np.float32],
    reference_YX: NDArray[np.uint8],
    prediction_YX: NDArray[np.uint8],
    spacing_yx_mm: tuple[float, float],
    labels: Mapping[str, int],
    dice: Mapping[str, float | None],
    title: str,
    path: Path,
) -> None:
    """Writes a PNG with three panels. `dice`, that of the volume, is shown per label name above the prediction.

    The panels show the labelled part of the slice with some margin, the whole slice where nothing is labelled. Title and Dice are in the
    file's metadata, too.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    window = window_around((reference_YX > 0) | (prediction_YX > 0), spacing_yx_mm)
    image, reference, prediction = image_YX[window], reference_YX[window], prediction_YX[window]
    height_mm, width_mm = (size * step for size, step in zip(image.shape, spacing_yx_mm, strict=True))
    figure = Figure(figsize=(3 * INCHES, INCHES * height_mm / width_mm + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    shown = {name: value for name, value in labels.items() if value > 0}
    scores = "prediction · Dice of the volume: " + "  ".join(
        f"{name} {number(dice.get(name), 3)}" for name in shown
    )
    low, high = np.percentile(image, GREY_PERCENTILES)
    extent = (0.0, width_mm, height_mm, 0.0)
    panels = (("image", None), ("reference", reference), (scores, prediction))
    for axes, (caption, label) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent)
        axes.set_title(caption, fontsize=9)
        axes.set_axis_off()
        if label is None:
            _draw_bar(axes, width_mm, height_mm)
        else:
            _draw_label(axes, label, shown, extent)
    buffer = io.BytesIO()
    metadata = {"Title": f"{title}; {scores}", "Software": None}
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata=metadata)
    write_bytes(path, buffer.getvalue())


def _draw_label(
    axes: "Axes",
    label_YX: NDArray[np.uint8],
    labels: Mapping[str, int],
    extent: tuple[float, float, float, float],
) -> None:
    """Shades each label and draws its outlines, closed at the border too, with a legend of all of them."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    _, width_mm, height_mm, _ = extent
    step_mm = np.array([height_mm, width_mm]) / label_YX.shape
    for value, outlines in label_contours(label_YX, labels):
        shade = np.zeros((*label_YX.shape, 4))
        shade[label_YX == value] = (*to_rgb(label_colour(value)), SHADE)
        axes.imshow(shade, extent=extent, interpolation="nearest")
        for outline_N2 in outlines:
            y, x = (outline_N2 * step_mm).T
            axes.plot(x, y, color=label_colour(value), linewidth=1.1)
    handles: list[Any] = [Patch(color=label_colour(value), label=name) for name, value in labels.items()]
    axes.legend(handles=handles, loc="lower right", fontsize=7, framealpha=0.6)


def _draw_bar(axes: "Axes", width_mm: float, height_mm: float) -> None:
    length = bar_length_mm(width_mm)
    x, y = 0.05 * width_mm, 0.95 * height_mm
    axes.plot([x, x + length], [y, y], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(
        x + length / 2, y - 0.02 * height_mm, f"{length:.0f} mm", color="white", fontsize=8, ha="center"
    )
