"""The recipe of the publication, whatever the dataset looks like: a fixed point to compare with.

Gao, Zhou, Metaxas: *UTNet*, MICCAI 2021. Only the number of iterations and the recorded memory depend on the data.
"""

import logging
from typing import Any

from planners.augmentation import PUBLISHED_AUGMENTATION
from planners.decision import Decision, assemble
from planners.intensity import channel_normalisation, intensity_unit
from planners.neighbours import plan_neighbours
from planners.schedule import training_slices
from planners.windows import STEP_SIZE
from utseg.fingerprint import Fingerprint
from utseg.networks import known_settings, network_class, network_settings
from utseg.planning.memory import training_memory
from utseg.planning.plan import Plan, network_channels
from utseg.planning.target import Target, recorded_memory
from utseg.planning.task import network_task

logger = logging.getLogger("utseg")
SOURCE = "as published for UTNet (Gao, Zhou, Metaxas, MICCAI 2021)"
SPACING_MM = (1.2, 1.2)
PATCH_SIZE = (256, 256)
BATCH_SIZE = 32
PUBLISHED: dict[str, tuple[Any, str]] = {
    "preprocessing.spacing_yx_mm": (SPACING_MM, "1.2 × 1.2 mm in-plane, slices untouched"),
    "preprocessing.clip_percentiles": ((5.0, 98.0), "5th and 98th percentile of each volume"),
    "patch_size": (PATCH_SIZE, "256 × 256 pixels"),
    "batch_size": (BATCH_SIZE, "32 slices"),
    "epochs": (150, "150 epochs"),
}


def plan(fingerprint: Fingerprint, target: Target) -> Plan:
    """The published recipe. Where its batch needs more memory than there is, it is kept, and a warning and the reason say so."""
    slices = training_slices(fingerprint)
    iterations = -(-slices.value // BATCH_SIZE)
    defaults = network_settings(target.network_name)
    told = known_settings(target.network_name, network_class(target.network_name).published)
    published = PUBLISHED | {f"network.{key}": (defaults[key], words) for key, words in told.items()}
    decisions: dict[str, Decision[Any]] = {
        **{key: Decision(value, f"{words}, {SOURCE}") for key, (value, words) in published.items()},
        "preprocessing.normalisation": channel_normalisation(fingerprint, SOURCE, may_mask=False),
        "augmentation.intensity_unit": intensity_unit(fingerprint),
        "iterations_per_epoch": Decision(
            iterations,
            f"{iterations}: an epoch is one pass over the training slices; {slices.reason}, in batches of 32",
        ),
        "focus": Decision(False, "False: whole slices are predicted, as in the publication"),
        "step_size": Decision(
            STEP_SIZE, f"{STEP_SIZE:g}: half a window, as nnU-Net, where a slice is larger than a patch"
        ),
        "initial_foreground": Decision(
            0.0, "0.0: heads begin as their weights are drawn, as in the official code"
        ),
        "orthogonal_updates": Decision(False, "False: SGD alone, as published"),
        **PUBLISHED_AUGMENTATION,
    }
    task = network_task(
        target.network_name,
        {key: defaults[key] for key in told},
        in_channels=network_channels(len(fingerprint.channel_names), target.configuration),
        num_classes=fingerprint.num_classes,
        patch_size=PATCH_SIZE,
        spacing_yx_mm=SPACING_MM,
        batch_size=BATCH_SIZE,
    )
    total, counted = recorded_memory(training_memory(task, target.kind), target.network_name, target.kind)
    fits, batch = f"within the {target.memory_gb:g} GB asked for", decisions["batch_size"]
    if total > target.memory_gb:
        warning = (
            f"more than the {target.memory_gb:g} GB asked for; the published batch of {BATCH_SIZE} is kept"
        )
        advice = "set a smaller batch_size, or use the planner auto, which fits the memory"
        logger.warning("planner published: the training step needs %s GB, %s; %s", total, warning, advice)
        fits = f"{warning}: {advice}"
        decisions["batch_size"] = batch._replace(reason=f"{batch.reason}; it needs {total} GB, {warning}")
    decisions["estimated_memory_gb"] = Decision(total, f"{counted}; {fits}")
    return assemble(fingerprint, "published", target, plan_neighbours(decisions, fingerprint, target))
