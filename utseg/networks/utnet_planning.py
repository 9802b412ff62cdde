"""UTNet's settings from what is planned: where attention goes and how fine its keys and values are, by how large the structures are."""

from collections.abc import Mapping
from typing import Any

REDUCE_SIZES = (4, 8, 12, 16)
HEADS = 4
SHORT_LEVELS = 2
SHORT_GAIN = (
    "in ten minutes of one core (ACDC fold 0, 11 subjects; 128 × 128, 16 channels) attention at levels 3 and 4 with 1 block elsewhere gave "
    ".864 Dice, at levels 2 to 4 .835, at levels 1 to 4 with 2 blocks elsewhere .798, as more steps fit"
)
SHORT_DROPOUT = "it costs a twentieth of a step, and 0.1 gained .002 Dice (standard error .003) in as many steps of a short training"
PUBLISHED = "as published for UTNet"
ENTRIES_BY_LEVEL = ("num_blocks", "num_heads")
Planned = tuple[Any, str]


def plan_attention(
    patch_size: tuple[int, int],
    spacing_yx_mm: tuple[float, float],
    levels: int,
    base_channels: int,
    structure: tuple[str, float] | None,
    long_training: bool,
) -> dict[str, Planned]:
    """The coarsest key/value grid with cells no larger than the smallest typical structure; attention where the map is at least so fine,
    in a short training at the coarsest two of these alone, with as few convolutions as a U-Net has.
    """
    chosen, why = _reduce_size(patch_size, spacing_yx_mm, structure)
    sides = {level: min(patch_size) // 2**level for level in range(1, levels + 1)}
    attended = tuple(level for level, side in sides.items() if side >= chosen)
    listed = ", ".join(f"{side} at level {level}" for level, side in sides.items())
    fine = (
        f"whose feature map is at least {chosen} pixels on its shorter side ({listed}), where keys and values are resized to "
        f"{chosen} × {chosen}"
    )
    if long_training:
        where = f"every level from 1 on {fine}; level 0 has none, as published"
        conv_blocks = 2, f"2 convolutional blocks at each level without attention, {PUBLISHED}"
        dropout = 0.1, f"0.1 of attention weights and of attention's output, {PUBLISHED}"
    else:
        attended = attended[-SHORT_LEVELS:]
        where = f"no more than the coarsest {SHORT_LEVELS} {fine}: {SHORT_GAIN}"
        conv_blocks = (
            1,
            f"1 convolutional block at each level without attention, as where there is some: {SHORT_GAIN}",
        )
        dropout = 0.0, f"0.0: {SHORT_DROPOUT}"
    each = f"at each of the {len(attended)} levels with attention, {PUBLISHED}"
    return {
        "block_list": (attended, f"levels {', '.join(map(str, attended))}: {where}"),
        "conv_blocks": conv_blocks,
        "attention_dropout": dropout,
        "num_blocks": ((1,) * len(attended), f"1 transformer block {each}"),
        "num_heads": (
            (HEADS,) * len(attended),
            f"{HEADS} heads {each}; they divide {2 * base_channels} channels and more",
        ),
        "reduce_size": (chosen, why),
        "projection": (
            "interp",
            "interp: keys and values resized by bilinear interpolation, the default of the official code",
        ),
        "relative_position": (
            "2d-bias",
            "2d-bias: a learnt bias for each offset of cells, the default of the official code",
        ),
        "aux_loss": (
            True,
            f"True: deep supervision of the {levels} decoder levels speeds up learning at little cost, {PUBLISHED}; without it a "
            "short training lost .004 Dice (standard error .002) in as many steps (ACDC fold 0, 11 subjects)",
        ),
    }


def _reduce_size(
    patch_size: tuple[int, int], spacing_yx_mm: tuple[float, float], structure: tuple[str, float] | None
) -> tuple[int, str]:
    longest = max(side * step for side, step in zip(patch_size, spacing_yx_mm, strict=True))
    usable = [size for size in REDUCE_SIZES if size <= min(patch_size) // 2]
    if structure is None:
        chosen = max(size for size in usable if size <= 8)
        return chosen, f"{chosen}, as published, since nothing is labelled to go by"
    name, diameter = structure
    fine_enough = [size for size in usable if longest / size <= diameter]
    chosen = min(fine_enough) if fine_enough else max(usable)
    verdict = (
        "a key/value cell is not coarser than that"
        if fine_enough
        else "coarser than that, but the finest grid there is for this patch"
    )
    return chosen, (
        f"{chosen}: the smallest structure ({name}) has a median in-plane diameter of {diameter:.1f} mm; the patch is "
        f"{longest:.0f} mm long, so one of {chosen} cells is {longest / chosen:.1f} mm: {verdict}"
    )


def with_entries_by_level(planned: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given on top of those planned; a single number is a list of one.

    Entries of num_blocks and num_heads that are not given follow a given block_list: each level has its planned entry, or that of the
    nearest planned level.
    """
    lists = ("block_list", *ENTRIES_BY_LEVEL)
    given = {key: [value] if key in lists and type(value) is int else value for key, value in given.items()}
    levels = given.get("block_list")
    if isinstance(levels, list | tuple) and all(type(level) is int for level in levels):
        for key in ENTRIES_BY_LEVEL:
            if key in planned and key not in given:
                entries = dict(zip(planned["block_list"], planned[key], strict=False))
                nearest = (
                    min(entries, key=lambda there: abs(there - level), default=None) for level in levels
                )
                given[key] = [1 if there is None else entries[there] for there in nearest]
    return {**planned, **given}
