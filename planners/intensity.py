"""How each channel is normalised, by its name as in nnU-Net; and which percentiles a z-score clips at: as much of the tails as the
labelled structures do not need.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from planners.decision import Decision
from utseg.errors import InputError
from utseg.fingerprint import ChannelFigures, Fingerprint
from utseg.fingerprint.foreground import pooled_mean_sd, pooled_percentiles
from utseg.planning.plan import ChannelNormalisation, Normalisation
from utseg.rawdata.channels import LARGEST_BYTE, Scheme, scheme_of

LOWER = (5.0, 2.0, 1.0, 0.5)
UPPER = (98.0, 99.0, 99.5)
TOLERATED = 0.05
CT_PERCENTILES = (0.5, 99.5)
MASKED_BELOW = 0.75
NNUNET = "as nnU-Net does for channels of this name"
SIMPLE: dict[Scheme, str] = {
    "noNorm": "intensities stay as they are, whatever they are: networks learn best from values around 0 that vary by about 1",
    "rescale_to_0_1": "(value - minimum) / (maximum - minimum) of each volume",
    "rgb_to_0_1": f"divided by {LARGEST_BYTE}",
}


def clip_percentiles(fingerprint: Fingerprint) -> Decision[tuple[float, float]]:
    """The publication's 5 and 98, or wider where that would flatten more than a twentieth of the labelled voxels of the median case."""
    if "z-score" not in map(scheme_of, fingerprint.channel_names):
        return Decision((5.0, 98.0), "5 and 98, which nothing uses: no channel gets a z-score")
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
    """For each percentile the share of labelled voxels below it, in the median case; of several channels with a z-score the worst."""
    cases = [case for case in fingerprint.cases if case.foreground is not None]
    if not cases:
        return None
    medians = np.array(
        [
            np.median([case.channels[number].labelled_below for case in cases], axis=0)
            for number, name in enumerate(fingerprint.channel_names)
            if scheme_of(name) == "z-score"
        ]
    )
    worst = np.where(np.array(fingerprint.percentiles) < 50, medians.max(axis=0), medians.min(axis=0))
    return dict(zip(fingerprint.percentiles, worst.tolist(), strict=True))


def channel_normalisation(
    fingerprint: Fingerprint, source: str, *, may_mask: bool
) -> Decision[tuple[ChannelNormalisation, ...]]:
    """One for each channel, by its name. `source` is of the z-score, which is of nonzero voxels where that pays and it `may_mask`.

    Raises InputError for a channel called CT whose labelled voxels do not tell what to do.
    """
    decisions = [
        _of_channel(fingerprint, number, source, may_mask=may_mask)
        for number in range(len(fingerprint.channel_names))
    ]
    return Decision(tuple(each.value for each in decisions), _reasons(fingerprint, decisions))


def intensity_unit(fingerprint: Fingerprint) -> Decision[tuple[float, ...]]:
    """For each channel the standard deviation that a normalised volume typically has."""
    decisions = [_unit(fingerprint, number) for number in range(len(fingerprint.channel_names))]
    return Decision(tuple(each.value for each in decisions), _reasons(fingerprint, decisions))


def _of_channel(
    fingerprint: Fingerprint, number: int, source: str, *, may_mask: bool
) -> Decision[ChannelNormalisation]:
    scheme, figures = scheme_of(fingerprint.channel_names[number]), _figures(fingerprint, number)
    if scheme == "CT":
        return _of_foreground(fingerprint, number)
    means = f"case means range over {_range([each.mean for each in figures])}"
    if scheme != "z-score":
        return Decision(scheme, f"{scheme}: {SIMPLE[scheme]}, {NNUNET} ({means})")
    reason = f"z-score of each volume, {source}: intensities without a unit, as those of MR ({means})"
    left = float(np.median([case.nonzero_share for case in fingerprint.cases]))
    if not may_mask or left >= MASKED_BELOW:
        return Decision("z-score", reason)
    return Decision(
        "z-score-nonzero",
        f"z-score-nonzero: {reason}; of the voxels that are not 0 only, as in nnU-Net where the box around them is less than "
        f"{MASKED_BELOW:.0%} of the median volume: it is {left:.0%}",
    )


def _of_foreground(fingerprint: Fingerprint, number: int) -> Decision[ChannelNormalisation]:
    labelled = [each.labelled for each in _figures(fingerprint, number) if each.labelled is not None]
    wrong = f"{fingerprint.dataset}: channel {number} is called CT, which is normalised by the intensities of labelled voxels, and"
    if not labelled:
        raise InputError(
            f"{wrong} no training case has any; label some, or give the channel another name in channel_names"
        )
    (lower, upper), (mean, sd) = pooled_percentiles(labelled, CT_PERCENTILES), pooled_mean_sd(labelled)
    found = Normalisation(lower=lower, upper=upper, mean=mean, sd=sd)
    if not found.divides:
        raise InputError(
            f"{wrong} those are all about {mean:g}; check image and labels, or give the channel another name in channel_names"
        )
    return Decision(
        found,
        f"{found}: clipped to the {CT_PERCENTILES[0]:g} and {CT_PERCENTILES[1]:g} percentiles of the "
        f"{sum(each.voxels for each in labelled):,} labelled voxels of {len(labelled)} cases, then their mean is subtracted and the rest "
        f"divided by their standard deviation: the same for every volume, since intensities have a unit, {NNUNET}",
    )


def _unit(fingerprint: Fingerprint, number: int) -> Decision[float]:
    scheme, figures = scheme_of(fingerprint.channel_names[number]), _figures(fingerprint, number)
    if scheme == "z-score":
        return Decision(1.0, "1: the standard deviation of a volume after its z-score")
    if scheme == "CT":
        return Decision(1.0, "1: the standard deviation of the labelled voxels after normalisation")
    divisors = {"noNorm": 1.0, "rgb_to_0_1": float(LARGEST_BYTE)}
    shares = [each.sd / divisors.get(scheme, each.maximum - each.minimum) for each in figures]
    value = float(f"{np.median(shares):.4g}")
    return Decision(
        value,
        f"{value:g}: the standard deviation of the median volume after {scheme}; the cases have {_range(shares)}",
    )


def _figures(fingerprint: Fingerprint, number: int) -> list[ChannelFigures]:
    return [case.channels[number] for case in fingerprint.cases]


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.4g} … {max(values):.4g}"


def _reasons(fingerprint: Fingerprint, decisions: Sequence[Decision[Any]]) -> str:
    """Those of all channels, with their names where there are several."""
    if len(decisions) == 1:
        return decisions[0].reason
    named = zip(fingerprint.channel_names, decisions, strict=True)
    return "; ".join(f"channel {number} ({name}) {each.reason}" for number, (name, each) in enumerate(named))
