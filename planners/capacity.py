"""Fits batch, patch and width into the memory: first a smaller batch, then a smaller patch, then fewer channels.

The order never trades one for another, so more memory never gives a smaller batch or patch. Each candidate's memory is counted on a dry
run of the network's training step, not on a formula.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planners.attention import HEADS, Attention, plan_attention
from planners.geometry import Pair, PatchShape, PatchWish, patch_shape
from utseg.errors import InputError
from utseg.fingerprint import Fingerprint
from utseg.planning.memory import MemoryEstimate, training_memory

NETWORK = "UTNet"
USABLE_SHARE = 0.9
MIN_BATCH = 2
WIDTHS = (32, 24, 16, 8)
PATCH_STEPS = tuple(round(1 - 0.1 * step, 1) for step in range(10))


@dataclass(frozen=True)
class Candidate:
    """One way to size the network: everything that memory depends on, except the batch."""

    patch: PatchShape
    base_channels: int
    attention: Attention

    def network(self) -> dict[str, Any]:
        """Settings as in the plan's group `network`."""
        levels = len(self.attention.block_list.value)
        return {
            "base_channels": self.base_channels,
            "levels": self.patch.levels,
            "block_list": self.attention.block_list.value,
            "num_blocks": (1,) * levels,
            "num_heads": (HEADS,) * levels,
            "reduce_size": self.attention.reduce_size.value,
            "projection": "interp",
            "relative_position": "2d-bias",
            "aux_loss": True,
        }


@dataclass(frozen=True)
class Fitted:
    """What fits: the candidate, its batch, its memory, and the first candidate's need at the wished batch."""

    candidate: Candidate
    batch_size: int
    estimate: MemoryEstimate
    wished_gb: float
    wished: Candidate

    @property
    def patch_shrunk(self) -> bool:
        return self.candidate.patch != self.wished.patch


def candidates(
    fingerprint: Fingerprint, spacing_yx_mm: Pair, wish: PatchWish, base_channels: int
) -> list[Candidate]:
    """From the wish down: smaller patches until the least that makes sense, then narrower networks."""
    patches: list[PatchShape] = []
    for step in PATCH_STEPS:
        sides = [max(least, step * side) for least, side in zip(wish.least_px, wish.wish_px, strict=True)]
        patch = patch_shape((sides[0], sides[1]))
        if not patches or patch.pixels < patches[-1].pixels:
            patches.append(patch)
    widths = [base_channels, *(width for width in WIDTHS if width < base_channels)]
    sizes = [(patch, base_channels) for patch in patches] + [(patches[-1], width) for width in widths[1:]]
    return [
        Candidate(patch, width, plan_attention(fingerprint, patch, spacing_yx_mm)) for patch, width in sizes
    ]


def fit(
    fingerprint: Fingerprint,
    spacing_yx_mm: Pair,
    wish: PatchWish,
    *,
    base_channels: int,
    batch_size: int,
    memory_gb: float,
) -> Fitted:
    """The first candidate that fits with a batch of two, with the largest even batch up to the wished one. InputError where none does."""
    usable = USABLE_SHARE * memory_gb
    listed = candidates(fingerprint, spacing_yx_mm, wish, base_channels)

    def need(candidate: Candidate, batch: int) -> MemoryEstimate:
        return training_memory(
            NETWORK,
            in_channels=fingerprint.in_channels,
            num_classes=fingerprint.num_classes,
            patch_size=candidate.patch.size,
            batch_size=batch,
            settings=candidate.network(),
        )

    first = _first_fitting(listed, lambda candidate: need(candidate, MIN_BATCH).total_gb <= usable)
    if first is None:
        least = need(listed[-1], MIN_BATCH).total_gb
        height, width = listed[-1].patch.size
        raise InputError(
            f"{fingerprint.dataset}: the smallest sensible plan (patch {height} × {width}, {listed[-1].base_channels} channels, "
            f"batch {MIN_BATCH}) needs {least / USABLE_SHARE:.1f} GB to train, and {memory_gb:g} GB are allowed; raise --memory-gb"
        )
    chosen = listed[first]
    batch = MIN_BATCH
    if first == 0:
        batch = max(
            size for size in range(MIN_BATCH, batch_size + 1, 2) if need(chosen, size).total_gb <= usable
        )
    return Fitted(chosen, batch, need(chosen, batch), need(listed[0], batch_size).total_gb, listed[0])


def _first_fitting(listed: list[Candidate], fits: Callable[[Candidate], bool]) -> int | None:
    """Index of the first that fits, by bisection: later ones need less."""
    if fits(listed[0]):
        return 0
    low, high = 0, len(listed) - 1
    if not fits(listed[high]):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(listed[middle]) else (middle, high)
    return high
