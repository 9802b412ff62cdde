"""Surfaces of masks, extracted once, and distances between them: whole volumes (3-D) and every slice on its own (2-D).

- `voxels`: the elements are voxels of the mask with one of six face neighbours (in a slice: four), or the outside of the image, out of it.
  Every element counts the same, as in medpy (connectivity 1) and MONAI.
- `area`: the elements are the corners between voxels where the 2 × 2 × 2 voxels around (in a slice: 2 × 2) are partly in the mask. Each
  counts by the area of the surface through it in mm² (in a slice: its length in mm), as marching cubes draw it (Lorensen and Cline,
  1987; of a configuration and its complement, the one with fewer corners inside is meshed). So does surface-distance (Nikolov et al. 2021).

The nearest element is found by a KD-tree; elements that both surfaces share are at distance 0 and are not searched for.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
SurfaceKind = Literal["voxels", "area"]
SURFACE_KINDS: tuple[SurfaceKind, ...] = ("voxels", "area")


@dataclass(frozen=True)
class Surface:
    """Elements of the surface of one mask (Z, Y, X).

    there_ZYX: where elements are, on the grid of voxels or (one longer along each axis that is cut) on that of corners.
    indices_N3: their indices in it, in ascending order. weights_N: area in mm² (length in mm) of each; None where all count the same.
    """

    there_ZYX: Mask
    indices_N3: NDArray[np.intp]
    weights_N: Floats | None


@dataclass(frozen=True)
class Directed:
    """From each element of one surface to the nearest of the other: distances_N in mm, weights_N (None: all count the same), and the
    index planes_N along z, ascending, of the plane the element lies in: slice z for voxels, the plane before slice z for corners in 3-D."""

    distances_N: Floats
    weights_N: Floats | None
    planes_N: NDArray[np.intp]

    def where(self, chosen: Mask | slice) -> "Directed":
        """Only some of the elements."""
        weights = None if self.weights_N is None else self.weights_N[chosen]
        return Directed(self.distances_N[chosen], weights, self.planes_N[chosen])


def voxel_surface(mask_ZYX: Mask, *, planar: bool = False) -> Mask:
    """The voxels of a mask with a face neighbour (planar: in their own slice), or the outside of the image, out of it."""
    shape = mask_ZYX.shape
    padded = np.zeros((shape[0] + 2, shape[1] + 2, shape[2] + 2), bool)
    padded[1:-1, 1:-1, 1:-1] = mask_ZYX
    inner = padded[1:-1, :-2, 1:-1] & padded[1:-1, 2:, 1:-1]
    inner &= padded[1:-1, 1:-1, :-2]
    inner &= padded[1:-1, 1:-1, 2:]
    if not planar:
        inner &= padded[:-2, 1:-1, 1:-1]
        inner &= padded[2:, 1:-1, 1:-1]
    return mask_ZYX & ~inner


def extract(mask_ZYX: Mask, spacing_zyx_mm: Spacing, kind: SurfaceKind, *, planar: bool = False) -> Surface:
    """The surface of a mask in a volume; planar: the outlines of all of its slices."""
    if kind == "voxels":
        there = voxel_surface(mask_ZYX, planar=planar)
        return Surface(there, _indices(there), None)
    codes = _corner_codes(mask_ZYX, planar)
    measures = length_by_code(spacing_zyx_mm[1:]) if planar else area_by_code(spacing_zyx_mm)
    there = (codes != 0) & (codes != len(measures) - 1)
    return Surface(there, _indices(there), measures[codes[there]])


def distances_between(
    first: Surface, second: Surface, spacing_zyx_mm: Spacing, *, planar: bool = False
) -> tuple[Directed, Directed]:
    """From each element of the first surface to the nearest of the second, and the other way round.

    Both have elements. planar: the nearest in the same slice; only elements in slices where both have some are used.
    """
    scale = np.array(spacing_zyx_mm, dtype=float)
    if planar:
        shared_Z = np.asarray(first.there_ZYX.any(axis=(1, 2)) & second.there_ZYX.any(axis=(1, 2)))
        first, second = _in_planes(first, shared_Z), _in_planes(second, shared_Z)
        # Slices this far apart are never nearer than what lies in the same slice, and within one the distance is exactly that in the plane.
        scale[0] = 2 * float(np.hypot(*(np.array(first.there_ZYX.shape[1:]) * scale[1:]))) + 1
    return _directed(first, second, scale), _directed(second, first, scale)


def _directed(start: Surface, end: Surface, scale: Floats) -> Directed:
    from scipy.spatial import cKDTree

    indices = start.indices_N3
    distances = np.zeros(len(indices))
    elsewhere = ~end.there_ZYX[indices[:, 0], indices[:, 1], indices[:, 2]]
    if elsewhere.any():
        tree = cKDTree(end.indices_N3 * scale, balanced_tree=False, compact_nodes=False)
        distances[elsewhere], _ = tree.query(indices[elsewhere] * scale)
    return Directed(distances, start.weights_N, indices[:, 0])


def _in_planes(surface: Surface, chosen_Z: Mask) -> Surface:
    chosen = chosen_Z[surface.indices_N3[:, 0]]
    weights = None if surface.weights_N is None else surface.weights_N[chosen]
    return Surface(surface.there_ZYX, surface.indices_N3[chosen], weights)


def _indices(there_ZYX: Mask) -> NDArray[np.intp]:
    return np.stack(np.nonzero(there_ZYX), axis=1)


def _corner_codes(mask_ZYX: Mask, planar: bool) -> NDArray[np.uint8]:
    """Which of the voxels around each corner are in the mask, as bits: bit 4·dz + 2·dy + dx (planar: 2·dy + dx) for the voxel after (1) or
    before (0) the corner along each axis. Corners are one more than voxels along each axis that is cut."""
    depth = 0 if planar else 1
    z, y, x = mask_ZYX.shape
    padded = np.zeros((z + 2 * depth, y + 2, x + 2), np.uint8)
    padded[depth : depth + z, 1:-1, 1:-1] = mask_ZYX
    codes = np.zeros((z + depth, y + 1, x + 1), np.uint8)
    for dz in range(1 + depth):
        for dy in range(2):
            for dx in range(2):
                around = padded[dz : dz + z + depth, dy : dy + y + 1, dx : dx + x + 1]
                codes |= around << np.uint8(4 * dz + 2 * dy + dx)
    return codes


@lru_cache(maxsize=64)
def area_by_code(spacing_zyx_mm: Spacing) -> Floats:
    """Area in mm² of the surface through a corner, for each of the 256 configurations of the voxels around it."""
    z, y, x = spacing_zyx_mm
    scale = np.array([y * x, z * x, z * y])
    return np.array([np.linalg.norm(normals * scale, axis=1).sum() for normals in _unit_triangles()])


@lru_cache(maxsize=64)
def length_by_code(spacing_yx_mm: tuple[float, float]) -> Floats:
    """Length in mm of the outline through a corner, for each of the 16 configurations of the pixels around it (marching squares)."""
    vertical, horizontal = spacing_yx_mm
    slanted = float(np.hypot(vertical, horizontal)) / 2
    lengths = np.full(16, slanted)  # one pixel of four is in the mask, or out of it
    lengths[[0, 15]] = 0
    lengths[[3, 12]] = horizontal  # the two before or after the corner along y
    lengths[[5, 10]] = vertical
    lengths[[6, 9]] = 2 * slanted  # two that touch in the corner only
    return lengths


@lru_cache(maxsize=1)
def _unit_triangles() -> tuple[Floats, ...]:
    """For each configuration the normals (T, 3) of its triangles at unit spacing, as long as the triangles are large."""
    from skimage.measure import marching_cubes

    found = [np.zeros((0, 3))]
    for code in range(1, 255):
        corners = np.array([code >> bit & 1 for bit in range(8)], dtype=float)
        if corners.sum() > 4:
            corners = 1 - corners
        points, faces, _, _ = marching_cubes(corners.reshape(2, 2, 2), 0.5, method="lorensen")
        triangles = points[faces].astype(float)
        found.append(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) / 2)
    return (*found, np.zeros((0, 3)))
