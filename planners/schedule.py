"""How long to train: iterations and epochs from the number of slices to learn from."""

import math

from planners.decision import Decision
from utseg.fingerprint import Fingerprint

TRAINING_SHARE = 0.8
VIEWS_WANTED = 500_000
VIEWS_OF_A_SLICE = 1000
EPOCHS_RANGE = (100, 1000)
ITERATIONS_RANGE = (50, 250)


def training_slices(fingerprint: Fingerprint) -> Decision[int]:
    """Slices that one fold trains on."""
    slices = fingerprint.overall.slices
    share = max(1, round(TRAINING_SHARE * slices))
    return Decision(
        share, f"{slices} slices in {fingerprint.overall.cases} volumes, four fifths of them = {share}"
    )


def iterations_per_epoch(fingerprint: Fingerprint, batch_size: int) -> Decision[int]:
    """One pass over the training slices, within limits that keep an epoch worth its validation."""
    slices = training_slices(fingerprint)
    one_pass = math.ceil(slices.value / batch_size)
    low, high = ITERATIONS_RANGE
    value = min(max(one_pass, low), high)
    return Decision(
        value,
        f"{value}: one pass over the training slices is {one_pass} batches of {batch_size} ({slices.reason}), "
        f"kept within {low} … {high} so that validation after each epoch stays a small part of the work",
    )


def epochs(fingerprint: Fingerprint, batch_size: int, iterations: int) -> Decision[int]:
    """As many epochs as show the network as many patches as the publication's training on M&Ms did, fewer where there are few slices."""
    low, high = EPOCHS_RANGE
    slices = training_slices(fingerprint).value
    views = min(VIEWS_WANTED, VIEWS_OF_A_SLICE * slices)
    wanted = math.ceil(views / (batch_size * iterations))
    value = min(max(wanted, low), high)
    return Decision(
        value,
        f"{value}: {VIEWS_WANTED} patches, as in the published training (150 epochs of about 3300 slices), but at most "
        f"{VIEWS_OF_A_SLICE} of each of the {slices} slices, are {wanted} epochs of {iterations} batches of {batch_size}; "
        f"kept within {low} … {high}",
    )
