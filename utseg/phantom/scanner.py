"""How a scanner sees the phantom: tissue signals, grid, coil sensitivity, k-space, noise and scale, which is where vendors differ.

The figures are made up, in the range of balanced steady-state cine imaging, so that four vendors look unlike each other. They are no
measurement of any make of scanner. Lengths in mm, signals relative to blood at vendor A.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Signals:
    """Brightness of the tissues."""

    blood: float
    muscle_of_heart: float
    fat: float
    muscle: float
    liver: float
    lung: float
    bone: float


@dataclass(frozen=True)
class Vendor:
    """One vendor's way of imaging. `pixel` scales the pixel size; `rows` is the number of rows per column of the image.

    `sampled` is the part of k-space (along x, y) that is acquired, the rest is filled with zeros. `noise` is the standard deviation of
    either channel at full sampling. `coil` is the strength of the brightness field (natural logarithm, from its mean to its extremes).
    """

    code: str
    name: str
    centres: tuple[int, ...]
    pixel: float
    rows: float
    slice_spacing: tuple[float, ...]
    signals: Signals
    contrast_change: float
    coil: float
    noise: float
    sampled: tuple[float, float]
    gain: float
    base_first: bool


VENDORS = {
    vendor.code: vendor
    for vendor in (
        Vendor(code="A", name="Siemens", centres=(1,), pixel=0.95, rows=0.84, slice_spacing=(10.0,),
               signals=Signals(1.0, 0.36, 0.88, 0.30, 0.40, 0.09, 0.45), contrast_change=0.09,
               coil=0.35, noise=0.030, sampled=(0.90, 0.75), gain=320.0, base_first=False),
        Vendor(code="B", name="Philips", centres=(2, 3), pixel=0.86, rows=1.0, slice_spacing=(10.0, 8.0),
               signals=Signals(1.05, 0.29, 1.08, 0.24, 0.33, 0.05, 0.38), contrast_change=0.09,
               coil=0.25, noise=0.035, sampled=(0.72, 0.62), gain=160.0, base_first=True),
        Vendor(code="C", name="GE", centres=(4,), pixel=1.08, rows=1.0, slice_spacing=(10.0,),
               signals=Signals(0.94, 0.40, 1.10, 0.38, 0.50, 0.12, 0.58), contrast_change=0.12,
               coil=0.7, noise=0.045, sampled=(0.95, 0.80), gain=1100.0, base_first=False),
        Vendor(code="D", name="Canon", centres=(5,), pixel=1.0, rows=0.92, slice_spacing=(8.0,),
               signals=Signals(0.82, 0.39, 0.62, 0.36, 0.55, 0.16, 0.40), contrast_change=0.12,
               coil=0.45, noise=0.060, sampled=(0.62, 0.52), gain=2400.0, base_first=True),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The pixels of a stack: sizes (Z, Y, X), spacing of pixels and slices, and how thick a slice is."""

    size_zyx: tuple[int, int, int]
    pixel_mm: float
    slice_spacing_mm: float
    thickness_mm: float

    def axes(self) -> tuple[Floats, Floats]:
        """Positions of the pixel centres along y and x, 0 in the middle of the image."""
        _, rows, columns = self.size_zyx
        y = ((np.arange(rows) - (rows - 1) / 2) * self.pixel_mm).astype(np.float32)
        x = ((np.arange(columns) - (columns - 1) / 2) * self.pixel_mm).astype(np.float32)
        return y, x


def draw_signals(rng: np.random.Generator, vendor: Vendor) -> Signals:
    """The tissue signals of one examination: the vendor's, each changed a little."""
    change = np.exp(rng.uniform(-vendor.contrast_change, vendor.contrast_change, size=7))
    return Signals(*(np.array(astuple(vendor.signals)) * change))


def draw_grid(
    rng: np.random.Generator, vendor: Vendor, matrix: int, heart_mm: float, slices: int | None
) -> Grid:
    """A grid of about `matrix` columns. The field of view grows with the matrix, so that a small one still shows the whole heart.

    The stack reaches half a slice or more beyond base and apex. A fixed number of slices is spread over the heart.
    """
    field_of_view = (120 + 0.86 * matrix) * rng.uniform(0.96, 1.04)
    pixel = field_of_view / matrix * vendor.pixel
    columns = 2 * round(field_of_view / pixel / 2)
    rows = 2 * round(columns * vendor.rows / 2)
    if slices is None:
        spacing = float(rng.choice(vendor.slice_spacing))
        slices = int(np.ceil(heart_mm / spacing)) + 2
    else:
        spacing = heart_mm / (slices - 2)
    return Grid((slices, rows, columns), float(np.float32(pixel)), spacing, 0.8 * spacing)


def coil_field(rng: np.random.Generator, grid: Grid, strength: float) -> Floats:
    """A smooth field of mean logarithm 0, (Y, X), brighter towards the chest wall, where the coil lies."""
    y, x = (axis / 150 for axis in grid.axes())
    a, b, c, d = rng.uniform(-0.5, 0.5, size=4)
    exponent = (
        -(0.8 + 0.4 * a) * y[:, None] + b * x[None, :] + c * x[None, :] ** 2 + d * y[:, None] * x[None, :]
    )
    exponent = exponent - exponent.mean()
    field: Floats = np.exp(exponent * (strength / max(float(np.abs(exponent).max()), 1e-6))).astype(
        np.float32
    )
    return field


def acquire(rng: np.random.Generator, image_ZYX: Floats, vendor: Vendor, coil_YX: Floats) -> Floats:
    """One frame as the scanner gives it: coil sensitivity, complex noise, the centre of k-space (tapered), magnitude. Same shape.

    The noise passes through the same window as the signal, so that it is correlated and Rician (Gudbjartsson and Patz, 1995).
    """
    from scipy import fft

    received = np.empty(image_ZYX.shape, np.complex64)
    received.real = image_ZYX * coil_YX
    received.imag = 0
    noise = rng.standard_normal((*image_ZYX.shape, 2), dtype=np.float32)
    received += (noise * np.float32(vendor.noise)).view(np.complex64)[..., 0]
    rows, columns = image_ZYX.shape[1:]
    window = _window(rows, vendor.sampled[1])[:, None] * _window(columns, vendor.sampled[0])[None, :]
    spectrum = fft.fft2(received, axes=(1, 2), overwrite_x=True)
    spectrum *= window
    magnitude: Floats = np.abs(fft.ifft2(spectrum, axes=(1, 2), overwrite_x=True))
    return magnitude


def _window(size: int, sampled: float) -> Floats:
    """1 within the sampled part of the frequencies, 0 outside, with a cosine taper over the outer fifth: little ringing is left."""
    frequency = np.abs(np.fft.fftfreq(size)) * 2 / sampled
    taper = 0.5 + 0.5 * np.cos(np.pi * np.clip((frequency - 0.8) / 0.2, 0, 1))
    return np.where(frequency <= 1, taper, 0).astype(np.float32)


def draw_affine(rng: np.random.Generator, grid: Grid, base_first: bool) -> NDArray[np.float64]:
    """An oblique affine, voxel (x, y, z) → RAS mm: the usual short-axis view, turned by up to 20° about a random axis.

    The columns are orthogonal. Slices run from apex to base, or from base to apex, which mirrors the stack.
    """
    usual = np.array([[-0.74, -0.35, 0.58], [0.0, -0.86, -0.51], [0.68, -0.37, 0.63]])
    turned = _rotation(rng.standard_normal(3), np.radians(rng.uniform(3, 20))) @ usual
    axes, _ = np.linalg.qr(turned)
    axes *= np.sign(np.sum(axes * turned, axis=0))
    if base_first:
        axes[:, 2] *= -1
    columns = axes * np.array([grid.pixel_mm, grid.pixel_mm, grid.slice_spacing_mm])
    slices, rows, width = grid.size_zyx
    middle = columns @ (np.array([width - 1, rows - 1, slices - 1]) / 2)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.array([-25.0, 15.0, 10.0]) + rng.uniform(-15, 15, size=3) - middle
    return affine


def _rotation(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn
