"""Plans from the fingerprint and a memory target: native resolution, a patch with the surroundings of the structures, full width."""

from planners.capacity import Wishes
from planners.composition import compose
from planners.decision import Decision
from planners.geometry import native_spacing, wished_patch
from planners.schedule import epochs, iterations_per_epoch, training_slices
from utseg.fingerprint import Fingerprint
from utseg.planning.plan import Plan
from utseg.planning.target import Target
from utseg.planning.task import NetworkTask

PATCH_MARGIN = 2.5
LEAST_PATCH_MARGIN = 1.25
BASE_CHANNELS = 32
MAX_BATCH = 32
ALWAYS_ALLOWED_BATCH = 8
BATCH_SHARE = 0.05


def plan(fingerprint: Fingerprint, target: Target) -> Plan:
    """The plan for the memory of the device that trains. Raises InputError where even the smallest sensible plan needs more."""
    spacing = native_spacing(fingerprint)

    def schedule(task: NetworkTask) -> tuple[Decision[int], Decision[int]]:
        iterations = iterations_per_epoch(fingerprint, task.batch_size)
        return iterations, epochs(fingerprint, task.batch_size, iterations.value)

    wishes = Wishes(
        spacing=spacing,
        patch=wished_patch(fingerprint, spacing.value, margin=PATCH_MARGIN, least_margin=LEAST_PATCH_MARGIN),
        base_channels=Decision(BASE_CHANNELS, "32 channels at full resolution, as published for UTNet"),
        batch_size=wished_batch(fingerprint),
        schedule=schedule,
        long_training=True,
    )
    return compose(fingerprint, "auto", target, wishes)


def wished_batch(fingerprint: Fingerprint) -> Decision[int]:
    """The published 32, but no more than a twentieth of the training slices (eight is always fine)."""
    slices = training_slices(fingerprint)
    share = max(ALWAYS_ALLOWED_BATCH, int(BATCH_SHARE * slices.value) // 2 * 2)
    value = min(MAX_BATCH, share)
    return Decision(
        value,
        f"the published {MAX_BATCH}, but no more than a twentieth of the training slices ({slices.reason}) or {ALWAYS_ALLOWED_BATCH}, "
        f"so {value}",
    )
