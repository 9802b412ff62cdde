"""A tiny preprocessed dataset and requests to train on it, in well under a second an epoch."""

from functools import partial
from pathlib import Path
from typing import Any

import plans
from rawfiles import make_nnunet

from utseg.compute.pool import InlineExecutor
from utseg.fingerprint import make_fingerprint
from utseg.planning.plan import write_plan
from utseg.preprocess.run import preprocess_dataset
from utseg.preprocess.slices import SliceStore
from utseg.preprocess.splits import make_splits, write_splits
from utseg.rawdata import open_dataset
from utseg.training.request import TrainRequest

AUGMENTATION = plans.NO_AUGMENTATION.model_copy(
    update={
        "rotation_deg": 20,
        "scale_range": (0.9, 1.1),
        "noise_sd_range": (0, 0.1),
        "brightness_range": (0.9, 1.1),
        "contrast_range": (0.9, 1.1),
        "gamma_range": (0.8, 1.2),
    }
    | {f"{kind}_probability": 0.5 if kind in ("rotation", "scale") else 0.3 for kind in plans.KINDS[:6]}
)
make_plan = partial(
    plans.make_plan,
    planner="tiny",
    spacing_yx_mm=(1.5, 1.25),
    epochs=4,
    iterations_per_epoch=5,
    network={"reduce_size": 4},
    augmentation=AUGMENTATION,
)


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
