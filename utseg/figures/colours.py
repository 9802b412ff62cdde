"""The colours of labels, the same in every picture, and images as grey values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# of label value 1, 2, …: distinguishable with colour-blind eyes (Okabe and Ito, 2008)
LABEL_COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
GREY_PERCENTILES = (1.0, 99.0)


def label_colour(value: int) -> str:
    """The colour of a label value ≥ 1."""
    return LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)]


def grey_values(image: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Intensities as 0 … 255, from the 1st to the 99th percentile of what is given."""
    low, high = np.percentile(image, GREY_PERCENTILES)
    share = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    grey: NDArray[np.uint8] = (share * 255).astype(np.uint8)
    return grey
