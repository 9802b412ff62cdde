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

from utseg.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL_COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
"""Of label value 1, 2, …: distinguishable with colour-blind eyes (Okabe and Ito, 2008). Further values begin again."""
SHADE = 0.28
BAR_MM = 50.0
MARGIN_MM = 45.0
INCHES = 3.6
GREY_PERCENTILES = (1.0, 99.0)


def label_colour(value: int) -> str:
    """The colour of a label value ≥ 1, the same in every picture."""
    return LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)]


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

    window = _window((reference_YX > 0) | (prediction_YX > 0), spacing_yx_mm)
    image, reference, prediction = image_YX[window], reference_YX[window], prediction_YX[window]
    height_mm, width_mm = (size * step for size, step in zip(image.shape, spacing_yx_mm, strict=True))
    figure = Figure(figsize=(3 * INCHES, INCHES * height_mm / width_mm + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    shown = {name: value for name, value in labels.items() if value > 0}
    scores = "prediction · Dice of the volume: " + "  ".join(
        f"{name} {_score(dice.get(name))}" for name in shown
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


def _window(labelled_YX: NDArray[np.bool_], spacing_yx_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A square in mm around what is labelled, cut to the image."""
    if not labelled_YX.any():
        return slice(None), slice(None)
    places = np.argwhere(labelled_YX)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    steps = np.array(spacing_yx_mm)
    half = ((high - low) * steps).max() / 2 + MARGIN_MM
    middle = (low + high) / 2
    first = np.maximum(np.floor(middle - half / steps), 0).astype(int)
    last = np.ceil(middle + half / steps).astype(int)
    return slice(first[0], last[0]), slice(first[1], last[1])


def _draw_label(
    axes: "Axes",
    label_YX: NDArray[np.uint8],
    labels: Mapping[str, int],
    extent: tuple[float, float, float, float],
) -> None:
    """Shades each label and draws its outlines, closed at the border too, with a legend of all of them."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch
    from skimage.measure import find_contours

    _, width_mm, height_mm, _ = extent
    step_mm = np.array([height_mm, width_mm]) / label_YX.shape
    for value in labels.values():
        mask = label_YX == value
        if not mask.any():
            continue
        shade = np.zeros((*label_YX.shape, 4))
        shade[mask] = (*to_rgb(label_colour(value)), SHADE)
        axes.imshow(shade, extent=extent, interpolation="nearest")
        for outline_N2 in find_contours(np.pad(mask, 1).astype(float), 0.5):
            y, x = (
                (outline_N2 - 0.5) * step_mm
            ).T  # one pixel of padding less, half a pixel from corner to centre
            axes.plot(x, y, color=label_colour(value), linewidth=1.1)
    handles: list[Any] = [Patch(color=label_colour(value), label=name) for name, value in labels.items()]
    axes.legend(handles=handles, loc="lower right", fontsize=7, framealpha=0.6)


def _draw_bar(axes: "Axes", width_mm: float, height_mm: float) -> None:
    length = BAR_MM if width_mm > 1.5 * BAR_MM else 10.0
    x, y = 0.05 * width_mm, 0.95 * height_mm
    axes.plot([x, x + length], [y, y], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(
        x + length / 2, y - 0.02 * height_mm, f"{length:.0f} mm", color="white", fontsize=8, ha="center"
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
