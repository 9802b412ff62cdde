"""What the name of a channel says: which normalisation it asks for, as in nnU-Net, and which channel of another dataset is the same one.

Nothing is normalised here.
"""

from collections import Counter
from collections.abc import Sequence
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
COLOURS = ("r", "g", "b"), ("red", "green", "blue")
LARGEST_BYTE = 255


def scheme_of(channel_name: str) -> Scheme:
    """The normalisation of a channel of that name, in any letter case."""
    return NAMES.get(channel_name.casefold(), "z-score")


def are_colours(names: Sequence[str]) -> bool:
    """Whether channels are those of a picture in RGB, by their names: a picture may lack a colour, a scan lacks no channel."""
    plain = tuple(map(str.casefold, names))
    return plain in COLOURS or (len(plain) == 3 and {*map(scheme_of, names)} == {"rgb_to_0_1"})


def same_channels(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """For each channel of ours the number of the one in theirs with the same name in any letter case; None where they have none.

    Channels that share a name are taken in their order. A single channel in both is the same one, whatever it is called.
    """
    if len(ours) == len(theirs) == 1:
        return [0]
    places = {name: number for number, name in enumerate(_counted(theirs))}
    return [places.get(name) for name in _counted(ours)]


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    counted = []
    for name in map(str.casefold, names):
        counted.append((name, seen[name]))
        seen[name] += 1
    return counted


def require_bytes(image_ZYX: NDArray[np.float32], case_id: str, channel: int) -> None:
    """Raises InputError for a channel that is to be divided by 255 and has values beyond 0 … 255."""
    low, high = float(image_ZYX.min()), float(image_ZYX.max())
    if low < 0 or high > LARGEST_BYTE:
        raise InputError(
            f"case {case_id}: channel {channel}: rgb_to_0_1 expects values from 0 to {LARGEST_BYTE}, found {low:g} to {high:g}; "
            "give the channel another name in channel_names, as rescale_to_0_1"
        )
