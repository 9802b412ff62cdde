"""Small plans, made up: whatever a test does not say is the smallest that works. A module of its own, so that workers can import it."""

from typing import Any

from utseg.planning.plan import AugmentationSettings, Plan, Preprocessing

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
KINDS = (
    *("rotation", "scale", "noise", "brightness", "contrast", "gamma"),
    *("blur", "resolution", "histogram"),
)
RANGES = (
    "scale",
    "noise_sd",
    "brightness",
    "contrast",
    "gamma",
    "blur_sd_mm",
    "resolution",
    "histogram_share",
)
NO_AUGMENTATION = AugmentationSettings.model_validate(
    {f"{kind}_probability": 0.0 for kind in KINDS}
    | {f"{kind}_range": (1, 1) for kind in RANGES}
    | {"rotation_deg": 0, "mirror_axes": (), "foreground_fraction": 0.5}
)
TINY_NETWORK = {
    "base_channels": 4,
    "levels": 2,
    "block_list": (1, 2),
    "num_blocks": (1, 1),
    "num_heads": (1, 1),
    "reduce_size": 2,
}


def with_labels(plan: Plan, labels: dict[str, int]) -> Plan:
    """The same plan with other labels."""
    preprocessing = plan.preprocessing.model_copy(update={"labels": labels})
    return plan.model_copy(update={"preprocessing": preprocessing})


def make_plan(**changes: Any) -> Plan:
    """changes: values of the plan or of its preprocessing, by name; of its augmentation `mirror_axes`; settings of the network."""
    preprocessing = {
        "labels": LABELS,
        "channel_names": ("channel 0",),
        "spacing_yx_mm": (1.25, 1.25),
        "clip_percentiles": (0.0, 100.0),
    }
    preprocessing |= {key: changes.pop(key) for key in Preprocessing.model_fields.keys() & changes.keys()}
    preprocessing.setdefault("normalisation", ("z-score",) * len(preprocessing["channel_names"]))
    values: dict[str, Any] = {
        "dataset": "Tiny",
        "planner": "auto",
        "fingerprint_sha256": "0" * 64,
        "preprocessing": Preprocessing(**preprocessing),
        "patch_size": (32, 32),
        "batch_size": 4,
        "epochs": 1,
        "iterations_per_epoch": 1,
        "estimated_memory_gb": 0.1,
        "memory_gb": 8.0,
        "network_name": "UTNet",
        "network": TINY_NETWORK | changes.pop("network", {}),
        "augmentation": NO_AUGMENTATION.model_copy(update={"mirror_axes": changes.pop("mirror_axes", ())}),
        "reasons": {},
    }
    return Plan(**(values | changes))
