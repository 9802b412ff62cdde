"""The recipe of the publication, whatever the dataset looks like: a fixed point to compare with.

Gao, Zhou, Metaxas: *UTNet*, MICCAI 2021. Only the number of iterations and the recorded memory depend on the data.
"""

import logging
from typing import Any

from planners.augmentation import PUBLISHED_AUGMENTATION
from planners.decision import Decision, assemble
from planners.schedule import training_slices
from utseg.fingerprint import Fingerprint
from utseg.planning.memory import training_memory
from utseg.planning.plan import Plan

logger = logging.getLogger("utseg")
SOURCE = "as published for UTNet (Gao, Zhou, Metaxas, MICCAI 2021)"
NETWORK: dict[str, Any] = {
    "base_channels": 32,
    "levels": 4,
    "block_list": (1, 2, 3, 4),
    "num_blocks": (1, 1, 1, 1),
    "num_heads": (4, 4, 4, 4),
    "reduce_size": 8,
    "projection": "interp",
    "relative_position": "2d-bias",
    "aux_loss": True,
}
WHAT = {
    "base_channels": "32 channels at full resolution",
    "levels": "4 halvings of the resolution",
    "block_list": "attention at levels 1, 2, 3 and 4",
    "num_blocks": "1 transformer block at each of the 4 levels",
    "num_heads": "4 heads at each of the 4 levels",
    "reduce_size": "keys and values resized to 8 × 8",
    "projection": "keys and values resized by bilinear interpolation, the default of the official code",
    "relative_position": "2-D input-independent position bias, the default of the official code",
    "aux_loss": "deep supervision at ½, ¼ and ⅛ of the resolution",
}
PATCH_SIZE = (256, 256)
BATCH_SIZE = 32
EPOCHS = 150


def plan(fingerprint: Fingerprint, *, memory_gb: float, configuration: str) -> Plan:
    """The published recipe. Where its batch needs more memory than there is, it is kept, and a warning and the reason say so."""
    slices = training_slices(fingerprint)
    iterations = -(-slices.value // BATCH_SIZE)
    decisions: dict[str, Decision[Any]] = {
        "preprocessing.spacing_yx_mm": Decision(
            (1.2, 1.2), f"1.2 × 1.2 mm in-plane, slices untouched, {SOURCE}"
        ),
        "preprocessing.clip_percentiles": Decision(
            (5.0, 98.0), f"5th and 98th percentile of each volume, {SOURCE}"
        ),
        "preprocessing.normalisation": Decision(
            "z-score", f"z-score: zero mean and unit variance of each volume, {SOURCE}"
        ),
        "patch_size": Decision(PATCH_SIZE, f"256 × 256 pixels, {SOURCE}"),
        "batch_size": Decision(BATCH_SIZE, f"32 slices, {SOURCE}"),
        "epochs": Decision(EPOCHS, f"150 epochs, {SOURCE}"),
        "iterations_per_epoch": Decision(
            iterations,
            f"{iterations}: an epoch is one pass over the training slices; {slices.reason}, in batches of 32",
        ),
        **{f"network.{key}": Decision(value, f"{WHAT[key]}, {SOURCE}") for key, value in NETWORK.items()},
        **PUBLISHED_AUGMENTATION,
    }
    decisions |= _recorded_memory(fingerprint, memory_gb, decisions["batch_size"])
    return assemble(fingerprint, "published", configuration, decisions)


def _recorded_memory(
    fingerprint: Fingerprint, memory_gb: float, batch: Decision[int]
) -> dict[str, Decision[Any]]:
    estimate = training_memory(
        "UTNet",
        in_channels=fingerprint.in_channels,
        num_classes=fingerprint.num_classes,
        patch_size=PATCH_SIZE,
        batch_size=BATCH_SIZE,
        settings=NETWORK,
    )
    total = round(estimate.total_gb, 2)
    counted = (
        f"{total} GB in float32, counted on a dry run of the UTNet's training step: {estimate.describe()}"
    )
    if total <= memory_gb:
        return {"estimated_memory_gb": Decision(total, f"{counted}; within the {memory_gb:g} GB asked for")}
    warning = f"more than the {memory_gb:g} GB asked for; the published batch of {BATCH_SIZE} is kept"
    advice = "set a smaller batch_size, or use the planner auto, which fits the memory"
    logger.warning("planner published: the training step needs %s GB, %s; %s", total, warning, advice)
    return {
        "estimated_memory_gb": Decision(total, f"{counted}; {warning}: {advice}"),
        "batch_size": Decision(batch.value, f"{batch.reason}; it needs {total} GB, {warning}"),
    }
