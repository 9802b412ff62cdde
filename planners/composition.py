"""Puts the rules together into a plan: what `auto` and `cpu` share."""

from typing import Any

from planners.augmentation import planned_augmentation
from planners.capacity import Fitted, Wishes, fit
from planners.decision import Decision, assemble
from planners.geometry import image_size
from planners.intensity import channel_normalisation, clip_percentiles
from planners.neighbours import plan_neighbours
from planners.windows import planned_windows
from utseg.fingerprint import Fingerprint
from utseg.planning.memory import USABLE_SHARE
from utseg.planning.plan import Plan
from utseg.planning.target import Target, recorded_memory

PUBLISHED = "as published for UTNet"
GAIN = (
    "in minutes of training (ACDC fold 0, 11 subjects) the U-Net gained .010 Dice (standard error .006) and UTNet .020 (.007) from heads "
    "that begin with about as much foreground as patches show"
)
MUON = (
    "in equal time of minutes (ACDC fold 0, 11 subjects) the U-Net gained .018 Dice and UTNet .034 from orthogonal updates of weight "
    "matrices (Muon)"
)


def compose(fingerprint: Fingerprint, planner: str, target: Target, wishes: Wishes) -> Plan:
    """Fits the wishes into the memory and gives every value its reason."""
    fitted = fit(fingerprint, wishes, target)
    iterations, epochs = wishes.schedule(fitted.task)
    patch_size = fitted.task.patch_size
    decisions: dict[str, Decision[Any]] = {
        "preprocessing.spacing_yx_mm": wishes.spacing,
        "preprocessing.clip_percentiles": clip_percentiles(fingerprint),
        "preprocessing.normalisation": channel_normalisation(fingerprint, PUBLISHED, may_mask=True),
        "patch_size": _patch_size(wishes, fitted, target.memory_gb),
        "batch_size": _batch_size(wishes, fitted, target.memory_gb),
        "epochs": epochs,
        "iterations_per_epoch": iterations,
        "estimated_memory_gb": _memory(fitted, target),
        "initial_foreground": Decision(
            0.0, f"0.0: heads begin as they are drawn; {GAIN}, hours were not tried"
        )
        if wishes.long_training
        else Decision(0.13, f"0.13 for all structures together: {GAIN}"),
        "orthogonal_updates": Decision(False, f"False: {MUON}; hours were not tried")
        if wishes.long_training
        else Decision(True, f"True: {MUON}"),
        **{f"network.{key}": decision for key, decision in fitted.candidate.network.items()},
        **planned_windows(fingerprint, patch_size, wishes.spacing.value, wishes.long_training),
        **planned_augmentation(fingerprint, patch_size, image_size(fingerprint, wishes.spacing.value)),
    }
    return assemble(fingerprint, planner, target, plan_neighbours(decisions, fingerprint, target))


def _patch_size(wishes: Wishes, fitted: Fitted, memory_gb: float) -> Decision[tuple[int, int]]:
    (height, width), levels = fitted.task.patch_size, fitted.candidate.levels
    reason = f"{height} × {width}: {wishes.patch.reason}, in multiples of 2^{levels} = {2**levels} and at most a twentieth smaller"
    if fitted.task.patch_size != fitted.wished.patch_size:
        full_height, full_width = fitted.wished.patch_size
        reason += f"; {full_height} × {full_width} was wished for and does not fit into {memory_gb:g} GB even with a batch of 2"
    return Decision(fitted.task.patch_size, reason)


def _batch_size(wishes: Wishes, fitted: Fitted, memory_gb: float) -> Decision[int]:
    batch, wished = fitted.task.batch_size, wishes.batch_size
    reason = f"{batch}: {wished.reason}"
    if batch < wished.value:
        reason += (
            f"; {wished.value} at the wished patch and width would need {fitted.wished_gb:.2f} GB, and {USABLE_SHARE:.0%} of "
            f"{memory_gb:g} GB hold {batch}"
        )
    return Decision(batch, reason)


def _memory(fitted: Fitted, target: Target) -> Decision[float]:
    total, words = recorded_memory(fitted.estimate, target.network_name, target.kind)
    return Decision(
        total,
        f"{words}; at most {USABLE_SHARE:.0%} of the {target.memory_gb:g} GB allowed, the rest is for the device's context and workspaces",
    )
