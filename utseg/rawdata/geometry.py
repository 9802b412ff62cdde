"""`Geometry`: how the voxels of a volume lie in space, when two volumes lie alike, and which affines are usable.

Sizes and spacings are in array order, ZYX; affines follow nibabel: voxel (x, y, z) to RAS millimetres. Z is the axis that slices lie along,
whichever axis of the file that is (`slice_axis_of`); Y and X are the other two in the file's order. Nothing is flipped or resampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from utseg.rawdata.ways import Way, anatomical_axes, unit_vector

Affine = tuple[tuple[float, ...], ...]
Matrix = NDArray[np.float64]
Voxel = TypeVar("Voxel", bound=np.generic)

# Direction cosines of real files are written with four digits, so axes are at right angles to 1e-4 only; a tilted gantry starts at 1e-2.
ORTHOGONAL_WITHIN = 5e-3
# Two files of one scan, written by different tools, agree to float32; these stay well below what moves a voxel.
SPACING_WITHIN = 1e-3  # relative
DIRECTION_WITHIN = 1e-3  # of a direction cosine
ORIGIN_WITHIN_MM = 0.1
ORIGIN_WITHIN_VOXELS = 0.1  # of the smallest spacing, where that is less
SPACING_RANGE_MM = (1e-3, 1e3)
# Voxels less than a quarter longer than wide are nearly cubes: any plane through them will do, and the file's own order decides.
SLICES_APART = 1.25


@dataclass(frozen=True)
class Geometry:
    """Size and position of one 3-D volume, as its array is given out.

    `affine` is 4 × 4, voxel xyz to RAS mm. `header` is the NIfTI header as read (its spacing corrected where that was unusable), so that a
    mask is written with the very same fields; empty for other formats. `slice_axis`: the axis of the file (0 x, 1 y, 2 z) that became Z.
    """

    size_zyx: tuple[int, int, int]
    affine: Affine
    header: bytes = b""
    slice_axis: int = 2

    @classmethod
    def of_file(cls, size_xyz: tuple[int, int, int], matrix: Matrix, header: bytes = b"") -> "Geometry":
        """From size and affine by the axes of the file."""
        axis = slice_axis_of(size_xyz, np.linalg.norm(matrix[:3, :3], axis=0))
        order = _array_order(axis)
        x, y, z = (size_xyz[i] for i in order)
        return cls((z, y, x), as_affine(matrix[:, [*order, 3]]), header, axis)

    def from_file(self, values: NDArray[Voxel]) -> NDArray[Voxel]:
        """An array whose last three axes are the file's, last axis first, as (…, Z, Y, X). A view."""
        return np.moveaxis(values, values.ndim - 1 - self.slice_axis, -3)

    def to_file(self, values: NDArray[Voxel]) -> NDArray[Voxel]:
        """The inverse of `from_file`. A view."""
        return np.moveaxis(values, -3, values.ndim - 1 - self.slice_axis)

    @property
    def file_size_xyz(self) -> tuple[int, int, int]:
        """Size by the axes of the file."""
        sizes = dict(zip(_array_order(self.slice_axis), reversed(self.size_zyx), strict=True))
        return sizes[0], sizes[1], sizes[2]

    @property
    def file_matrix(self) -> Matrix:
        """The affine by the axes of the file."""
        matrix = self.matrix
        matrix[:, _array_order(self.slice_axis)] = self.matrix[:, :3]
        return matrix

    @property
    def matrix(self) -> Matrix:
        """The affine as an array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distances between voxel centres, to seven digits: what float32 headers hold."""
        x, y, z = (float(f"{length:.7g}") for length in np.linalg.norm(self.matrix[:3, :3], axis=0))
        return z, y, x

    @property
    def directions(self) -> Matrix:
        """(3, 3): column i is the unit vector of voxel axis i (x, y, z) in RAS."""
        columns = self.matrix[:3, :3]
        return np.asarray(columns / np.linalg.norm(columns, axis=0))

    @property
    def orientation(self) -> str:
        """Where the x, y and z axes point to, most nearly, as three letters of RLAPSI."""
        return anatomical_axes(self.directions.T)

    @property
    def way(self) -> Way:
        """The way that the slices lie, and whether the header has anything to say it from.

        It has not where the file's axes lie along R, A and S or opposite, exactly, and the first voxel or the middle is at exactly 0: what
        programs write that were given no directions.
        """
        matrix, directions = self.file_matrix, self.directions
        middle = matrix[:3, :3] @ (np.array(self.file_size_xyz) - 1) / 2 + matrix[:3, 3]
        diagonal = not matrix[:3, :3][~np.eye(3, dtype=bool)].any()
        nominal = diagonal and not (matrix[:3, 3].any() and middle.any())
        return Way(y=unit_vector(directions[:, 1]), x=unit_vector(directions[:, 0]), nominal=nominal)

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON; `Geometry.from_json` is its inverse."""
        return {
            "size_zyx": list(self.size_zyx),
            "affine": [list(row) for row in self.affine],
            "header": self.header.hex(),
            "slice_axis": self.slice_axis,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Geometry":
        """From what `to_json` gave."""
        z, y, x = value["size_zyx"]
        return cls(
            (z, y, x), as_affine(value["affine"]), bytes.fromhex(value["header"]), int(value["slice_axis"])
        )

    def differences(self, other: "Geometry") -> list[str]:
        """What differs beyond tolerance (size, spacing, origin, direction), mine against the other's; empty where they lie alike.

        Tolerances: spacing 1e-3 relative; origin .1 mm or .1 of the smallest spacing, whichever is less; direction cosines 1e-3.
        """
        found = []
        if self.size_zyx != other.size_zyx:
            found.append(f"size (z, y, x) {_numbers(self.size_zyx)} against {_numbers(other.size_zyx)}")
        mine, others = np.array(self.spacing_zyx_mm), np.array(other.spacing_zyx_mm)
        if not np.allclose(mine, others, rtol=SPACING_WITHIN, atol=0):
            found.append(f"spacing (z, y, x) {_numbers(mine)} against {_numbers(others)} mm")
        within = min(ORIGIN_WITHIN_MM, ORIGIN_WITHIN_VOXELS * mine.min())
        origin, other_origin = self.matrix[:3, 3], other.matrix[:3, 3]
        if np.abs(origin - other_origin).max() > within:
            found.append(f"origin (R, A, S) {_numbers(origin, 7)} against {_numbers(other_origin, 7)} mm")
        turned = np.abs(self.directions - other.directions)
        if turned.max() > DIRECTION_WITHIN:
            axis = int(turned.max(axis=0).argmax())
            found.append(
                f"direction: the {'xyz'[axis]} axis points to {_numbers(self.directions[:, axis])} against "
                f"{_numbers(other.directions[:, axis])} (R, A, S)"
            )
        return found


def slice_axis_of(size_xyz: Sequence[int], spacing_xyz_mm: Sequence[float]) -> int:
    """The axis of a file that its slices lie along: 0 x, 1 y, 2 z.

    A side of one voxel; else the largest spacing, where it is at least 1.25 times the next; else the last axis. Of several sides of one
    voxel the latter two decide.
    """
    axes = [axis for axis in range(3) if size_xyz[axis] == 1] or [0, 1, 2]
    second, largest = sorted(axes, key=lambda axis: spacing_xyz_mm[axis])[-2:] if len(axes) > 1 else axes * 2
    # Two files of one scan may differ that much in spacing: they shall not fall on two sides of a common ratio.
    apart = spacing_xyz_mm[largest] >= SLICES_APART * (1 - SPACING_WITHIN) * spacing_xyz_mm[second]
    return largest if apart else axes[-1]


def _array_order(slice_axis: int) -> list[int]:
    """The file's axes that the array's x, y and z are."""
    return [*(axis for axis in range(3) if axis != slice_axis), slice_axis]


def _numbers(values: Any, digits: int = 5) -> str:
    return (
        " × ".join(str(v) for v in values)
        if isinstance(values, tuple)
        else ", ".join(f"{v:.{digits}g}" for v in values)
    )


def as_affine(matrix: Any) -> Affine:
    """Any 4 × 4 of numbers as nested tuples."""
    return tuple(tuple(float(number) for number in row) for row in matrix)


def affine_problem(matrix: Matrix) -> str | None:
    """Why a 4 × 4 affine cannot be used (not finite, spacing out of range, axes not at right angles), or None."""
    if not np.isfinite(matrix).all():
        return "the position and direction in the header are not finite numbers"
    with np.errstate(over="ignore"):  # an infinite spacing is refused
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if (spacing < low).any() or (spacing > high).any():
        return f"spacing (x, y, z) {_numbers(spacing)} mm; expected {low:g} to {high:g} mm"
    directions = matrix[:3, :3] / spacing
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > ORTHOGONAL_WITHIN:
        return (
            f"the axes are sheared: the cosine between two of them is {shear:.3g}, expected at most {ORTHOGONAL_WITHIN:g}; "
            "resample the scan to a grid with right angles"
        )
    return None


def affine_of_itk(
    spacing: tuple[float, ...], origin: tuple[float, ...], direction: tuple[float, ...]
) -> Matrix:
    """ITK's spacing, origin and direction (x, y, z; LPS; row by row) as an affine to RAS. More than three dimensions: the first three."""
    dimension = len(spacing)
    matrix = np.eye(4)
    cosines = np.array(direction, dtype=np.float64).reshape(dimension, dimension)[:3, :3]
    matrix[:3, :3] = cosines * np.array(spacing[:3])
    matrix[:3, 3] = origin[:3]
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix)
