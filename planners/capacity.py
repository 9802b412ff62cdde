"""Fits batch, patch and width into the memory: first a smaller batch, then a smaller patch, then fewer channels.

The order never trades one for another, so more memory never gives a smaller batch or patch. Each candidate's memory is counted on a dry
run of the network's training step, not on a formula.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

from planners.decision import Decision
from planners.geometry import (
    MAX_LEVELS,
    MIN_BOTTLENECK,
    Pair,
    PatchShape,
    PatchWish,
    patch_shape,
    smallest_structure,
)
from utseg.errors import InputError
from utseg.fingerprint import Fingerprint
from utseg.networks import known_settings, network_class
from utseg.planning.memory import USABLE_SHARE, MemoryEstimate, largest_batch, training_memory
from utseg.planning.plan import network_channels
from utseg.planning.target import Target
from utseg.planning.task import NetworkTask, network_task

MIN_BATCH = 2
WIDTHS = (32, 24, 16, 8)
PATCH_STEPS = tuple(round(1 - 0.1 * step, 1) for step in range(10))


@dataclass(frozen=True)
class Wishes:
    """What a planner would take if memory allowed, and its rule for how long to train what fits: (iterations per epoch, epochs).

    `long_training`: for hours on a GPU, so that nothing is planned of which figures only say what it is worth in minutes.
    """

    spacing: Decision[Pair]
    patch: PatchWish
    base_channels: Decision[int]
    batch_size: Decision[int]
    schedule: Callable[[NetworkTask], tuple[Decision[int], Decision[int]]]
    long_training: bool


class Candidate(NamedTuple):
    """One way to size the network: its task with the smallest batch, its settings with their reasons."""

    task: NetworkTask
    levels: int
    network: dict[str, Decision[Any]]


class Fitted(NamedTuple):
    """What fits, with its batch and memory; and what was wished for, with its need."""

    task: NetworkTask
    candidate: Candidate
    estimate: MemoryEstimate
    wished: NetworkTask
    wished_gb: float


def candidates(fingerprint: Fingerprint, wishes: Wishes, target: Target) -> list[Candidate]:
    """From the wish down: smaller patches until the least that makes sense, then narrower networks."""
    patches: list[PatchShape] = []
    for step in PATCH_STEPS:
        wished = zip(wishes.patch.least_px, wishes.patch.wish_px, strict=True)
        height, width = (max(least, step * side) for least, side in wished)
        patch = patch_shape((height, width))
        if not patches or prod(patch.size) < prod(patches[-1].size):
            patches.append(patch)
    sizes = [(patch, wishes.base_channels.value) for patch in patches]
    sizes += [(patches[-1], width) for width in WIDTHS if width < wishes.base_channels.value]
    structure = smallest_structure(fingerprint)
    found = []
    for patch, channels in sizes:
        planned = network_class(target.network_name).plan_settings(
            patch_size=patch.size,
            spacing_yx_mm=wishes.spacing.value,
            levels=patch.levels,
            base_channels=channels,
            structure=structure,
            long_training=wishes.long_training,
        )
        decisions: dict[str, Decision[Any]] = {
            "base_channels": _width(channels, wishes.base_channels, target.memory_gb),
            "levels": _levels(patch.size, patch.levels),
            **{key: Decision(*value) for key, value in planned.items()},
        }
        network = known_settings(target.network_name, decisions)
        task = network_task(
            target.network_name,
            {key: decision.value for key, decision in network.items()},
            in_channels=network_channels(len(fingerprint.channel_names), target.configuration),
            num_classes=fingerprint.num_classes,
            patch_size=patch.size,
            spacing_yx_mm=wishes.spacing.value,
            batch_size=MIN_BATCH,
        )
        found.append(Candidate(task, patch.levels, network))
    return found


def _width(width: int, wished: Decision[int], memory_gb: float) -> Decision[int]:
    reason = f"{width}: {wished.reason}"
    if width < wished.value:
        reason += (
            f"; {wished.value} would not fit into {memory_gb:g} GB with the smallest patch and a batch of 2"
        )
    return Decision(width, reason)


def _levels(patch_size: tuple[int, int], levels: int) -> Decision[int]:
    coarsest = " × ".join(str(side // 2**levels) for side in patch_size)
    return Decision(
        levels,
        f"{levels}: at most {MAX_LEVELS}, as published, as long as the coarsest map keeps {MIN_BOTTLENECK} pixels a side; "
        f"it is {coarsest}",
    )


def fit(fingerprint: Fingerprint, wishes: Wishes, target: Target) -> Fitted:
    """The first candidate that fits with a batch of two, with the largest even batch up to the wished one. InputError where none does."""
    listed = candidates(fingerprint, wishes, target)

    def largest(task: NetworkTask) -> int:
        return largest_batch(task, target.kind, target.memory_gb, step=MIN_BATCH)

    def fits(candidate: Candidate) -> bool:
        return largest(candidate.task) > 0

    chosen = listed[0]
    if not fits(chosen):
        if not fits(listed[-1]):
            raise _too_little(listed[-1].task, fingerprint, target)
        chosen = listed[bisect_left(listed, True, lo=1, key=fits)]  # later ones need less
    wished = replace(listed[0].task, batch_size=wishes.batch_size.value)
    batch = largest(wished) if chosen is listed[0] else MIN_BATCH
    task = replace(chosen.task, batch_size=batch)
    estimate = training_memory(task, target.kind)
    return Fitted(task, chosen, estimate, wished, training_memory(wished, target.kind).total_gb)


def _too_little(task: NetworkTask, fingerprint: Fingerprint, target: Target) -> InputError:
    least = training_memory(task, target.kind).total_gb
    height, width = task.patch_size
    return InputError(
        f"{fingerprint.dataset}: the smallest sensible plan (patch {height} × {width}, {WIDTHS[-1]} channels, batch {task.batch_size}) "
        f"needs {least / USABLE_SHARE:.3g} GB to train, and {target.memory_gb:g} GB are allowed; raise --memory-gb"
    )
