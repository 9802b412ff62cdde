"""Draws a beating heart into its chest: each frame's image, and its label map by majority of what fills the pixel.

Edges are soft by what part of a pixel and of the slice's thickness a tissue fills, computed from the distance to its outline. Papillary
muscles and trabeculae belong to the cavity, as in the cohorts that this imitates. Nothing here knows about files or noise.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from utseg.phantom.anatomy import Floats, Heart, Sections, Shape, crescent, rv_taper, sections, shape_at
from utseg.phantom.chest import Chest, draw_atria, draw_background, smooth_noise
from utseg.phantom.scanner import Grid, Signals

LV, MYO, RV = 1, 2, 3
RV_WALL_MM = 3.0
HEART_REACH_MM = 105.0


@dataclass(frozen=True)
class Details:
    """What was drawn beside the shape: where the heart lies, breathing shifts of the slices (Z, 2), muscles inside the cavities."""

    heart_xy: tuple[float, float]
    breathing_xy_mm: Floats
    papillary_angles: tuple[float, float]
    papillary_radius_mm: tuple[float, float]
    papillary_span: tuple[float, float]
    lv_trabeculae_mm: float
    rv_trabeculae_mm: float
    trabecula_count: tuple[int, int]
    trabecula_phases: tuple[float, float]
    blood_texture: float
    texture_seed: int


@dataclass(frozen=True)
class Frame:
    """One frame without noise: image (Z, Y, X) in units of the signals, label (Z, Y, X)."""

    image_ZYX: Floats
    label_ZYX: NDArray[np.uint8]


@dataclass
class Scene:
    """A heart in its chest on a grid. `depths_mm` (Z,) are the slices' depths below the end-diastolic base."""

    heart: Heart
    chest: Chest
    details: Details
    signals: Signals
    grid: Grid
    depths_mm: Floats
    background_ZYX: Floats = field(init=False)
    box: tuple[slice, slice] = field(init=False)
    reach_ZYX: Floats = field(init=False)
    angle_ZYX: Floats = field(init=False)
    texture_ZYX: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.background_ZYX = draw_background(
            self.chest, self.signals, self.grid, self.depths_mm, self.heart.length_mm
        )
        y, x = self.grid.axes()
        centre_x, centre_y = self.details.heart_xy
        self.box = _around(y, centre_y), _around(x, centre_x)
        drift = np.asarray(self.heart.axis_tilt_xy, np.float32) * self.depths_mm[:, None]
        centres = np.asarray(self.details.heart_xy, np.float32) + drift + self.details.breathing_xy_mm
        dx = x[self.box[1]][None, None, :] - centres[:, 0, None, None]
        dy = y[self.box[0]][None, :, None] - centres[:, 1, None, None]
        self.reach_ZYX = np.hypot(dx, dy)
        self.angle_ZYX = np.arctan2(dy, dx)
        rng = np.random.default_rng(self.details.texture_seed)
        self.texture_ZYX = smooth_noise(rng, self.reach_ZYX.shape, 6 / self.grid.pixel_mm)

    def frame(self, contracted: float) -> Frame:
        """The heart contracted to 0 (end-diastole) … 1 (end-systole)."""
        shape = shape_at(self.heart, contracted)
        cut = self.depths_mm, self.grid.thickness_mm
        endo = sections(shape.endo_length_mm, shape.endo_radius_mm, shape.base_mm, *cut)
        epi = sections(shape.epi_length_mm, shape.epi_radius_mm, shape.base_mm, *cut)
        right = sections(shape.rv_length_mm, 1.0, shape.base_mm, *cut)
        outlines = self._outlines(shape, endo, epi, right)
        label = np.zeros(self.background_ZYX.shape, np.uint8)
        label[:, *self.box] = self._label(outlines, endo, epi, right)
        image = self.background_ZYX.copy()
        self._paint_atria(image, shape, contracted)
        self._paint_ventricles(image[:, *self.box], outlines, shape, contracted, endo, epi, right)
        return Frame(image, label)

    def _outlines(self, shape: Shape, endo: Sections, epi: Sections, right: Sections) -> "_Outlines":
        """Distance of each outline from the axis at each pixel's angle, (Z, Y, X) in the box."""
        heart, angle = self.heart, self.angle_ZYX
        oval = heart.ovalness * np.cos(2 * (angle - heart.ovalness_angle))
        septal = heart.septal_angle + heart.septal_twist * self.depths_mm / heart.length_mm
        from_septum = np.mod(angle - septal[:, None, None] + np.pi, 2 * np.pi) - np.pi
        wall = np.maximum(epi.radius_mm - endo.radius_mm, 0)
        shift = np.minimum(heart.septal_shift_mm, 0.45 * wall)[:, None, None]
        outer = epi.radius_mm[:, None, None] * (1 + oval)
        inner = endo.radius_mm[:, None, None] * (1 + oval) - shift * np.cos(from_septum)
        depth = np.clip((self.depths_mm - shape.base_mm) / shape.rv_length_mm, 0, 1)
        half = heart.rv_half_angle * (1 - 0.3 * depth)
        height = shape.rv_height_mm * rv_taper(depth) / (1 - 0.3 * depth)
        offset = from_septum / half[:, None, None]
        bulge = height[:, None, None] * crescent(offset, heart.rv_skew)
        slope = np.abs(np.gradient(height)) * self.grid.thickness_mm / self.grid.slice_spacing_mm
        return _Outlines(
            inner, outer, outer + bulge, from_septum, bulge, np.minimum(slope, height) * (right.filled > 0)
        )

    def _label(
        self, outlines: "_Outlines", endo: Sections, epi: Sections, right: Sections
    ) -> NDArray[np.uint8]:
        inner = self._coverage(outlines.inner, endo)
        outer = np.maximum(self._coverage(outlines.outer, epi), inner)
        rv = self._coverage_rv(outlines, right, outlines.rv) * (1 - outer)
        shares = np.stack([1 - outer - rv, inner, outer - inner, rv])
        label: NDArray[np.uint8] = shares.argmax(axis=0).astype(np.uint8)
        return label

    def _coverage(self, outline: Floats, part: Sections) -> Floats:
        width = (part.slope_mm + self.grid.pixel_mm)[:, None, None]
        inside: Floats = np.clip(0.5 + (outline - self.reach_ZYX) / width, 0, 1)
        return inside * part.filled[:, None, None]

    def _coverage_rv(self, outlines: "_Outlines", right: Sections, outline: Floats) -> Floats:
        width = (outlines.rv_slope_mm + self.grid.pixel_mm)[:, None, None]
        inside: Floats = np.clip(0.5 + (outline - self.reach_ZYX) / width, 0, 1)
        return inside * (outlines.bulge > 0) * right.filled[:, None, None]

    def _paint_atria(self, image: Floats, shape: Shape, contracted: float) -> None:
        above = np.clip(0.5 + (shape.base_mm - self.depths_mm) / self.grid.thickness_mm, 0, 1)
        if not above.any():
            return
        coverage, signal = draw_atria(
            self.signals, self.grid, self.details.heart_xy, self.heart.septal_angle, contracted
        )
        for z in np.flatnonzero(above):
            image[z] += above[z] * coverage * (signal - image[z])

    def _paint_ventricles(
        self,
        image: Floats,
        outlines: "_Outlines",
        shape: Shape,
        contracted: float,
        endo: Sections,
        epi: Sections,
        right: Sections,
    ) -> None:
        """Paints from outside in: RV wall, RV blood, myocardium, LV blood, papillary muscles."""
        details, signals = self.details, self.signals
        muscle = signals.muscle_of_heart * (1 + 0.04 * self.texture_ZYX)
        blood = signals.blood * (1 + details.blood_texture * self.texture_ZYX)
        lv_ridges, rv_ridges = self._trabeculae(outlines.from_septum)

        def paint(coverage: Floats, signal: Floats) -> None:
            image[...] += coverage * (signal - image)

        paint(self._coverage_rv(outlines, right, outlines.rv + RV_WALL_MM), muscle)
        paint(self._coverage_rv(outlines, right, outlines.rv - rv_ridges), blood)
        paint(self._coverage(outlines.outer, epi), muscle)
        deep = 1 + 0.6 * contracted
        paint(self._coverage(outlines.inner - deep * lv_ridges, endo), blood)
        paint(self._papillary(outlines, shape, contracted), muscle)

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

    def _papillary(self, outlines: "_Outlines", shape: Shape, contracted: float) -> Floats:
        """Coverage by the two papillary muscles, which thicken and move inwards as the heart contracts."""
        details = self.details
        low, high = details.papillary_span
        q = (self.depths_mm - shape.base_mm) / shape.endo_length_mm
        present = np.clip(np.minimum(q - low, high - q) / 0.05 + 0.5, 0, 1)[:, None, None]
        coverage = np.zeros_like(self.reach_ZYX)
        for angle, radius in zip(details.papillary_angles, details.papillary_radius_mm, strict=True):
            thick = radius * (1 + 0.15 * contracted)
            away = np.mod(outlines.from_septum - angle + np.pi, 2 * np.pi) - np.pi
            centre = np.maximum(outlines.inner - 1.15 * thick, 0)
            distance = np.hypot(self.reach_ZYX - centre, self.reach_ZYX * away)
            disc = np.clip(0.5 + (thick - distance) / (self.grid.pixel_mm + 1), 0, 1)
            coverage = np.maximum(coverage, disc * present)
        within: Floats = coverage * (self.reach_ZYX < outlines.inner)
        return within


@dataclass(frozen=True)
class _Outlines:
    inner: Floats
    outer: Floats
    rv: Floats
    from_septum: Floats
    bulge: Floats
    rv_slope_mm: Floats


def _around(axis_mm: Floats, centre_mm: float) -> slice:
    first, end = np.searchsorted(axis_mm, (centre_mm - HEART_REACH_MM, centre_mm + HEART_REACH_MM))
    return slice(int(first), int(end))


def draw_details(rng: np.random.Generator, slices: int) -> Details:
    """Draws where the heart lies and what is inside its cavities."""
    anterolateral = np.pi - np.radians(rng.uniform(35, 60))
    return Details(
        heart_xy=(float(18 + rng.uniform(-8, 8)), float(rng.uniform(-2, 9))),
        breathing_xy_mm=np.clip(rng.normal(0, 1.0, size=(slices, 2)), -2.5, 2.5).astype(np.float32),
        papillary_angles=(float(anterolateral), float(-anterolateral + np.radians(rng.uniform(-15, 15)))),
        papillary_radius_mm=(float(rng.uniform(3.0, 4.8)), float(rng.uniform(3.0, 4.8))),
        papillary_span=(float(rng.uniform(0.22, 0.35)), float(rng.uniform(0.66, 0.8))),
        lv_trabeculae_mm=float(rng.uniform(0.8, 2.5)),
        rv_trabeculae_mm=float(rng.uniform(1.0, 3.5)),
        trabecula_count=(int(rng.integers(11, 18)), int(rng.integers(12, 20))),
        trabecula_phases=(float(rng.uniform(0, 6.28)), float(rng.uniform(0, 6.28))),
        blood_texture=float(rng.uniform(0.02, 0.06)),
        texture_seed=int(rng.integers(2**31)),
    )
