"""Which normalisation the name of a channel asks for, as in nnU-Net. Nothing is normalised here."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError

Scheme = Literal["z-score", "CT", "noNorm", "rescale_to_0_1", "rgb_to_0_1"]
NAMES: dict[str, Scheme] = {
    "ct": "CT",
    "nonorm": "noNorm",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
"""Names of channels, in lower case, that ask for another normalisation than the z-score of each volume."""
LARGEST_BYTE = 255


def scheme_of(channel_name: str) -> Scheme:
    """The normalisation of a channel of that name, in any letter case."""
    return NAMES.get(channel_name.casefold(), "z-score")


def require_bytes(image_ZYX: NDArray[np.float32], case_id: str, channel: int) -> None:
    """Raises InputError for a channel that is to be divided by 255 and has values beyond 0 … 255."""
    low, high = float(image_ZYX.min()), float(image_ZYX.max())
    if low < 0 or high > LARGEST_BYTE:
        raise InputError(
            f"case {case_id}: channel {channel}: rgb_to_0_1 expects values from 0 to {LARGEST_BYTE}, found {low:g} to {high:g}; "
            "give the channel another name in channel_names, as rescale_to_0_1"
        )
