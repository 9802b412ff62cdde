"""Where attention goes and how fine its keys and values are, from how large the labelled structures are against the patch."""

from dataclasses import dataclass

from planners.decision import Decision
from planners.geometry import Pair, PatchShape
from utseg.fingerprint import Fingerprint

REDUCE_SIZES = (4, 8, 12, 16)
HEADS = 4


@dataclass(frozen=True)
class Attention:
    """Decisions on reduce_size and on the levels that carry attention."""

    reduce_size: Decision[int]
    block_list: Decision[tuple[int, ...]]


def plan_attention(fingerprint: Fingerprint, patch: PatchShape, spacing_yx_mm: Pair) -> Attention:
    """The coarsest key/value grid with cells no larger than the smallest typical structure; attention where the map is at least so fine."""
    longest = max(side * step for side, step in zip(patch.size, spacing_yx_mm, strict=True))
    finest = min(patch.size) // 2
    usable = [size for size in REDUCE_SIZES if size <= finest]
    structure = smallest_structure(fingerprint)
    if structure is None:
        chosen = max(size for size in usable if size <= 8)
        why = f"{chosen}, as published, since nothing is labelled to go by"
    else:
        name, diameter = structure
        fine_enough = [size for size in usable if longest / size <= diameter]
        chosen = min(fine_enough) if fine_enough else max(usable)
        cell = longest / chosen
        verdict = (
            "a key/value cell is not coarser than that"
            if fine_enough
            else "coarser than that, but the finest grid there is for this patch"
        )
        why = (
            f"{chosen}: the smallest structure ({name}) has a median in-plane diameter of {diameter:.1f} mm; the patch is "
            f"{longest:.0f} mm long, so one of {chosen} cells is {cell:.1f} mm: {verdict}"
        )
    sides = {level: min(patch.size) // 2**level for level in range(1, patch.levels + 1)}
    attended = tuple(level for level, side in sides.items() if side >= chosen)
    listed = ", ".join(f"{side} at level {level}" for level, side in sides.items())
    return Attention(
        Decision(chosen, why),
        Decision(
            attended,
            f"levels {', '.join(map(str, attended))}: every level from 1 on whose feature map is at least {chosen} pixels on its "
            f"shorter side ({listed}), where keys and values are resized to {chosen} × {chosen}; level 0 has none, as published",
        ),
    )


def smallest_structure(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The label with the smallest median in-plane diameter (mm, of the disc of equal area), None where nothing is labelled."""
    diameters = [(spread.median, name) for name, spread in fingerprint.overall.diameter_mm.items()]
    if not diameters:
        return None
    diameter, name = min(diameters)
    return name, diameter
