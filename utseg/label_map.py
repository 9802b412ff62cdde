"""What a label map holds: for each structure its value, or, of a region, its values; `ignore` is what nobody annotated.

A region is a union of values, as in nnU-Net: regions overlap, and each paints one value when a prediction becomes a label map. Here it is
the tuple of its values, that one first. Regions paint from the one of most values to the one of fewest, so that none hides one that lies in
it; the order in which a file names them means nothing. Either all structures are regions or none is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelValue = int | tuple[int, ...]
Labels = Mapping[str, LabelValue]
"""Names with values; background is the value 0, whatever it is called."""
LARGEST_LABEL = 255
MOST_VALUES = 254
"""Of structures: slices hold classes as uint8, beside background and what is ignored."""
IGNORE = "ignore"


def has_regions(labels: Labels) -> bool:
    """Whether the structures are regions."""
    return any(isinstance(value, tuple) for value in labels.values())


def structures(labels: Labels) -> dict[str, LabelValue]:
    """The labels without background and `ignore`: by value, regions in the order in which they paint."""
    found = ((name, value) for name, value in labels.items() if value and name != IGNORE)
    return dict(sorted(found, key=lambda item: (-len(values_of(item[1])), painted(item[1]))))


def values_of(value: LabelValue) -> tuple[int, ...]:
    """All values of a structure, the painted one first."""
    return value if isinstance(value, tuple) else (value,)


def painted(value: LabelValue) -> int:
    """The value that a structure has in a mask."""
    return values_of(value)[0]


def all_values(labels: Labels) -> list[int]:
    """The values of all structures, ascending."""
    return sorted({value for each in structures(labels).values() for value in values_of(each)})


def inside(label_map: NDArray[np.generic], value: LabelValue) -> NDArray[np.bool_]:
    """Where a label map of any shape shows a structure."""
    own = np.asarray(label_map == painted(value))
    for other in values_of(value)[1:]:
        own |= label_map == other
    return own


def inside_any(label_map: NDArray[np.generic], values: Iterable[LabelValue]) -> NDArray[np.bool_]:
    """Where a label map of any shape shows one of several structures."""
    return np.isin(label_map, [value for each in values for value in values_of(each)])


def labels_of_json(value: Any) -> dict[str, LabelValue] | None:
    """Names with values as a JSON file has them; None where it is something else."""
    if not isinstance(value, dict) or not value:
        return None
    labels = {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}
    whole = all(type(number) is int for each in labels.values() for number in values_of(each))
    return labels if whole and () not in labels.values() else None
