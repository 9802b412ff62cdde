"""Which percentiles to clip at: as much of the tails as the labelled structures do not need."""

import numpy as np

from planners.decision import Decision
from utseg.fingerprint import Fingerprint

LOWER = (5.0, 2.0, 1.0, 0.5)
UPPER = (98.0, 99.0, 99.5)
TOLERATED = 0.05


def clip_percentiles(fingerprint: Fingerprint) -> Decision[tuple[float, float]]:
    """The publication's 5 and 98, or wider where that would flatten more than a twentieth of the labelled voxels of the median case."""
    darker = _labelled_below(fingerprint)
    if darker is None:
        return Decision(
            (5.0, 98.0), "5 and 98, as published for UTNet, since no labelled voxel says otherwise"
        )
    low = next((value for value in LOWER if darker[value] <= TOLERATED), LOWER[-1])
    high = next((value for value in UPPER if 1 - darker[value] <= TOLERATED), UPPER[-1])
    return Decision(
        (low, high),
        f"{low:g} and {high:g}: starting from the published 5 and 98, the least clipping of tails that flattens at most "
        f"{TOLERATED:.0%} of the labelled voxels on either side: in the median case {darker[low]:.1%} lie below percentile {low:g} and "
        f"{1 - darker[high]:.1%} above {high:g} ({1 - darker[98.0]:.1%} above 98)",
    )


def _labelled_below(fingerprint: Fingerprint) -> dict[float, float] | None:
    """For each percentile the share of labelled voxels below it, in the median case; of several channels the worst."""
    cases = [case for case in fingerprint.cases if case.foreground is not None]
    if not cases:
        return None
    medians = np.array(
        [
            np.median([case.channels[channel].labelled_below for case in cases], axis=0)
            for channel in fingerprint.channel_names
        ]
    )
    worst = np.where(np.array(fingerprint.percentiles) < 50, medians.max(axis=0), medians.min(axis=0))
    return dict(zip(fingerprint.percentiles, worst.tolist(), strict=True))
