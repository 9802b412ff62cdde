"""Any image size: pad to what the network's downsamplings divide, and cut the same margin off again.

The border is repeated rather than zero-filled: a z-scored slice has no grey value that means "nothing", and a step at the border would
be the strongest edge in the image. Reflection is not defined for margins wider than the image.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def upsample(x_BCHW: Tensor, size_HW: Sequence[int]) -> Tensor:
    """Bilinear, corners aligned, as everywhere in UTNet."""
    if tuple(x_BCHW.shape[-2:]) == tuple(size_HW):
        return x_BCHW
    return F.interpolate(x_BCHW, size=tuple(size_HW), mode="bilinear", align_corners=True)


def margins(size: int, multiple: int) -> tuple[int, int]:
    """(before, after), so that `size` becomes a multiple, and at least two of them.

    Two, because one single coarsest pixel leaves batch normalisation nothing to measure when a batch holds one image.
    """
    padded = max(-(-size // multiple), 2) * multiple
    before = (padded - size) // 2
    return before, padded - size - before


def pad_to_multiple(x_BCHW: Tensor, multiple_HW: tuple[int, int]) -> Tensor:
    """Repeat the border evenly on both sides; returns the very same tensor where nothing is to be done."""
    height, width = map(margins, x_BCHW.shape[-2:], multiple_HW)
    if not any((*height, *width)):
        return x_BCHW
    return F.pad(x_BCHW, (*width, *height), mode="replicate")


def crop_to_size(x_BCHW: Tensor, size_HW: tuple[int, int], multiple_HW: tuple[int, int]) -> Tensor:
    """The inverse of `pad_to_multiple` for an image that had the size `size_HW`; a view."""
    (top, _), (left, _) = map(margins, size_HW, multiple_HW)
    return x_BCHW[..., top : top + size_HW[0], left : left + size_HW[1]]
