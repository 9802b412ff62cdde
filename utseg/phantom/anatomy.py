"""A synthetic heart in numbers: volumes by pathology, the cardiac cycle, and the cross-section of both ventricles at any depth.

The left ventricle is a body of revolution of profile r(q) = R·√(1 − q^p) along its long axis (q = 0 at the base, 1 at the apex), whose
volume is π·R²·L·p/(p + 1); the right one is a crescent on its outer surface. Lengths in mm, volumes in ml, angles in radians; depth is
measured from the base at end-diastole towards the apex.
"""

from dataclasses import dataclass
from math import radians
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Pathology = Literal["NOR", "DCM", "HCM", "ARV"]
PATHOLOGIES: tuple[Pathology, ...] = get_args(Pathology)
Floats = NDArray[np.floating[Any]]

PROFILE_POWER = 2.5
PROFILE_VOLUME = np.pi * PROFILE_POWER / (PROFILE_POWER + 1)
RV_ANGLES = (np.arange(64) + 0.5) / 32 - 1
RV_DEPTHS = (np.arange(32) + 0.5) / 32

# ranges drawn from uniformly: LV end-diastolic volume, LV ejection fraction, myocardial volume, RV end-diastolic volume, RV ejection
# fraction, LV length at end-diastole, shift of the cavity away from the septum (a thick septum is a large one)
RANGES: dict[Pathology, tuple[tuple[float, float], ...]] = {
    "NOR": ((105, 165), (0.56, 0.68), (90, 130), (120, 180), (0.50, 0.62), (82, 96), (0.0, 1.5)),
    "DCM": ((190, 280), (0.20, 0.38), (130, 180), (130, 200), (0.35, 0.50), (94, 108), (0.0, 1.5)),
    "HCM": ((90, 145), (0.62, 0.74), (165, 225), (110, 165), (0.52, 0.65), (80, 94), (3.0, 5.5)),
    "ARV": ((105, 165), (0.50, 0.62), (85, 120), (210, 290), (0.25, 0.40), (82, 96), (0.0, 1.5)),
}


class Heart:
    """What is drawn for one heart. Sizes are those at end-diastole."""

    def __init__(self, rng: np.random.Generator, pathology: Pathology) -> None:
        drawn = [rng.uniform(*limits) for limits in RANGES[pathology]]
        self.lv_edv_ml, self.lv_ejection_fraction, self.myocardium_ml = drawn[:3]
        self.rv_edv_ml, self.rv_ejection_fraction, self.lv_length_mm, self.septal_shift_mm = drawn[3:]
        self.apical_wall_mm = rng.uniform(5, 8)
        self.longitudinal_shortening = rng.uniform(0.5, 0.7) * 0.25 * self.lv_ejection_fraction / 0.6
        self.rv_length_fraction = rng.uniform(0.74, 0.84)
        self.rv_half_angle = radians(rng.uniform(62, 78))
        self.rv_skew = rng.uniform(-0.35, 0.35)
        self.septal_angle = radians(rng.uniform(-185, -140))
        self.septal_twist = radians(rng.uniform(-18, 18))
        self.axis_tilt_xy = rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)
        self.ovalness = rng.uniform(0, 0.06)
        self.ovalness_angle = rng.uniform(0, np.pi)
        self.end_systole = rng.uniform(0.33, 0.40)
        self.length_mm = self.lv_length_mm + self.apical_wall_mm  # from the base to the apex's outer surface


class Shape:
    """The heart contracted to 0 (end-diastole) … 1 (end-systole): lengths and radii of the profiles.

    The volume of the myocardium stays what it is. `base_mm` is how far the base has come down since end-diastole.
    """

    def __init__(self, heart: Heart, contracted: float) -> None:
        cavity = 1000 * heart.lv_edv_ml * (1 - heart.lv_ejection_fraction * contracted)
        rv_volume = 1000 * heart.rv_edv_ml * (1 - heart.rv_ejection_fraction * contracted)
        self.endo_length_mm = heart.lv_length_mm * (1 - heart.longitudinal_shortening * contracted)
        self.endo_radius_mm = _radius(cavity, self.endo_length_mm)
        self.epi_length_mm = self.endo_length_mm + heart.apical_wall_mm * (1 + 0.3 * contracted)
        self.epi_radius_mm = _radius(cavity + 1000 * heart.myocardium_ml, self.epi_length_mm)
        self.base_mm = heart.length_mm - self.epi_length_mm
        self.rv_length_mm = heart.rv_length_fraction * self.endo_length_mm
        self.rv_height_mm = self._rv_height(heart, rv_volume)

    def _rv_height(self, heart: Heart, volume_mm3: float) -> float:
        """Solves ∬ (r·h + h²/2) dθ dz = volume for the scale of h, where r is the LV's outer radius and h the crescent's height."""
        depths = RV_DEPTHS * self.rv_length_mm / self.epi_length_mm
        outer = self.epi_radius_mm * np.sqrt(1 - depths**PROFILE_POWER)
        unit = rv_taper(RV_DEPTHS)[:, None] * crescent(RV_ANGLES, heart.rv_skew)[None, :]
        cell = self.rv_length_mm * 2 * heart.rv_half_angle / len(RV_DEPTHS) / len(RV_ANGLES)
        linear = float((outer[:, None] * unit).sum() * cell)
        quadratic = float((unit * unit).sum() * cell) / 2
        return float(np.sqrt(linear**2 + 4 * quadratic * volume_mm3) - linear) / (2 * quadratic)


@dataclass(frozen=True)
class Sections:
    """One slab of tissue for each slice (arrays of length Z): the part of the slab's thickness that the structure fills, its mean radius,
    and by how much the radius changes through the slab, which is what blurs its edge."""

    filled: Floats
    radius_mm: Floats
    slope_mm: Floats


def contraction(phase: float, end_systole: float) -> float:
    """0 at end-diastole (phase 0), 1 at end-systole, over one cycle: ejection, rapid filling, diastasis, atrial kick."""
    knots = (0.0, end_systole, end_systole + 0.25, 0.85, 1.0)
    values = (0.0, 1.0, 0.25, 0.18, 0.0)
    phase %= 1.0
    after = next(index for index, knot in enumerate(knots[1:], start=1) if phase <= knot)
    part = (phase - knots[after - 1]) / (knots[after] - knots[after - 1])
    eased = part * part * (3 - 2 * part)
    return values[after - 1] + (values[after] - values[after - 1]) * eased


def cycle_phases(frames: int, end_systole: float, first_phase: float) -> tuple[list[float], int, int]:
    """Phase of each frame, and the ED and ES frame. The two frames nearest to ED and ES are put exactly there."""
    phases = [(first_phase + frame / frames) % 1.0 for frame in range(frames)]

    def distance(phase: float, target: float) -> float:
        return abs((phase - target + 0.5) % 1.0 - 0.5)

    es = min(range(frames), key=lambda frame: distance(phases[frame], end_systole))
    ed = min(
        (frame for frame in range(frames) if frame != es), key=lambda frame: distance(phases[frame], 0.0)
    )
    phases[ed], phases[es] = 0.0, end_systole
    return phases, ed, es


def sections(
    length_mm: float, radius_mm: float, base_mm: float, centres_mm: Floats, thickness_mm: float
) -> Sections:
    """Cuts a profile into slabs around the given depths. Where nothing of the structure is in a slab all three values are 0."""
    low = np.clip(centres_mm - thickness_mm / 2 - base_mm, 0, length_mm)
    high = np.clip(centres_mm + thickness_mm / 2 - base_mm, 0, length_mm)

    def at(depth: Floats) -> Floats:
        profile: Floats = radius_mm * np.sqrt(np.clip(1 - (depth / length_mm) ** PROFILE_POWER, 0, 1))
        return profile

    filled = (high - low) / thickness_mm
    inside = filled > 0
    return Sections(filled, at((low + high) / 2) * inside, (at(low) - at(high)) * inside)


def crescent(offset: Floats, skew: float) -> Floats:
    """Height of the right ventricle over the septum, 0 … about 1, at an angle in units of its half angle: 0 beyond ±1."""
    inside = np.clip(1 - offset * offset, 0, 1)
    height: Floats = inside**0.75 * (1 + skew * offset)
    return height


def rv_taper(depth: Floats) -> Floats:
    """Relative height of the crescent from its base (0) to its end (1), which lies before the apex."""
    height: Floats = np.clip(1 - depth * depth, 0, 1) ** 0.6
    return height


def _radius(volume_mm3: float, length_mm: float) -> float:
    return float(np.sqrt(volume_mm3 / (PROFILE_VOLUME * length_mm)))
