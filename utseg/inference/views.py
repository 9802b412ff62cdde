"""Test-time augmentation: mirror and turn windows, map predictions back, and know which of it training allows.

A view mirrors the window, or turns it about its centre, or both. What a network says of it is brought back to the window: exactly where
it was mirrored, by linear interpolation where it was turned. A turned view sees neighbours of the window in its corners and not the
window's own ones: `coverage` says how much of each pixel it saw, and its probabilities sum to that. They are averaged elsewhere
(`windows.py`), what a view gains is measured elsewhere (`utseg.selection`).

Axes: B batch, C channels, K classes; h, w: rows (y) and columns (x) of a window, H, W: of a window with a margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from utseg.augment.spatial import pixel_matrix, sampling_grid
from utseg.planning.plan import AugmentationSettings
from utseg.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Axis = Literal["y", "x"]
Pixels = tuple[int, int]
AXES: tuple[Axis, Axis] = ("y", "x")
DIMENSIONS = {"y": 2, "x": 3}
SMALL_ROTATION_DEG = 10.0
"""Either way: hearts of one protocol lie within it, and a window loses nothing but its corners."""
MOST_ROTATION_DEG = 45.0
NEIGHBOURS = 1
"""Pixels beside a sampled position that interpolation reads."""


class TestTimeAugmentation(Settings):
    """Every mirroring along any of `mirror_axes` of the window as it is and of the window turned by each of `rotation_degrees`.

    Degrees turn as training's do, y towards x, in mm; positive and negative ones, none of them 0. Nothing given: the window as it is.
    """

    mirror_axes: tuple[Axis, ...] = ()
    rotation_degrees: tuple[float, ...] = ()

    @field_validator("mirror_axes")
    @classmethod
    def _in_one_order(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(axis for axis in AXES if axis in value)

    @field_validator("rotation_degrees")
    @classmethod
    def _rotations(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < abs(angle) <= MOST_ROTATION_DEG for angle in value):
            raise ValueError(f"expected angles up to {MOST_ROTATION_DEG:g} either way, none of them 0")
        return tuple(sorted(set(value)))

    @property
    def forwards(self) -> int:
        """How often a network looks at each window."""
        return (1 << len(self.mirror_axes)) * (1 + len(self.rotation_degrees))

    def within(self, trained: AugmentationSettings) -> "TestTimeAugmentation":
        """What is left for a network that was trained so: axes that were mirrored, rotations that were drawn."""
        most = trained.rotation_deg if trained.rotation_probability > 0 else 0.0
        return TestTimeAugmentation(
            mirror_axes=tuple(axis for axis in self.mirror_axes if axis in trained.mirror_axes),
            rotation_degrees=tuple(angle for angle in self.rotation_degrees if abs(angle) <= most),
        )

    def views(self, spacing_yx_mm: tuple[float, float]) -> "tuple[View, ...]":
        """All views of a window with pixels of that size; the window as it is comes first."""
        counts = range(len(self.mirror_axes) + 1)
        flips = [flip for count in counts for flip in combinations(self.mirror_axes, count)]
        return tuple(
            View(flip, angle, spacing_yx_mm) for angle in (0.0, *self.rotation_degrees) for flip in flips
        )

    def in_words(self) -> str:
        """For tables and messages, as in "mirrored along x, turned by −10° and 10°"."""
        parts = [f"mirrored along {' and '.join(self.mirror_axes)}"] if self.mirror_axes else []
        angles = [f"{angle:g}°".replace("-", "−") for angle in self.rotation_degrees]
        parts += [f"turned by {' and '.join(angles)}"] if angles else []
        return ", ".join(parts) or "none"


NO_AUGMENTATION = TestTimeAugmentation()
AS_MIRRORED_IN_TRAINING = TestTimeAugmentation(mirror_axes=AXES)
"""Each network sees the mirrorings that its training used (`within`), and no rotation."""


def union(parts: Sequence[TestTimeAugmentation]) -> TestTimeAugmentation:
    """All that any of them has. Of what each of several networks may do, `within` gets back its own part."""
    return TestTimeAugmentation(
        mirror_axes=tuple(axis for part in parts for axis in part.mirror_axes),
        rotation_degrees=tuple(angle for part in parts for angle in part.rotation_degrees),
    )


def allowed(trained: Sequence[AugmentationSettings]) -> tuple[TestTimeAugmentation, ...]:
    """What may be tried for networks that were trained so: mirrorings, small rotations, both; only those that any of them allows."""
    turned = (-SMALL_ROTATION_DEG, SMALL_ROTATION_DEG)
    wanted = (
        AS_MIRRORED_IN_TRAINING,
        TestTimeAugmentation(rotation_degrees=turned),
        TestTimeAugmentation(mirror_axes=AXES, rotation_degrees=turned),
    )
    found = (union([one.within(settings) for settings in trained]) for one in wanted)
    return tuple(dict.fromkeys(one for one in found if one != NO_AUGMENTATION))


@dataclass(frozen=True)
class View:
    """One way to show a window: turned, then mirrored. The default is the window as it is."""

    mirror_axes: tuple[Axis, ...] = ()
    rotation_deg: float = 0.0
    spacing_yx_mm: tuple[float, float] = (1.0, 1.0)

    def margin_yx(self, window_yx: Pixels) -> Pixels:
        """Rows and columns beside the window, on each side, that the view looks at."""
        if not self.rotation_deg:
            return 0, 0
        half_yx = (np.asarray(window_yx) - 1) / 2
        reach_yx = np.abs(pixel_matrix(self.rotation_deg, 1, self.spacing_yx_mm)) @ half_yx
        beyond_yx = np.maximum(np.ceil(reach_yx - half_yx).astype(int) + NEIGHBOURS, 0)
        return int(beyond_yx[0]), int(beyond_yx[1])

    def show(self, x_BCHW: "Tensor", window_yx: Pixels) -> "Tensor":
        """What the network sees (B, C, h, w). `x_BCHW`: the window in the middle of at least its margin."""
        import torch

        if self.rotation_deg:
            shown = _sampled(x_BCHW, self.rotation_deg, self.spacing_yx_mm, window_yx)
        else:
            top, left = (
                (size - window) // 2 for size, window in zip(x_BCHW.shape[2:], window_yx, strict=True)
            )
            shown = x_BCHW[:, :, top : top + window_yx[0], left : left + window_yx[1]]
        return self._flip(shown).contiguous(memory_format=torch.channels_last)

    def restore(self, p_BKhw: "Tensor") -> "Tensor":
        """What was said of the shown window, brought back to the window itself; 0 where the view did not see it."""
        p_BKhw = self._flip(p_BKhw)
        if not self.rotation_deg:
            return p_BKhw
        height, width = p_BKhw.shape[2:]
        return _sampled(p_BKhw, -self.rotation_deg, self.spacing_yx_mm, (height, width))

    def _flip(self, x: "Tensor") -> "Tensor":
        return x.flip([DIMENSIONS[axis] for axis in self.mirror_axes]) if self.mirror_axes else x


def _sampled(
    x_BCHW: "Tensor", angle_deg: float, spacing_yx_mm: tuple[float, float], window_yx: Pixels
) -> "Tensor":
    """A window (B, C, h, w) turned about the centre that it shares with `x_BCHW`, 0 beside that."""
    import torch
    from torch.nn.functional import grid_sample

    height, width = x_BCHW.shape[2:]
    grid_hw2 = torch.from_numpy(_grid(angle_deg, spacing_yx_mm, (height, width), window_yx)).to(x_BCHW.device)
    grid_Bhw2 = grid_hw2.expand(len(x_BCHW), *grid_hw2.shape)
    return grid_sample(x_BCHW, grid_Bhw2, mode="bilinear", padding_mode="zeros", align_corners=False)


@lru_cache(maxsize=32)
def _grid(
    angle_deg: float, spacing_yx_mm: tuple[float, float], source_yx: Pixels, window_yx: Pixels
) -> NDArray[np.float32]:
    """Positions (h, w, 2) in the source, x before y, −1 and 1 being its borders."""
    matrix = pixel_matrix(angle_deg, 1, spacing_yx_mm)
    offset_yx = (np.asarray(source_yx) - 1) / 2 - matrix @ ((np.asarray(window_yx) - 1) / 2)
    return sampling_grid(matrix, offset_yx, source_yx, window_yx)


@lru_cache(maxsize=32)
def coverage(view: View, window_yx: Pixels) -> NDArray[np.float32]:
    """How much of each pixel (h, w) the view saw, from 0 to 1: what `restore` makes of ones."""
    import torch

    seen: NDArray[np.float32] = view.restore(torch.ones(1, 1, *window_yx))[0, 0].numpy()
    return np.clip(seen, 0, 1)
