"""Draws a beating heart into its chest: each frame's image, and its label map by majority of what fills the pixel.

Edges are soft by what part of a pixel and of the slice's thickness a tissue fills, computed from the distance to its outline. Papillary
muscles and trabeculae belong to the cavity, as in the cohorts that this imitates. Nothing here knows about files or noise.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import radians

import numpy as np
from numpy.typing import NDArray

from utseg.phantom.anatomy import Floats, Heart, Sections, Shape, crescent, rv_taper, sections
from utseg.phantom.chest import Chest, draw_atria, draw_background, paint, smooth_noise
from utseg.phantom.scanner import Grid, Signals

LV, MYO, RV = 1, 2, 3
RV_WALL_MM = 3.0
HEART_REACH_MM = 105.0


class Details:
    """What is drawn beside the shape: where the heart lies, breathing shifts of the slices (Z, 2), muscles inside the cavities."""

    def __init__(self, rng: np.random.Generator, slices: int) -> None:
        anterolateral = np.pi - radians(rng.uniform(35, 60))
        self.heart_xy = 18 + rng.uniform(-8, 8), rng.uniform(-2, 9)
        breathing = np.clip(rng.normal(0, 1.0, size=(slices, 2)), -2.5, 2.5)
        self.breathing_xy_mm: Floats = breathing.astype(np.float32)
        self.papillary_angles = anterolateral, -anterolateral + radians(rng.uniform(-15, 15))
        self.papillary_radius_mm = rng.uniform(3.0, 4.8), rng.uniform(3.0, 4.8)
        self.papillary_span = rng.uniform(0.22, 0.35), rng.uniform(0.66, 0.8)
        self.lv_trabeculae_mm = rng.uniform(0.8, 2.5)
        self.rv_trabeculae_mm = rng.uniform(1.0, 3.5)
        self.trabecula_count = int(rng.integers(11, 18)), int(rng.integers(12, 20))
        self.trabecula_phases = rng.uniform(0, 6.28), rng.uniform(0, 6.28)
        self.blood_texture = rng.uniform(0.02, 0.06)
        self.texture_seed = int(rng.integers(2**31))


@dataclass(frozen=True)
class Scene:
    """A heart in its chest on a grid. `depths_mm` (Z,) are the slices' depths below the end-diastolic base."""

    heart: Heart
    chest: Chest
    details: Details
    signals: Signals
    grid: Grid
    depths_mm: Floats

    @cached_property
    def background(self) -> Floats:
        """All but the heart."""
        return draw_background(self.chest, self.signals, self.grid, self.depths_mm, self.heart.length_mm)

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """The rows and columns that the heart may reach."""
        y, x = self.grid.axes()
        centre_x, centre_y = self.details.heart_xy
        return _around(y, centre_y), _around(x, centre_x)

    @cached_property
    def polar(self) -> tuple[Floats, Floats]:
        """Distance of the box's pixels from the heart's axis, and their angle."""
        y, x = self.grid.axes()
        drift = np.asarray(self.heart.axis_tilt_xy, np.float32) * self.depths_mm[:, None]
        centres = np.asarray(self.details.heart_xy, np.float32) + drift + self.details.breathing_xy_mm
        dx = x[self.box[1]][None, None, :] - centres[:, 0, None, None]
        dy = y[self.box[0]][None, :, None] - centres[:, 1, None, None]
        return np.hypot(dx, dy), np.arctan2(dy, dx)

    @cached_property
    def texture(self) -> Floats:
        """Smooth noise in the box."""
        rng = np.random.default_rng(self.details.texture_seed)
        return smooth_noise(rng, self.polar[0].shape, 6 / self.grid.pixel_mm)

    def frame(self, contracted: float) -> tuple[Floats, NDArray[np.uint8]]:
        """Image, without noise, and label (Z, Y, X) of the heart contracted to 0 (end-diastole) … 1 (end-systole)."""
        outlines = Outlines(self, contracted)
        image = self.background.copy()
        self._paint_atria(image, outlines)
        self._paint_ventricles(image[:, *self.box], outlines)
        return image, self._label(outlines)

    def label(self, contracted: float) -> NDArray[np.uint8]:
        """The label of such a frame alone, which is much quicker."""
        return self._label(Outlines(self, contracted))

    def _label(self, outlines: "Outlines") -> NDArray[np.uint8]:
        inner = self._coverage(outlines.inner, outlines.endo)
        outer = np.maximum(self._coverage(outlines.outer, outlines.epi), inner)
        rv = self._coverage_rv(outlines) * (1 - outer)
        shares = np.stack([1 - outer - rv, inner, outer - inner, rv])
        label = np.zeros(self.grid.size_zyx, np.uint8)
        label[:, *self.box] = shares.argmax(axis=0)
        return label

    def _coverage(self, outline: Floats, part: Sections) -> Floats:
        width = (part.slope_mm + self.grid.pixel_mm)[:, None, None]
        inside: Floats = np.clip(0.5 + (outline - self.polar[0]) / width, 0, 1)
        return inside * part.filled[:, None, None]

    def _coverage_rv(self, outlines: "Outlines", grown_mm: Floats | float = 0.0) -> Floats:
        """Of the right ventricle, its outline moved outwards."""
        outline = outlines.outer + outlines.bulge + grown_mm
        return self._coverage(outline, outlines.right) * (outlines.bulge > 0)

    def _paint_atria(self, image: Floats, outlines: "Outlines") -> None:
        above = np.clip(0.5 + (outlines.shape.base_mm - self.depths_mm) / self.grid.thickness_mm, 0, 1)
        if not above.any():
            return
        coverage, signal = draw_atria(
            self.signals, self.grid, self.details.heart_xy, self.heart.septal_angle, outlines.contracted
        )
        for z in np.flatnonzero(above):
            paint(image[z], above[z] * coverage, signal)

    def _paint_ventricles(self, image: Floats, outlines: "Outlines") -> None:
        """Paints from outside in: RV wall, RV blood, myocardium, LV blood, papillary muscles."""
        muscle = self.signals.muscle_of_heart * (1 + 0.04 * self.texture)
        blood = self.signals.blood * (1 + self.details.blood_texture * self.texture)
        lv_ridges, rv_ridges = self._trabeculae(outlines.from_septum)
        deep = 1 + 0.6 * outlines.contracted
        paint(image, self._coverage_rv(outlines, RV_WALL_MM), muscle)
        paint(image, self._coverage_rv(outlines, -rv_ridges), blood)
        paint(image, self._coverage(outlines.outer, outlines.epi), muscle)
        paint(image, self._coverage(outlines.inner - deep * lv_ridges, outlines.endo), blood)
        paint(image, self._papillary(outlines), muscle)

    def _trabeculae(self, from_septum: Floats) -> tuple[Floats, Floats]:
        """How far muscle ridges reach into the left and right cavity, mm. The LV's septal side is smooth."""
        details = self.details
        free = 0.5 - 0.5 * np.cos(from_septum)
        turn = self.depths_mm[:, None, None] / 9
        lv, rv = (
            np.clip(
                np.sin(count * from_septum + phase + side) + np.sin((count - 5) * from_septum - side), 0, 1
            )
            for count, phase, side in zip(
                details.trabecula_count, details.trabecula_phases, (turn, -turn), strict=True
            )
        )
        return details.lv_trabeculae_mm * free * lv, details.rv_trabeculae_mm * rv

    def _papillary(self, outlines: "Outlines") -> Floats:
        """Coverage by the two papillary muscles, which thicken and move inwards as the heart contracts."""
        details, reach = self.details, self.polar[0]
        low, high = details.papillary_span
        q = (self.depths_mm - outlines.shape.base_mm) / outlines.shape.endo_length_mm
        present = np.clip(np.minimum(q - low, high - q) / 0.05 + 0.5, 0, 1)[:, None, None]
        coverage = np.zeros_like(reach)
        for angle, radius in zip(details.papillary_angles, details.papillary_radius_mm, strict=True):
            thick = radius * (1 + 0.15 * outlines.contracted)
            away = np.mod(outlines.from_septum - angle + np.pi, 2 * np.pi) - np.pi
            centre = np.maximum(outlines.inner - 1.15 * thick, 0)
            distance = np.hypot(reach - centre, reach * away)
            disc = np.clip(0.5 + (thick - distance) / (self.grid.pixel_mm + 1), 0, 1)
            coverage = np.maximum(coverage, disc * present)
        within: Floats = coverage * (reach < outlines.inner)
        return within


class Outlines:
    """The heart contracted to 0 … 1: distances of its outlines from the axis at each pixel's angle, (Z, Y, X) in the box.

    `bulge`: by how much the right ventricle's outline lies outside the left one's. `endo`, `epi` and `right` are the slabs of both.
    """

    def __init__(self, scene: Scene, contracted: float) -> None:
        heart, angle, depths, grid = scene.heart, scene.polar[1], scene.depths_mm, scene.grid
        self.contracted = contracted
        self.shape = shape = Shape(heart, contracted)
        cut = shape.base_mm, depths, grid.thickness_mm
        self.endo = sections(shape.endo_length_mm, shape.endo_radius_mm, *cut)
        self.epi = sections(shape.epi_length_mm, shape.epi_radius_mm, *cut)
        oval = heart.ovalness * np.cos(2 * (angle - heart.ovalness_angle))
        septal = heart.septal_angle + heart.septal_twist * depths / heart.length_mm
        self.from_septum: Floats = np.mod(angle - septal[:, None, None] + np.pi, 2 * np.pi) - np.pi
        wall = np.maximum(self.epi.radius_mm - self.endo.radius_mm, 0)
        shift = np.minimum(heart.septal_shift_mm, 0.45 * wall)[:, None, None]
        self.outer: Floats = self.epi.radius_mm[:, None, None] * (1 + oval)
        self.inner: Floats = self.endo.radius_mm[:, None, None] * (1 + oval) - shift * np.cos(
            self.from_septum
        )
        depth = np.clip((depths - shape.base_mm) / shape.rv_length_mm, 0, 1)
        half = heart.rv_half_angle * (1 - 0.3 * depth)
        height = shape.rv_height_mm * rv_taper(depth) / (1 - 0.3 * depth)
        self.bulge: Floats = height[:, None, None] * crescent(
            self.from_septum / half[:, None, None], heart.rv_skew
        )
        slope = np.abs(np.gradient(height)) * grid.thickness_mm / grid.slice_spacing_mm
        right = sections(shape.rv_length_mm, 1.0, *cut)
        self.right = replace(right, slope_mm=np.minimum(slope, height) * (right.filled > 0))


def _around(axis_mm: Floats, centre_mm: float) -> slice:
    first, end = np.searchsorted(axis_mm, (centre_mm - HEART_REACH_MM, centre_mm + HEART_REACH_MM))
    return slice(int(first), int(end))
