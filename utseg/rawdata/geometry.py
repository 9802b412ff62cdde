"""`Geometry`: how the voxels of a volume lie in space, when two volumes lie alike, and which affines are usable.

Sizes and spacings are in array order, ZYX; affines follow nibabel: voxel (x, y, z) to RAS millimetres. Nothing is reoriented or resampled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Affine = tuple[tuple[float, ...], ...]
Matrix = NDArray[np.float64]

# Direction cosines of real files are written with four digits, so axes are at right angles to 1e-4 only; a tilted gantry starts at 1e-2.
ORTHOGONAL_WITHIN = 5e-3
# Two files of one scan, written by different tools, agree to float32; these stay well below what moves a voxel.
SPACING_WITHIN = 1e-3  # relative
DIRECTION_WITHIN = 1e-3  # of a direction cosine
ORIGIN_WITHIN_MM = 0.1
ORIGIN_WITHIN_VOXELS = 0.1  # of the smallest spacing, where that is less
SPACING_RANGE_MM = (1e-3, 1e3)


@dataclass(frozen=True)
class Geometry:
    """Size and position of one 3-D volume.

    `affine` is 4 × 4, voxel xyz to RAS mm. `header` is the NIfTI header as read (its spacing mended where that was unusable), so that a
    mask is written with the very same fields; empty for other formats.
    """

    size_zyx: tuple[int, int, int]
    affine: Affine
    header: bytes = b""

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
        directions = self.directions
        axes = np.abs(directions).argmax(axis=0)
        return "".join(("RAS" if directions[axes[i], i] > 0 else "LPI")[axes[i]] for i in range(3))

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON; `Geometry.from_json` is its inverse."""
        return {
            "size_zyx": list(self.size_zyx),
            "affine": [list(row) for row in self.affine],
            "header": self.header.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Geometry":
        """From what `to_json` gave."""
        z, y, x = value["size_zyx"]
        return cls((z, y, x), as_affine(value["affine"]), bytes.fromhex(value["header"]))

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
            found.append(f"origin (R, A, S) {_numbers(origin)} against {_numbers(other_origin)} mm")
        turned = np.abs(self.directions - other.directions)
        if turned.max() > DIRECTION_WITHIN:
            axis = int(turned.max(axis=0).argmax())
            found.append(
                f"direction: the {'xyz'[axis]} axis points to {_numbers(self.directions[:, axis])} against "
                f"{_numbers(other.directions[:, axis])} (R, A, S)"
            )
        return found


def _numbers(values: Any) -> str:
    return (
        " × ".join(str(v) for v in values)
        if isinstance(values, tuple)
        else ", ".join(f"{v:.5g}" for v in values)
    )


def as_affine(matrix: Any) -> Affine:
    """Any 4 × 4 of numbers as nested tuples."""
    return tuple(tuple(float(number) for number in row) for row in matrix)


def affine_problem(matrix: Matrix) -> str | None:
    """Why a 4 × 4 affine cannot be used (not finite, spacing out of range, axes not at right angles), or None."""
    if not np.isfinite(matrix).all():
        return "the position and direction in the header are not finite numbers"
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
