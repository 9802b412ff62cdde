"""What `utseg_train` predicts and scores: the model at the end of its schedule, and finished runs again, with --validate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_runs import make_home

from utseg.commands.predict import main as predict_main
from utseg.commands.train import main
from utseg.evaluate.records import read_metrics
from utseg.files import sha256
from utseg.training import checkpoint, loop
from utseg.training.processes import Processes
from utseg.training.record import is_finished, read_run, read_weights

SAVED_AT_ONCE = ("--set", "save_minutes=0.00001")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


def call(home, *words):
    return main([*map(str, words), "--home", str(home)])


class Kill(BaseException):
    """Ends a run at once, like SIGKILL: nothing in the program expects it."""


def test_validate_scores_a_finished_run_again(home, tmp_path, capsys):
    """With other settings than the plan's, which need not be said again, and from a plan edited since."""
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    words = ("2d", "fold0", "-m", "UNet", "--device", "cpu")
    settings = ("--epochs", 1, "--seed", 3, "--patience", 9, "--set", "optimizer.learning_rate=0.02")
    assert call(copy, *words, *settings, "batch_size=2", 'loss.class_weights={"RV": 2}') == 0
    folder = copy / "results/Tiny/tiny_2d/UNet/fold0"
    record = read_run(folder)
    assert record.patience == 9
    assert record.recipe["loss"]["class_weights"] == {"LV": 1.0, "MYO": 1.0, "RV": 2.0}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plan = copy / "preprocessed/Tiny/tiny_2d/plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"batch_size": 3}))
    lost, *others = folder.glob("validation/*.nii.gz")
    lost.unlink()
    old = [path.stat().st_mtime_ns for path in others]
    (folder / "validation/metrics.csv").write_text("")
    capsys.readouterr()
    assert call(copy, *words, "--validate", "--save-probabilities") == 0
    said = capsys.readouterr().out
    assert "resuming" not in said and "epoch 1/1" not in said
    assert "mean Dice of the validation subjects at native resolution" in said
    assert all(path.stat().st_mtime_ns != time_ns for path, time_ns in zip(others, old, strict=True))
    same = {path for path, content in before.items() if path.exists() and path.read_bytes() == content}
    record = folder / "validation/prediction.json"
    assert {path.name for path in before.keys() - same if "tfevents" not in path.name} == {record.name}
    cases = sorted(read_run(folder).validation_cases)
    assert sorted(path.stem for path in folder.glob("validation/*.npz")) == cases
    assert len(list(folder.glob("*.scores"))) == 1 and is_finished(folder)


def test_validate_refuses_what_it_cannot_validate(home, tmp_path, monkeypatch, capsys):
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    words = ("2d", "fold0", "-m", "UNet", "--device", "cpu")
    folder = copy / "results/Tiny/tiny_2d/UNet/fold0"

    def refused(*more):
        capsys.readouterr()
        assert call(copy, *words, *more) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "run utseg_train first" in refused("--validate") and not folder.exists()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "join_processes", lambda: Processes(size=2))
        assert call(copy, *words, "--validate") == 2
    assert "one process predicts; run it without torchrun" in capsys.readouterr().err
    original = loop.iterate

    def dying(run, state, batches):
        if state.iteration == 3:
            raise Kill
        original(run, state, batches)

    for saved in ((), SAVED_AT_ONCE):
        with monkeypatch.context() as patch, pytest.raises(Kill):
            patch.setattr(loop, "iterate", dying)
            call(copy, *words, "--epochs", 1, *saved)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert bool(saved) == (folder / "checkpoint_latest.pt").exists()
        assert "the command that started it goes on with it, with --resume" in refused("--validate")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert call(copy, *words, "--epochs", 1, *SAVED_AT_ONCE, "--resume") == 0
    splits = copy / "preprocessed/Tiny/splits.json"
    content = json.loads(splits.read_text())
    splits.write_text(json.dumps(content[::-1]))
    assert "cannot validate, the run was started otherwise" in refused("--validate")


@pytest.mark.parametrize("average", [0.0, 0.1])
def test_the_model_is_the_end_of_the_schedule_whatever_validation_found(
    home, tmp_path, monkeypatch, capsys, average
):
    """Validation finds each epoch worse than the one before; final scores are of the last weights, bit for bit."""
    original, found = loop.validate, []

    def worse_each_time(*words, **options):
        found.append(0.9 - 0.2 * len(found))
        return replace(original(*words, **options), dice=dict.fromkeys(("LV", "MYO", "RV"), found[-1]))

    monkeypatch.setattr(loop, "validate", worse_each_time)
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    words = ("-m", "UNet", "--epochs", 3, "--device", "cpu", "--set", f"weight_average={average}")
    assert call(copy, "2d", "fold0", *words) == 0
    said = capsys.readouterr().out
    assert "the model is that of the end of the schedule, epoch 3" in said
    assert "epoch 1 had the best Dice in validation, 0.900, and is in checkpoint_best.pt" in said
    folder = copy / "results/Tiny/tiny_2d/UNet/fold0"
    model, last = read_weights(folder), checkpoint.load_latest(folder)
    assert last["epoch"] == 3
    expected = last["average"]["network"] if average else last["network"]
    assert all(torch.equal(model[name], value) for name, value in expected.items())
    best = checkpoint.load(folder / "checkpoint_best.pt")
    assert best["epoch"] == 1
    assert not all(torch.equal(model[name], value) for name, value in best["network"].items())
    record = json.loads((folder / "validation/prediction.json").read_text())
    assert [one["weights_sha256"] for one in record["models"]] == [sha256(folder / "model.safetensors")]
    images, again = copy / "images", tmp_path / "again"
    images.mkdir()
    for case in record["cases"]:
        shutil.copy(copy / f"raw/Tiny/imagesTr/{case}_0000.nii.gz", images)
    predicted = predict_main(
        ["-i", str(images), "-o", str(again), "-m", "UNet", "--device", "cpu", "--home", str(copy)]
    )
    assert predicted == 0
    rows = read_metrics(folder / "validation/metrics.csv")
    for case in record["cases"]:
        paths = folder / "validation", again, copy / "raw/Tiny/labelsTr"
        validated, mask, label = (np.asarray(nibabel.load(path / f"{case}.nii.gz").dataobj) for path in paths)
        assert np.array_equal(validated, mask)
        for row in (row for row in rows if row["case"] == case):
            own, reference = (array == row["label"] for array in (mask, label))
            total = own.sum() + reference.sum()
            assert row["dice"] == pytest.approx(
                2 * (own & reference).sum() / total if total else np.nan, nan_ok=True
            )
