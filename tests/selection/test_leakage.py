"""A leak that is planted is seen: in the record of a run, in the splits, between models, and from the test set."""

import json
from pathlib import Path

import pytest
from made_folds import edit_json
from rawfiles import make_mnms

from utseg.commands.find_best_configuration import main
from utseg.errors import InputError
from utseg.preprocess.splits import read_splits
from utseg.rawdata import open_dataset
from utseg.selection.leakage import check_leakage
from utseg.selection.models import TrainedModel, find_models


def refused(home: Path, capfd) -> str:
    """The only error line of the command; nothing is chosen."""
    assert main(["--home", str(home), "--device", "cpu", "-np", "1"]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    assert not (home / "results/Tiny/best.json").exists()
    return lines[0]


def run_json(home: Path, model: str = "UTNet", fold: int = 0) -> Path:
    return home / f"results/Tiny/auto_2d/{model}/fold{fold}/run.json"


def plant(home: Path, **changes: str) -> None:
    """Adds a case to a list of a run's record."""

    def change(record):
        for key, case_id in changes.items():
            record[key].append(case_id)

    edit_json(run_json(home), change)


def subject_of(case_id: str) -> str:
    return case_id.split("_")[0]


def test_a_clean_home_is_not_refused(home):
    dataset = open_dataset(home / "raw" / "Tiny")
    trained = find_models(home / "results" / "Tiny")
    assert [model.name for model in trained] == ["auto_2d/UNet", "auto_2d/UTNet"]
    check_leakage(trained, dataset, read_splits(home / "preprocessed" / "Tiny"))


def test_a_validation_subject_that_trained_too(home, capfd):
    record = json.loads(run_json(home).read_text())
    leaked = record["validation_cases"][0]
    plant(home, training_cases=leaked)
    line = refused(home, capfd)
    assert f"subject {subject_of(leaked)} is among the training cases" in line
    assert "UTNet/fold0/run.json" in line


def test_weights_to_start_from_that_saw_a_validation_subject(home, capfd):
    initial = {"file": "model.safetensors", "sha256": "0" * 64, "tensors": 9, "saw": 2}
    edit_json(run_json(home), lambda record: record.update(initial_weights=initial))
    line = refused(home, capfd)
    assert "auto_2d/UTNet/fold0/run.json: training began from model.safetensors" in line
    assert "trained on 2 of the subjects that auto_2d/UTNet/fold0 holds back" in line


def test_the_other_phase_of_a_training_subject_is_a_leak_too(home, capfd):
    """ED trains, ES validates: another case, the same heart."""
    record = json.loads(run_json(home).read_text())
    moved = next(case for case in record["training_cases"] if case.endswith("_ES"))

    def change(value):
        value["training_cases"].remove(moved)
        value["validation_cases"].append(moved)

    edit_json(run_json(home), change)
    line = refused(home, capfd)
    assert f"subject {subject_of(moved)} is among the training cases" in line
    assert moved in line and moved.replace("_ES", "_ED") in line


def test_a_subject_on_both_sides_of_the_splits(home, capfd):
    splits = home / "preprocessed/Tiny/splits.json"
    leaked = json.loads(splits.read_text())[0]["validation"][0]
    edit_json(splits, lambda value: value[0]["training"].append(leaked))
    line = refused(home, capfd)
    assert leaked in line and "splits.json" in line


def test_splits_that_were_edited_after_training(home, capfd):
    splits = home / "preprocessed/Tiny/splits.json"
    first, second = (fold["validation"][0] for fold in json.loads(splits.read_text()))

    def swap(value):
        for fold in value:
            for side in fold:
                other = {first: second, second: first}
                fold[side] = [other.get(subject, subject) for subject in fold[side]]

    edit_json(splits, swap)
    line = refused(home, capfd)
    assert min(first, second) in line and "splits edited since" in line


def test_two_models_with_other_folds_cannot_be_compared(home, capfd):
    (home / "preprocessed/Tiny/splits.json").unlink()
    folds = [run_json(home, fold=fold) for fold in range(2)]
    one, two = (json.loads(path.read_text()) for path in folds)
    for path, own, other in ((folds[0], one, two), (folds[1], two, one)):
        own = own | {key: other[key] for key in ("training_cases", "validation_cases")}
        path.write_text(json.dumps(own))
    line = refused(home, capfd)
    assert "cannot be compared: subject s0" in line
    assert "auto_2d/UTNet and auto_2d/UNet" in line


def test_a_subject_held_back_twice(home, capfd):
    (home / "preprocessed/Tiny/splits.json").unlink()
    twice = json.loads(run_json(home, fold=1).read_text())["validation_cases"]

    def change(value):
        value["validation_cases"] = sorted({*value["validation_cases"], *twice})
        value["training_cases"] = []

    edit_json(run_json(home), change)
    line = refused(home, capfd)
    assert f"subject {subject_of(twice[0])} is held back there and in" in line


def test_a_case_that_the_dataset_does_not_have(home, capfd):
    plant(home, training_cases="s99_ED")
    assert "training case s99_ED is not in" in refused(home, capfd)


@pytest.mark.parametrize("side", ["training_cases", "validation_cases"])
def test_a_test_case_takes_no_part(made, tmp_path, side):
    """The dataset has a partition for testing; a run that lists a subject of it is refused."""
    raw = make_mnms(tmp_path / "raw", subjects=2, size_zyx=(3, 20, 20))
    make_mnms(raw, subjects=1, place="Testing", first=2, size_zyx=(3, 20, 20))
    dataset = open_dataset(raw)
    assert {case.partition for case in dataset.cases} == {"training", "testing"}
    run = find_models(made / "results" / "Tiny")[0].folds["fold0"]
    own = [case.case_id for case in dataset.training_cases()]
    test_case = next(case for case in dataset.cases if case.partition == "testing")

    def check(training: list[str], validation: list[str]) -> None:
        record = run.record.model_copy(
            update={"training_cases": tuple(training), "validation_cases": tuple(validation)}
        )
        folds = {"fold0": type(run)(run.folder, record, run.weights_sha256)}
        check_leakage([TrainedModel("auto_2d/UNet", folds)], dataset, None)

    check(own[:2], own[2:])
    with pytest.raises(
        InputError,
        match=f"subject {test_case.subject} is among the {side.split('_')[0]} cases.*testing partition",
    ):
        check(
            own[:2] + [test_case.case_id] * (side[0] == "t"), own[2:] + [test_case.case_id] * (side[0] == "v")
        )
