"""Fits batch, patch and width into the memory: first a smaller batch, then a smaller patch, then fewer channels.

The order never trades one for another, so more memory never gives a smaller batch or patch. Each candidate's memory is counted on a dry
run of the network's training step, not on a formula.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

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
from utseg.planning.target import Target
from utseg.planning.task import NetworkTask, network_task

MIN_BATCH = 2
WIDTHS = (32, 24, 16, 8)
PATCH_STEPS = tuple(round(1 - 0.1 * step, 1) for step in range(10))


@dataclass(frozen=True)
class Candidate:
    """One way to size the network: everything that memory depends on, except the batch. `network`: its settings with their reasons."""

    patch: PatchShape
    base_channels: int
    network: dict[str, Decision[Any]]


@dataclass(frozen=True)
class Fitted:
    """What fits: the candidate, its task and memory; and what was wished for, with its need."""

    candidate: Candidate
    task: NetworkTask
    estimate: MemoryEstimate
    wished: Candidate
    wished_gb: float

    @property
    def patch_shrunk(self) -> bool:
        return self.candidate.patch != self.wished.patch


def candidates(
    fingerprint: Fingerprint,
    spacing_yx_mm: Pair,
    wish: PatchWish,
    base_channels: Decision[int],
    target: Target,
) -> list[Candidate]:
    """From the wish down: smaller patches until the least that makes sense, then narrower networks."""
    patches: list[PatchShape] = []
    for step in PATCH_STEPS:
        sides = [max(least, step * side) for least, side in zip(wish.least_px, wish.wish_px, strict=True)]
        patch = patch_shape((sides[0], sides[1]))
        if not patches or patch.pixels < patches[-1].pixels:
            patches.append(patch)
    sizes = [(patch, base_channels.value) for patch in patches]
    sizes += [(patches[-1], width) for width in WIDTHS if width < base_channels.value]
    structure = smallest_structure(fingerprint)

    def candidate(patch: PatchShape, width: int) -> Candidate:
        decisions: dict[str, Decision[Any]] = {
            "base_channels": _width(width, base_channels, target.memory_gb),
            "levels": _levels(patch),
        }
        own = network_class(target.network_name).plan_settings(
            patch_size=patch.size,
            spacing_yx_mm=spacing_yx_mm,
            levels=patch.levels,
            base_channels=width,
            structure=structure,
        )
        decisions |= {key: Decision(*planned) for key, planned in own.items()}
        return Candidate(patch, width, known_settings(target.network_name, decisions))

    return [candidate(patch, width) for patch, width in sizes]


def _width(width: int, wished: Decision[int], memory_gb: float) -> Decision[int]:
    reason = f"{width}: {wished.reason}"
    if width < wished.value:
        reason += (
            f"; {wished.value} would not fit into {memory_gb:g} GB with the smallest patch and a batch of 2"
        )
    return Decision(width, reason)


def _levels(patch: PatchShape) -> Decision[int]:
    coarsest = " × ".join(str(side // 2**patch.levels) for side in patch.size)
    return Decision(
        patch.levels,
        f"{patch.levels}: at most {MAX_LEVELS}, as published, as long as the coarsest map keeps {MIN_BOTTLENECK} pixels a side; "
        f"it is {coarsest}",
    )


def fit(
    fingerprint: Fingerprint,
    spacing_yx_mm: Pair,
    wish: PatchWish,
    *,
    base_channels: Decision[int],
    batch_size: int,
    target: Target,
) -> Fitted:
    """The first candidate that fits with a batch of two, with the largest even batch up to the wished one. InputError where none does."""
    listed = candidates(fingerprint, spacing_yx_mm, wish, base_channels, target)

    def task(candidate: Candidate, batch: int) -> NetworkTask:
        return network_task(
            fingerprint,
            target.network_name,
            {key: decision.value for key, decision in candidate.network.items()},
            patch_size=candidate.patch.size,
            spacing_yx_mm=spacing_yx_mm,
            batch_size=batch,
        )

    def fits(candidate: Candidate) -> bool:
        return largest_batch(task(candidate, MIN_BATCH), target.kind, target.memory_gb, step=MIN_BATCH) > 0

    chosen = listed[0]
    if not fits(chosen):
        if not fits(listed[-1]):
            raise _too_little(task(listed[-1], MIN_BATCH), fingerprint, target)
        chosen = listed[bisect_left(listed, True, lo=1, key=fits)]  # later ones need less
    wished = task(listed[0], batch_size)
    batch = MIN_BATCH
    if chosen is listed[0]:
        batch = largest_batch(wished, target.kind, target.memory_gb, step=MIN_BATCH)
    fitted = task(chosen, batch)
    return Fitted(
        chosen,
        fitted,
        training_memory(fitted, target.kind),
        listed[0],
        training_memory(wished, target.kind).total_gb,
    )


def _too_little(task: NetworkTask, fingerprint: Fingerprint, target: Target) -> InputError:
    least = training_memory(task, target.kind).total_gb
    height, width = task.patch_size
    return InputError(
        f"{fingerprint.dataset}: the smallest sensible plan (patch {height} × {width}, {WIDTHS[-1]} channels, batch {task.batch_size}) "
        f"needs {least / USABLE_SHARE:.3g} GB to train, and {target.memory_gb:g} GB are allowed; raise --memory-gb"
    )
