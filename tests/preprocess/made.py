"""Loaded cases, plans and small preprocessed datasets for the tests of preprocessing."""

from typing import Any

import numpy as np
from rawfiles import make_affine, make_heart

from utseg.case import Case
from utseg.planning.plan import AugmentationSettings, NetworkSettings, Plan
from utseg.rawdata.gate import Geometry, LoadedCase

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
AUGMENTATION: dict[str, Any] = {
    "rotation_deg": 0,
    "mirror_axes": (),
    "foreground_fraction": 0.5,
    **{
        f"{kind}_probability": 0 for kind in ("rotation", "scale", "noise", "brightness", "contrast", "gamma")
    },
    **dict.fromkeys(
        ("scale_range", "noise_sd_range", "brightness_range", "contrast_range", "gamma_range"), (1, 1)
    ),
}
NETWORK: dict[str, Any] = {
    "base_channels": 4,
    "levels": 2,
    "block_list": (1, 2),
    "num_blocks": (1, 1),
    "num_heads": (1, 1),
    "reduce_size": 2,
}


def make_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "dataset": "Heart",
        "planner": "auto",
        "labels": LABELS,
        "channel_names": ("channel 0",),
        "fingerprint_sha256": "0" * 64,
        "spacing_yx_mm": (1.4, 1.4),
        "clip_percentiles": (5, 98),
        "patch_size": (32, 32),
        "batch_size": 4,
        "epochs": 1,
        "iterations_per_epoch": 1,
        "estimated_memory_gb": 0.1,
        "network": NetworkSettings(**NETWORK),
        "augmentation": AugmentationSettings(**AUGMENTATION),
        "reasons": {"patch_size": "small"},
    }
    return Plan(**(values | changes))


def make_loaded(
    image: np.ndarray | None = None,
    label: np.ndarray | None = None,
    spacing_zyx_mm: tuple[float, float, float] = (8.0, 1.5, 1.25),
    case_id: str = "s00_ED",
    **case: Any,
) -> LoadedCase:
    """A case as it comes out of the gate; without arrays, a ring with a crescent."""
    if image is None:
        image, label = make_heart()
    image_CZYX = np.asarray(image, dtype=np.float32).reshape(-1, *image.shape[-3:])
    affine = make_affine(spacing_zyx_mm, angles=(0.2, -0.3, 0.1))
    geometry = Geometry(image.shape[-3:], tuple(map(tuple, affine.tolist())), b"header")
    return LoadedCase(
        Case(case_id, case.pop("subject", case_id[:3]), (), **case), image_CZYX, label, geometry
    )


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    size = (a == value).sum() + (b == value).sum()
    return float(2 * ((a == value) & (b == value)).sum() / size) if size else 1.0


def one_hot(label_ZYX: np.ndarray, classes: int = 4) -> np.ndarray:
    return (label_ZYX == np.arange(classes)[:, None, None, None]).astype(np.float32)
