"""`utseg_predict` follows `best.json` where no model is named: its members, its postprocessing, on record; and when it does not."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_folds import edit_json

from utseg.commands.predict import main
from utseg.errors import SettingError
from utseg.postprocess import FillHoles, KeepLargestOfLabel, Postprocessing, postprocess
from utseg.predict.pipeline import predict_cases
from utseg.selection import read_best

RULES = Postprocessing(rules=(KeepLargestOfLabel(label="RV"), FillHoles(label="RV")))


@pytest.fixture(scope="module")
def both(chosen, tmp_path_factory) -> Path:
    """A home with a best.json: both networks together, and rules that change masks of random weights."""
    home = Path(shutil.copytree(chosen, tmp_path_factory.mktemp("best") / "home"))
    best = read_best(home / "results/Tiny")
    every = sorted(path.parent for path in (home / "results/Tiny").glob("auto_2d/*/fold*/run.json"))
    known = {member.run: member for member in best.members}

    def change(value):
        value["members"] = [
            known[name].model_dump() if name in known else {"run": name, "weights_sha256": sha(folder)}
            for folder in every
            for name in ["/".join(folder.parts[-3:])]
        ]
        value["postprocessing"] = json.loads(RULES.model_dump_json())

    edit_json(home / "results/Tiny/best.json", change)
    return home


def sha(folder: Path) -> str:
    from utseg.files import sha256

    return sha256(folder / "model.safetensors")


@pytest.fixture()
def predict(both, tmp_path, capfd):
    """Runs the command on the raw cases, in this process; exit code, error lines, all output."""

    def call(*words: object, home: Path = both, out: str = "out") -> tuple[int, list[str], str]:
        source = home / "raw" / "Tiny"
        arguments = ["-i", source, "-o", tmp_path / out, "--home", home, "--device", "cpu", *words]
        code = main([str(word) for word in arguments])
        captured = capfd.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, errors, captured.out + captured.err

    return call


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nibabel.load(path).dataobj).T for path in sorted(folder.glob("*.nii.gz"))}


def test_without_a_model_the_best_ones_predict_and_masks_are_postprocessed(predict, both, tmp_path):
    code, errors, output = predict("--save-probabilities")
    assert (code, errors) == (0, [])
    assert (
        "best.json says" in output and "largest component of RV, holes of RV filled in each slice" in output
    )
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert len(record["models"]) == 4
    assert Postprocessing.model_validate(record["postprocessing"]) == RULES
    labels = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
    changed = 0
    verdicts = record["cases"]
    for name, mask in masks(tmp_path / "out").items():
        with np.load(tmp_path / "out" / name.replace(".nii.gz", ".npz"), allow_pickle=False) as arrays:
            probabilities = arrays["probabilities"]
        likeliest = probabilities.argmax(0).astype(np.uint8)
        for label, dice in verdicts[name.removesuffix(".nii.gz")]["quality"]["expected_dice"].items():
            own, p = mask == labels[label], probabilities[labels[label]].astype(float)
            by_hand = 2 * p[own].sum() / (p.sum() + own.sum()) if own.any() else None
            same = np.array_equal(mask, likeliest)  # then it is judged on the network's grid
            assert dice == (None if by_hand is None else pytest.approx(by_hand, abs=0.02 if same else 6e-5))
        np.testing.assert_array_equal(mask, postprocess(likeliest, RULES, labels))
        changed += not np.array_equal(mask, likeliest)
    assert changed


def test_a_named_model_or_fold_overrides_it_and_that_is_said(predict, tmp_path):
    code, _, output = predict("-m", "UNet", "-f", "fold1")
    assert code == 0
    assert "best.json is not followed: models are chosen by -m, -f" in output
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert [model["name"] for model in record["models"]] == ["Tiny/auto_2d/UNet/fold1"]
    assert record["postprocessing"]["rules"] == []


def test_masks_of_another_postprocessing_are_not_kept(predict, both, tmp_path):
    words = ("-m", "UNet", "UTNet")
    assert predict(*words)[0] == 0
    plain = masks(tmp_path / "out")
    code, _, output = predict("--resume")
    assert code == 0
    assert "0 masks there and verified, 8 to be made" in output
    after = masks(tmp_path / "out")
    assert any(not np.array_equal(after[name], plain[name]) for name in plain)
    assert "8 masks there and verified, 0 to be made" in predict("--resume")[2]


def test_a_member_that_was_trained_again_is_one_clear_error(predict, both, tmp_path):
    home = Path(shutil.copytree(both, tmp_path / "home"))
    weights = home / "results/Tiny/auto_2d/UTNet/fold0/model.safetensors"
    shutil.copy(home / "results/Tiny/auto_2d/UTNet/fold1/model.safetensors", weights)
    code, errors, _ = predict(home=home)
    assert code == 1
    assert len(errors) == 1
    assert "best.json: its member auto_2d/UTNet/fold0 has other weights" in errors[0]
    assert "run utseg_find_best_configuration again, or choose with -m" in errors[0]
    shutil.rmtree(weights.parent)
    code, errors, _ = predict(home=home)
    assert code == 1 and len(errors) == 1
    assert "is not there any more" in errors[0]
    assert predict("-m", "UTNet", home=home)[0] == 0


def test_a_damaged_choice_names_the_file_and_the_key(predict, both, tmp_path):
    home = Path(shutil.copytree(both, tmp_path / "home"))
    edit_json(home / "results/Tiny/best.json", lambda value: value.update(postprocesing={}))
    code, errors, _ = predict(home=home)
    assert code == 1
    assert len(errors) == 1
    assert "best.json: unknown key 'postprocesing'; did you mean 'postprocessing" in errors[0]


def test_rules_for_labels_that_the_models_lack_are_refused_before_anything_is_predicted(tmp_path):
    from tiny_models import band_model

    rules = Postprocessing(rules=(KeepLargestOfLabel(label="kidney"),))
    with pytest.raises(SettingError, match="'kidney'; labels there: LV, MYO, RV"):
        predict_cases([], [band_model()], tmp_path / "out", postprocessing=rules)
