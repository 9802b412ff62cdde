"""`auto`'s rules under a compute budget, for a machine with two cores and no GPU: an epoch takes a minute or two.

The knobs are the constants: pixels across the thinnest structure, pixels of a patch, width, batch, throughput, time.
"""

import math

from planners.capacity import Wishes
from planners.composition import compose
from planners.decision import Decision
from planners.geometry import Pair, PatchWish, native_spacing, thickness_quartile_mm, wished_patch
from planners.schedule import training_slices
from utseg.fingerprint import Fingerprint
from utseg.planning.memory import forward_gmac
from utseg.planning.plan import Plan
from utseg.planning.target import Target
from utseg.planning.task import NetworkTask

PIXELS_ACROSS = 5.5
COARSEST_FACTOR = 2.0
WORTH_RESAMPLING = 1.05
PATCH_MARGIN = 2.5
PATCH_PIXELS = 128 * 128
LEAST_PATCH_MARGIN = 1.1
BASE_CHANNELS = 16
BATCH_SIZE = 8
GMAC_PER_SECOND = 35.0
STEP_PER_FORWARD = 3
SECONDS_PER_EPOCH = 90.0
SECONDS_IN_ALL = 2700.0
EPOCHS_RANGE = (10, 150)
MIN_ITERATIONS = 25


def plan(fingerprint: Fingerprint, target: Target) -> Plan:
    """The plan for a small machine; the memory is kept to as in `auto`."""
    spacing = coarser_spacing(fingerprint)
    wishes = Wishes(
        spacing=spacing,
        patch=affordable_patch(fingerprint, spacing.value),
        base_channels=Decision(
            BASE_CHANNELS, "16 channels at full resolution, half the published 32, for two cores without GPU"
        ),
        batch_size=Decision(
            BATCH_SIZE,
            "many steps in little time; in equal time the U-Net learnt as much from batches of 8 as of 4 (ACDC fold 0, 11 subjects: "
            ".876 and .873 Dice)",
        ),
        schedule=lambda task: budget(fingerprint, task),
        long_training=False,
    )
    return compose(fingerprint, "cpu", target, wishes)


def coarser_spacing(fingerprint: Fingerprint) -> Decision[Pair]:
    """As coarse as leaves 5.5 pixels across the thinnest structure, but not finer than the images and at most twice as coarse."""
    native = native_spacing(fingerprint)
    thinnest = thickness_quartile_mm(fingerprint)
    if thinnest is None:
        return Decision(
            native.value, f"{native.reason}; nothing is labelled that says how much coarser is fine"
        )
    name, thickness = thinnest
    wanted = math.floor(thickness / PIXELS_ACROSS / 0.05) * 0.05
    found = (
        f"{PIXELS_ACROSS:g} pixels across the thinnest structure ({name}: in three quarters of the cases at least {thickness:.1f} mm) "
        f"would allow {wanted:.2f} mm"
    )
    value = [round(min(max(step, wanted), COARSEST_FACTOR * step), 4) for step in native.value]
    if all(new < WORTH_RESAMPLING * old for new, old in zip(value, native.value, strict=True)):
        return Decision(
            native.value, f"{native.reason}; {found}, so nothing is to be gained by coarser pixels"
        )
    return Decision(
        (value[0], value[1]),
        f"{value[0]:g} × {value[1]:g} mm (y × x): coarser than the images to save compute; {found}; the images have {native.reason}; "
        f"at most {COARSEST_FACTOR:g} times as coarse",
    )


def affordable_patch(fingerprint: Fingerprint, spacing_yx_mm: Pair) -> PatchWish:
    """`auto`'s patch, shrunk to at most as many pixels as 128 × 128, but never below the labelled extent and a tenth."""
    wish = wished_patch(fingerprint, spacing_yx_mm, margin=PATCH_MARGIN, least_margin=LEAST_PATCH_MARGIN)
    shrink = min(1.0, math.sqrt(PATCH_PIXELS / (wish.wish_px[0] * wish.wish_px[1])))
    height, width = (
        max(least, shrink * side) for least, side in zip(wish.least_px, wish.wish_px, strict=True)
    )
    if (height, width) == wish.wish_px:
        return wish
    return PatchWish(
        (height, width),
        wish.least_px,
        f"{wish.reason}, shrunk to {height:.0f} × {width:.0f} to save compute: at most {PATCH_PIXELS} pixels, but no less than "
        f"{LEAST_PATCH_MARGIN:g} times the labelled extent",
    )


def budget(fingerprint: Fingerprint, task: NetworkTask) -> tuple[Decision[int], Decision[int]]:
    """Iterations of an epoch (one pass, or what fits into its time), and epochs in the whole time."""
    gmac = forward_gmac(task)
    step_seconds = STEP_PER_FORWARD * gmac * task.batch_size / GMAC_PER_SECOND
    slices = training_slices(fingerprint)
    one_pass = math.ceil(slices.value / task.batch_size)
    affordable = max(1, int(SECONDS_PER_EPOCH / step_seconds))
    iterations = min(max(one_pass, MIN_ITERATIONS), affordable)
    epoch_seconds = iterations * step_seconds
    low, high = EPOCHS_RANGE
    epochs = min(max(round(SECONDS_IN_ALL / epoch_seconds), low), high)
    cost = (
        f"a step of batch {task.batch_size} costs {STEP_PER_FORWARD} × {gmac:.2f} GMAC a patch, {step_seconds:.2f} s at the "
        f"{GMAC_PER_SECOND:g} GMAC/s that two cores do"
    )
    return (
        Decision(
            iterations,
            f"{iterations}: one pass over the training slices is {one_pass} batches ({slices.reason}), at least {MIN_ITERATIONS}; {cost}, "
            f"so {affordable} fit into {SECONDS_PER_EPOCH:g} s; an epoch takes about {epoch_seconds:.0f} s and validation",
        ),
        Decision(
            epochs,
            f"{epochs}: {SECONDS_IN_ALL / 60:g} minutes of epochs of about {epoch_seconds:.0f} s, kept within {low} … {high}; "
            "--max-time fits another time",
        ),
    )
