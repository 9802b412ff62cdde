"""`utseg_find_best_configuration` where models number the labels otherwise: the same choice, by name; else refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plans import with_labels
from rawfiles import change_json, change_voxels

from utseg.commands.find_best_configuration import main
from utseg.predict.model import load_model
from utseg.predict.pipeline import predict_cases
from utseg.rawdata import open_dataset
from utseg.selection import Best, read_best
from utseg.training.record import read_run, read_weights, write_run, write_weights

ACDC = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
ORDER = [0, 3, 2, 1]


def find(home: Path) -> Best:
    assert main(["--home", str(home), "--device", "cpu", "-np", "1", "--tta-subjects", "2", "--quiet"]) == 0
    return read_best(home / "results/Tiny")


def renumber_model(home: Path, model: str, labels: dict[str, int]) -> None:
    """The same model with the rows of its heads in another order, validated again."""
    for folder in (home / "results/Tiny/auto_2d" / model).glob("fold*"):
        weights = read_weights(folder)
        heads = {name: value[ORDER] for name, value in weights.items() if name.startswith("heads.")}
        write_weights(weights | heads, folder)
        record = read_run(folder)
        plan = with_labels(record.plan, labels)
        write_run(record.model_copy(update={"plan": plan}), folder)
        cases = open_dataset(home / "raw/Tiny").cases
        held_back = [case for case in cases if case.case_id in record.validation_cases]
        predict_cases(held_back, [load_model(folder, torch.device("cpu"))], folder / "validation")


def test_the_choice_does_not_depend_on_the_numbering(home):
    before = find(home)
    renumber_model(home, "UNet", ACDC)
    after = find(home)
    assert (after.chosen, after.mean_dice) == (before.chosen, pytest.approx(before.mean_dice, abs=1e-4))
    for one, other in zip(before.candidates, after.candidates, strict=True):
        assert other.name == one.name and other.labels == pytest.approx(one.labels, abs=1e-4)
    assert any(abs(one.labels["LV"] - one.labels["RV"]) > 0.01 for one in before.candidates)


def test_raw_data_that_were_numbered_anew_are_refused_for_the_folds_saw_others(home, capfd):
    for path in (home / "raw/Tiny/labelsTr").iterdir():
        change_voxels(path, lambda voxels: np.array(ORDER, np.uint8)[voxels.astype(int)])
    change_json(home / "raw/Tiny/dataset.json", labels=ACDC)
    assert main(["--home", str(home), "--device", "cpu", "--quiet"]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "labelsTr/s" in line and "changed since" in line and "train again with --overwrite" in line


def test_models_with_other_names_are_refused(home, capfd):
    renumber_model(home, "UNet", {"background": 0, "LV": 1, "MYO": 2, "scar": 3})
    assert main(["--home", str(home), "--device", "cpu", "--quiet"]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "labels do not match by name: " in line and "no counterpart for scar, RV" in line
