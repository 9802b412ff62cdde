"""How deep nnU-Net's U-Net is, and where it halves which axis: from patch size and spacing. Plain arithmetic, no network.

Isensee et al.: *nnU-Net*, Nature Methods 2021, supplementary note on network topology; the rule is that of nnU-Net 2.8 for two axes.
"""

from typing import NamedTuple

Pair = tuple[int, int]

_LEAST_EDGE = 4  # pixels of the coarsest map along an axis, at least
_ANISOTROPIC = 2  # an axis whose spacing is this many times the finest is left alone


class Topology(NamedTuple):
    """An entry a stage, finest first: by what it strides (1 or 2 an axis), and the size of its kernels (1 or 3 an axis), both (y, x)."""

    strides: tuple[Pair, ...]
    kernels: tuple[Pair, ...]

    @property
    def multiple(self) -> Pair:
        """What an image's height and width must be multiples of."""
        height, width = (2 ** sum(stride[axis] == 2 for stride in self.strides) for axis in (0, 1))
        return height, width


def _halved(sizes: list[float], spacing: list[float]) -> list[int]:
    """The axes that the next stage halves; none ends the encoder."""
    large = [axis for axis in (0, 1) if sizes[axis] >= 2 * _LEAST_EDGE]
    axes = [a for a in large if spacing[a] / min(spacing[b] for b in large) < _ANISOTROPIC]
    if len(axes) == 1 and sizes[axes[0]] < 3 * _LEAST_EDGE:
        return []
    return axes


def plan_topology(patch_size: Pair, spacing_yx_mm: tuple[float, float]) -> Topology:
    """The stages for a patch (y, x) in pixels at a spacing (y, x) in mm.

    An axis is halved while 8 pixels are left (12 where the other axis is not halved with it), and while its spacing is below twice that
    of the finest axis that can still be halved. Kernels are 1 along an axis until its spacing is below twice the other's; the coarsest
    stage's are 3 × 3. A patch of under 8 pixels along both axes gives one stage.
    """
    sizes, spacing = [float(size) for size in patch_size], list(spacing_yx_mm)
    strides: list[Pair] = [(1, 1)]
    kernels: list[Pair] = []
    kernel = [1, 1]
    while axes := _halved(sizes, spacing):
        kernel = [
            3 if kernel[axis] == 3 or spacing[axis] / min(spacing) < _ANISOTROPIC else 1 for axis in (0, 1)
        ]
        kernels.append((kernel[0], kernel[1]))
        strides.append((1 + (0 in axes), 1 + (1 in axes)))
        for axis in axes:
            sizes[axis] = sizes[axis] // 2 + sizes[axis] % 2
            spacing[axis] *= 2
    return Topology(tuple(strides), (*kernels, (3, 3)))
