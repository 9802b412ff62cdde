"""The colours of structures and other labels, the same in every picture, and images as grey values."""

from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.structures import HEART, find_structures
from utseg.label_map import Labels, structures

# distinguishable with colour-blind eyes (Okabe and Ito, 2008)
COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
STRUCTURE_COLOURS = dict(zip(HEART, COLOURS, strict=False))
GREY_PERCENTILES = (1.0, 99.0)


def label_colours(labels: Labels) -> dict[str, str]:
    """The colour of each label by its name, background and `ignore` left out.

    A structure of the heart has its own, however a dataset numbers it; other labels take the remaining colours by their values.
    """
    roles = {name: role for role, name in find_structures(labels).names.items()}
    colours = {name: STRUCTURE_COLOURS[role] for name, role in roles.items()}
    left = cycle([colour for colour in COLOURS if colour not in colours.values()])
    own = structures(labels)
    for name in own:
        if name not in colours:
            colours[name] = next(left)
    return {name: colours[name] for name in labels if name in own}


def grey_values(image: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Intensities as 0 … 255, from the 1st to the 99th percentile of what is given."""
    low, high = np.percentile(image, GREY_PERCENTILES)
    share = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    grey: NDArray[np.uint8] = (share * 255).astype(np.uint8)
    return grey
