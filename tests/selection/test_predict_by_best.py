"""`utseg_predict` follows `best.json` where no model is named: its members, its postprocessing, on record; and when it does not."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_folds import edit_json

from utseg.archive import import_model
from utseg.commands.export_model import main as export
from utseg.commands.import_model import main as import_
from utseg.commands.predict import main
from utseg.errors import InputError, SettingError
from utseg.postprocess import FillHoles, KeepLargestOfLabel, Postprocessing, postprocess
from utseg.predict.pipeline import predict_cases
from utseg.selection import read_best
from utseg.steps.model import load_model

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
        value["augmentation"] = {"chosen": {"mirror_axes": ["x"]}, "why": "made", "subjects": ["p0"]}

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


@pytest.fixture(scope="module")
def archive(both, tmp_path_factory) -> Path:
    """What best.json chose, as a zip."""
    path = tmp_path_factory.mktemp("archive") / "model.zip"
    assert export(["-d", "Tiny", "-o", str(path), "--home", str(both), "--quiet"]) == 0
    return path


def test_what_was_chosen_travels_and_predicts_the_same_bytes(predict, both, archive, tmp_path, capfd):
    home = tmp_path / "clean"
    assert import_([str(archive), "--home", str(home)]) == 0
    assert import_([str(archive), "--home", str(home)]) == 1
    said = capfd.readouterr().err
    assert "there already, with 4 runs; Tiny/best.json: there already; it says which of your models" in said
    assert import_([str(archive), "--home", str(home), "--force"]) == 0
    image = sorted((both / "raw/Tiny/imagesTr").iterdir())[0]
    calls = {"here": (both, ()), "imported": (home, ()), "zip": (home, ("--model", archive))}
    found = {}
    for out, (place, words) in calls.items():
        code, errors, output = predict(*words, "-i", image, home=place, out=out)
        assert (code, errors) == (0, []) and "best.json says" in output
        record = json.loads((tmp_path / out / "prediction.json").read_text())
        record = {key: record[key] for key in ("models", "postprocessing", "test_time_augmentation")}
        found[out] = record, {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.nii.gz")}
    assert len(found["here"][1]) == 1 and found["imported"] == found["zip"] == found["here"]
    plain = predict("--model", archive, "-f", "fold0", "-i", image, out="plain")
    assert plain[0] == 0 and "best.json is not followed: models are chosen by -f" in plain[2]
    other = {path.name: path.read_bytes() for path in (tmp_path / "plain").glob("*.nii.gz")}
    assert other != found["here"][1]
    model = load_model(archive, device="cpu")
    assert model.postprocessing == RULES
    assert model.test_time_augmentation == read_best(home / "results/Tiny").augmentation.chosen


def test_the_choice_in_an_archive_names_nobody_and_is_on_the_card(both, archive, tmp_path):
    with zipfile.ZipFile(archive) as content:
        files = {name: content.read(name) for name in content.namelist()}
    assert "holes of RV filled in each slice" in files["MODEL_CARD.md"].decode()
    compared = read_best(both / "results/Tiny").compared.folds
    names = {subject for fold in compared.values() for subject in fold}
    assert names and not any(json.dumps(name).encode() in files["best.json"] for name in names)
    assert str(both).encode() not in files["best.json"]
    again = tmp_path / "again.zip"
    import_model(archive, tmp_path / "home" / "results")
    assert export(["-o", str(again), "--home", str(tmp_path / "home"), "--quiet"]) == 0
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"members": []}, "its members are not"),
        ({"labels": {"background": 0, "LV": 1}}, "its labels are not"),
        (
            {"postprocessing": {"rules": [{"rule": "fill_holes", "label": "kidney"}]}},
            "names the label 'kidney'",
        ),
        ({"postprocessing": {"rules": [{"rule": "keep_largest"}] * 1000}}, "rules or views"),
        ({"evil": 1}, "unknown key 'evil'"),
    ],
)
def test_a_choice_that_is_not_that_of_the_archive_is_refused(archive, tmp_path, change, words):
    with zipfile.ZipFile(archive) as content:
        files = {name: content.read(name) for name in content.namelist()}
    data = json.dumps(json.loads(files["best.json"]) | change).encode()
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["best.json"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files |= {"best.json": data, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        for name, content in files.items():
            evil.writestr(name, content)
    with pytest.raises(InputError, match=words):
        import_model(tmp_path / "evil.zip", tmp_path / "results")
    assert not (tmp_path / "results").exists()


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
