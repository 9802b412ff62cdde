"""A home with cross-validated tiny models whose weights are random: raw data, splits, run folders, validated as training does."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rawfiles import make_nnunet
from tiny_models import make_run_folder

from utseg.compute.pool import InlineExecutor
from utseg.evaluate.score import evaluate_cases
from utseg.predict import pipeline
from utseg.predict.model import load_model
from utseg.predict.pipeline import predict_cases
from utseg.preprocess.splits import make_splits, select_cases, write_splits
from utseg.rawdata import open_dataset
from utseg.training.record import read_run, read_weights, write_run, write_weights

FOLDS = 2
SUBJECTS = 4


def make_folds(
    home: Path,
    models: Sequence[str] = ("UNet", "UTNet"),
    folds: int = FOLDS,
    subjects: int = SUBJECTS,
    **plan: Any,
) -> Path:
    """raw/Tiny, preprocessed/Tiny/splits.json, and finished folds of the models below results/Tiny/auto_2d."""
    dataset = open_dataset(make_nnunet(home / "raw" / "Tiny", subjects=subjects, size_zyx=(3, 34, 32)))
    preprocessed = home / "preprocessed" / "Tiny"
    preprocessed.mkdir(parents=True)
    write_splits(make_splits(dataset.training_cases(), folds=folds), preprocessed)
    for seed, model in enumerate(models):
        for fold in range(folds):
            add_fold(home, model, fold, seed=10 * seed + fold, **plan)
    return home


def add_fold(home: Path, model: str, fold: int, *, seed: int = 0, planner: str = "auto", **plan: Any) -> Path:
    """One finished fold. `plan`: values of its plan that differ from `make_plan`'s."""
    dataset = open_dataset(home / "raw" / "Tiny")
    splits = json.loads((home / "preprocessed" / "Tiny" / "splits.json").read_text())
    plan = {"channel_names": ("channel 0",), "planner": planner} | plan
    folder = make_run_folder(home / "results" / "Tiny", model, f"fold{fold}", seed, **plan)
    # Without biases the labels of random weights vary within an image, so that masks and their means differ.
    weights = {name: value * (not name.endswith("bias")) for name, value in read_weights(folder).items()}
    write_weights(weights, folder)
    training, validation = select_cases(f"fold{fold}", dataset.training_cases(), splits)
    record = read_run(folder).model_copy(update={"training_cases": training, "validation_cases": validation})
    write_run(record, folder)
    cases = [case for case in dataset.training_cases() if case.case_id in validation]
    validation_folder = folder / "validation"
    with pytest.MonkeyPatch.context() as patch, InlineExecutor() as executor:
        patch.setattr(pipeline, "WITHOUT_POOL", 100)
        predict_cases(cases, [load_model(folder, torch.device("cpu"))], validation_folder)
        evaluate_cases(
            cases, validation_folder, record.plan.preprocessing.labels, validation_folder, executor=executor
        )
    return folder


def validated_in(run: Path, precision: str) -> None:
    """Has a run's validation say that it computed in another precision."""

    def change(record: dict[str, Any]) -> None:
        record["models"][0]["precision"] = precision

    edit_json(run / "validation" / "prediction.json", change)


def edit_json(path: Path, change) -> None:
    """Rewrites a JSON file after `change` has been at its content."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
