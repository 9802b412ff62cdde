"""A tiny preprocessed dataset and requests to train on it, in well under a second an epoch."""

from pathlib import Path
from typing import Any

from rawfiles import make_nnunet

from utseg.compute.pool import InlineExecutor
from utseg.fingerprint import make_fingerprint
from utseg.planning.plan import AugmentationSettings, NetworkSettings, Plan, write_plan
from utseg.preprocess.run import preprocess_dataset
from utseg.preprocess.slices import SliceStore
from utseg.preprocess.splits import make_splits, write_splits
from utseg.rawdata import open_dataset
from utseg.training.request import TrainRequest

AUGMENTATION = AugmentationSettings(
    rotation_deg=20,
    rotation_probability=0.5,
    scale_range=(0.9, 1.1),
    scale_probability=0.5,
    noise_sd_range=(0, 0.1),
    noise_probability=0.3,
    brightness_range=(0.9, 1.1),
    brightness_probability=0.3,
    contrast_range=(0.9, 1.1),
    contrast_probability=0.3,
    gamma_range=(0.8, 1.2),
    gamma_probability=0.3,
    mirror_axes=(),
    foreground_fraction=0.5,
)
NETWORK = NetworkSettings(
    base_channels=4, levels=2, block_list=(1, 2), num_blocks=(1, 1), num_heads=(1, 1), reduce_size=4
)


def make_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "dataset": "Tiny",
        "planner": "tiny",
        "labels": {"background": 0, "LV": 1, "MYO": 2, "RV": 3},
        "channel_names": ("channel 0",),
        "fingerprint_sha256": "0" * 64,
        "spacing_yx_mm": (1.5, 1.25),
        "clip_percentiles": (0.0, 100.0),
        "patch_size": (32, 32),
        "batch_size": 4,
        "epochs": 4,
        "iterations_per_epoch": 5,
        "estimated_memory_gb": 0.1,
        "network": NETWORK,
        "augmentation": AUGMENTATION,
        "reasons": {},
    }
    return Plan(**(values | changes))


def make_home(home: Path, **changes: Any) -> Path:
    """raw/Tiny, preprocessed/Tiny with splits and one plan."""
    dataset = open_dataset(make_nnunet(home / "raw" / "Tiny", subjects=5, size_zyx=(4, 36, 32)))
    preprocessed = home / "preprocessed" / "Tiny"
    plan = make_plan(**changes)
    folder = preprocessed / plan.folder_name
    folder.mkdir(parents=True)
    with InlineExecutor() as executor:
        fingerprint = make_fingerprint(dataset, executor)
        write_plan(plan, folder)
        preprocess_dataset(dataset, plan, folder, fingerprint, executor)
    store = SliceStore(folder)
    write_splits(make_splits([store.case_record(case) for case in store.case_ids()]), preprocessed)
    return home


def make_request(home: Path, output: Path | None = None, **changes: Any) -> TrainRequest:
    values: dict[str, Any] = {
        "model": "UTNet",
        "selection": "fold0",
        "raw": home / "raw" / "Tiny",
        "preprocessed": home / "preprocessed" / "Tiny",
        "plan_folder": home / "preprocessed" / "Tiny" / "tiny_2d",
        "output": output or home / "results" / "Tiny" / "tiny_2d" / "UTNet" / "fold0",
        "device": "cpu",
    }
    return TrainRequest(**(values | changes))
