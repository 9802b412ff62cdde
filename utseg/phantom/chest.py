"""What lies around the heart in a short-axis slice: chest wall, lungs, fat, liver, stomach, spine, aorta, and above the base the atria.

It does not move with the heart. Positions in mm, x to the right and y downwards in the image, 0 at its middle.
"""

import numpy as np

from utseg.phantom.anatomy import Floats
from utseg.phantom.scanner import Grid, Signals


class Chest:
    """What is drawn for one chest: (x, y) of centres, half axes, thicknesses."""

    def __init__(self, rng: np.random.Generator) -> None:
        def near(x: float, y: float, spread: float) -> tuple[float, float]:
            return x + rng.uniform(-spread, spread), y + rng.uniform(-spread, spread)

        self.centre_xy = near(-8, 54, 7)
        self.half_axes_xy = near(160, 134, 9)
        self.fat_mm = rng.uniform(9, 26)
        self.muscle_mm = rng.uniform(8, 14)
        self.liver_xy = near(-62, 96, 7)
        self.stomach_xy = near(48, 94, 8)
        self.stomach_signal = rng.uniform(0.1, 0.75)
        self.spine_xy = near(-42, 128, 6)
        self.aorta_xy = near(8, 92, 6)
        self.fat_around_heart_mm = rng.uniform(3, 9)
        self.texture_seed = int(rng.integers(2**31))


def paint(image: Floats, coverage: Floats, signal: Floats | float) -> None:
    """Replaces the covered part of each pixel of the image by the signal."""
    image += coverage * (signal - image)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], width: float, depth: float = 0.0
) -> Floats:
    """Smooth noise of unit variance, (Z, Y, X); `width` in pixels within slices, `depth` in slices."""
    from scipy.ndimage import gaussian_filter

    field: Floats = gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), (depth, width, width), mode="wrap"
    )
    scaled: Floats = (field - field.mean()) / max(float(field.std()), 1e-6)
    return scaled


def draw_background(chest: Chest, signals: Signals, grid: Grid, depth_mm: Floats, heart_mm: float) -> Floats:
    """The image without the ventricles, (Z, Y, X). `depth_mm` (Z,) is how far each slice lies below the base."""
    rng = np.random.default_rng(chest.texture_seed)
    y, x = grid.axes()
    pixel = grid.pixel_mm
    depth = (depth_mm / heart_mm).astype(np.float32)[:, None, None]
    y, x = y[None, :, None], x[None, None, :]
    coarse = smooth_noise(rng, grid.size_zyx, 12 / pixel, 0.7)
    fine = smooth_noise(rng, grid.size_zyx, 2.5 / pixel)
    image = np.zeros(grid.size_zyx, np.float32)

    def ellipse(centre: tuple[float, float], half_axes: tuple[object, object], inset: object = 0.0) -> Floats:
        """Coverage of pixels by an ellipse whose outline is moved inwards by `inset` mm."""
        a, b = (np.asarray(axis, np.float32) - np.asarray(inset, np.float32) for axis in half_axes)
        a, b = np.maximum(a, 1e-3), np.maximum(b, 1e-3)
        reach = np.sqrt(((x - centre[0]) / a) ** 2 + ((y - centre[1]) / b) ** 2)
        coverage: Floats = np.clip(0.5 + (1 - reach) * np.minimum(a, b) / pixel, 0, 1)
        return coverage

    body, wall = chest.half_axes_xy, chest.fat_mm + 2.5 * coarse
    paint(image, ellipse(chest.centre_xy, body), signals.fat * (1 + 0.10 * coarse + 0.10 * fine))
    around = np.arctan2(y - chest.centre_xy[1], x - chest.centre_xy[0])
    ribs = np.clip(4 * np.cos(17 * around + 2.5 * depth) - 2.6, 0, 1)
    paint(image, ellipse(chest.centre_xy, body, wall), signals.muscle * (1 + 0.15 * fine))
    paint(image, ribs * ellipse(chest.centre_xy, body, wall + 2), signals.bone * (1 + 0.2 * fine))
    lungs = ellipse(chest.centre_xy, body, wall + chest.muscle_mm)
    vessels = np.clip(fine - 1.9, 0, 1) * 0.9 * signals.blood
    paint(image, lungs, signals.lung * (1 + 0.3 * coarse) + vessels)
    paint(image, ellipse(chest.spine_xy, (24.0, 22.0)), signals.bone * (1 + 0.12 * fine))
    paint(image, ellipse((chest.spine_xy[0], chest.spine_xy[1] + 26), (9.0, 8.0)), 1.1 * signals.blood)
    paint(image, ellipse(chest.aorta_xy, (12.5, 12.5)), signals.blood)
    rise = np.clip(depth, 0, 1.2)
    liver = ellipse(chest.liver_xy, (92 + 0 * depth, 40 + 36 * rise), 2.5 * coarse) * lungs
    paint(image, liver, signals.liver * (1 + 0.05 * fine) + 0.8 * vessels * (fine > 1.9))
    stomach = ellipse(chest.stomach_xy, (48 + 0 * depth, 16 + 44 * rise), 3 * coarse) * lungs
    paint(image, stomach, chest.stomach_signal * signals.blood * (1 + 0.12 * coarse))
    patches = np.clip(0.5 + 0.6 * coarse + 0.15 * fine, 0, 1)
    padding = chest.fat_around_heart_mm
    shrink = (1 - 0.55 * np.clip(depth - 0.35, 0, 1) ** 1.3) * np.clip(1 - (depth - 1) / 0.2, 0, 1)
    sac = ellipse((-4.0, 0.0), ((72 + padding) * shrink, (52 + padding) * shrink), 2 * coarse)
    paint(image, sac * lungs, signals.lung + patches * (0.9 * signals.fat - signals.lung))
    return image


def draw_atria(
    signals: Signals,
    grid: Grid,
    heart_xy: tuple[float, float],
    septal_angle: float,
    contracted: float,
) -> tuple[Floats, Floats]:
    """What is above the base, (Y, X): coverage and signal of both atria, the aortic root and the outflow tract, with thin walls."""
    y, x = grid.axes()
    coverage, image = (np.zeros((len(y), len(x)), np.float32) for _ in range(2))
    towards = np.cos(septal_angle), np.sin(septal_angle)
    across = -towards[1], towards[0]
    growth = 1 + 0.15 * contracted
    chambers = (
        (4.0, -17.0, 21.0 * growth),  # left atrium: along the septal direction, across it, radius
        (6.0, 17.0, 14.5),  # aortic root
        (38.0, -8.0, 22.0 * growth),  # right atrium
        (34.0, 24.0, 14.0),  # outflow tract
    )
    for wall, signal in ((2.2, signals.muscle_of_heart), (0.0, signals.blood)):
        for along, aside, radius in chambers:
            centre_x = heart_xy[0] + along * towards[0] + aside * across[0]
            centre_y = heart_xy[1] + along * towards[1] + aside * across[1]
            reach = np.hypot(x[None, :] - centre_x, y[:, None] - centre_y)
            disc = np.clip(0.5 + (radius + wall - reach) / grid.pixel_mm, 0, 1)
            paint(image, disc, signal)
            coverage = np.maximum(coverage, disc)
    return coverage, image
