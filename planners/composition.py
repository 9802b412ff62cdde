"""Puts the rules together into a plan: what `auto` and `cpu` share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planners.augmentation import planned_augmentation
from planners.capacity import USABLE_SHARE, Fitted, fit
from planners.decision import Decision, assemble
from planners.geometry import Pair, PatchWish, image_size
from planners.intensity import clip_percentiles
from utseg.fingerprint import Fingerprint
from utseg.planning.plan import Plan

PUBLISHED = "as published for UTNet"


@dataclass(frozen=True)
class Wishes:
    """What a planner would take if memory allowed, and its rule for how long to train (given what was fitted)."""

    spacing: Decision[Pair]
    patch: PatchWish
    base_channels: Decision[int]
    batch_size: Decision[int]
    schedule: Callable[[Fitted], tuple[Decision[int], Decision[int]]]


def compose(
    fingerprint: Fingerprint, planner: str, configuration: str, memory_gb: float, wishes: Wishes
) -> Plan:
    """Fits the wishes into the memory and gives every value its reason. `schedule` returns (iterations per epoch, epochs)."""
    spacing = wishes.spacing.value
    fitted = fit(
        fingerprint,
        spacing,
        wishes.patch,
        base_channels=wishes.base_channels.value,
        batch_size=wishes.batch_size.value,
        memory_gb=memory_gb,
    )
    iterations, epochs = wishes.schedule(fitted)
    decisions: dict[str, Decision[Any]] = {
        "preprocessing.spacing_yx_mm": wishes.spacing,
        "preprocessing.clip_percentiles": clip_percentiles(fingerprint),
        "preprocessing.normalisation": Decision(
            "z-score",
            f"z-score of each volume, {PUBLISHED}: MR intensities have no unit "
            f"(case means range over {_mean_range(fingerprint)})",
        ),
        "patch_size": _patch_size(wishes, fitted, memory_gb),
        "batch_size": _batch_size(wishes, fitted, memory_gb),
        "epochs": epochs,
        "iterations_per_epoch": iterations,
        "estimated_memory_gb": _memory(fitted, memory_gb),
        **_network(wishes, fitted, memory_gb),
        **planned_augmentation(fingerprint, fitted.candidate.patch.size, image_size(fingerprint, spacing)),
    }
    return assemble(fingerprint, planner, configuration, decisions)


def _patch_size(wishes: Wishes, fitted: Fitted, memory_gb: float) -> Decision[tuple[int, int]]:
    patch = fitted.candidate.patch
    height, width = patch.size
    step = 2**patch.levels
    reason = f"{height} × {width}: {wishes.patch.reason}, in multiples of 2^{patch.levels} = {step} and at most a twentieth smaller"
    if fitted.patch_shrunk:
        full_height, full_width = fitted.wished.patch.size
        reason += f"; {full_height} × {full_width} was wished for and does not fit into {memory_gb:g} GB even with a batch of 2"
    return Decision(patch.size, reason)


def _batch_size(wishes: Wishes, fitted: Fitted, memory_gb: float) -> Decision[int]:
    wished = wishes.batch_size
    reason = f"{fitted.batch_size}: {wished.reason}"
    if fitted.batch_size < wished.value:
        reason += (
            f"; {wished.value} at the wished patch and width would need {fitted.wished_gb:.2f} GB, and {USABLE_SHARE:.0%} of "
            f"{memory_gb:g} GB hold {fitted.batch_size}"
        )
    return Decision(fitted.batch_size, reason)


def _memory(fitted: Fitted, memory_gb: float) -> Decision[float]:
    total = round(fitted.estimate.total_gb, 3)
    return Decision(
        total,
        f"{total:g} GB in float32, counted on a dry run of the training step without allocating: {fitted.estimate.describe()}; at most "
        f"{USABLE_SHARE:.0%} of the {memory_gb:g} GB allowed, the rest is for the device's context and workspaces",
    )


def _network(wishes: Wishes, fitted: Fitted, memory_gb: float) -> dict[str, Decision[Any]]:
    candidate = fitted.candidate
    settings = candidate.network()
    patch, base = candidate.patch, candidate.base_channels
    bottleneck = " × ".join(str(side // 2**patch.levels) for side in patch.size)
    attended = len(candidate.attention.block_list.value)
    width = f"{base}: {wishes.base_channels.reason}"
    if base < wishes.base_channels.value:
        width += f"; {wishes.base_channels.value} would not fit into {memory_gb:g} GB with the smallest patch and a batch of 2"
    reasons = {
        "base_channels": width,
        "levels": f"{patch.levels}: at most 4, as published, as long as the coarsest map keeps 5 pixels a side; it is {bottleneck}",
        "block_list": candidate.attention.block_list.reason,
        "num_blocks": f"1 transformer block at each of the {attended} levels with attention, {PUBLISHED}",
        "num_heads": f"4 heads at each of the {attended} levels with attention, {PUBLISHED}; they divide {2 * base} channels and more",
        "reduce_size": candidate.attention.reduce_size.reason,
        "projection": "interp: keys and values resized by bilinear interpolation, the default of the official code",
        "relative_position": "2d-bias: a learnt bias for each offset of cells, the default of the official code",
        "aux_loss": f"True: deep supervision of the {patch.levels} decoder levels speeds up learning at little cost, {PUBLISHED}",
    }
    return {f"network.{key}": Decision(value, reasons[key]) for key, value in settings.items()}


def _mean_range(fingerprint: Fingerprint) -> str:
    means = [channel.mean for case in fingerprint.cases for channel in case.channels.values()]
    return f"{min(means):.4g} … {max(means):.4g}"
