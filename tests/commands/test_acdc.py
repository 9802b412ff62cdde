"""ACDC's own layout through the commands: planned, predicted, scored, and refused in a line where it is wrong."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rawfiles import ACDC_LABELS, make_acdc

from utseg.commands import evaluate, plan_and_preprocess, predict
from utseg.predict import pipeline


@pytest.fixture
def home(tmp_path, tiny_model):
    shutil.copytree(tiny_model, tmp_path, dirs_exist_ok=True)
    folder = make_acdc(tmp_path / "raw" / "ACDC", subjects=2, size_zyx=(4, 30, 28))
    make_acdc(folder, place="testing", subjects=1, first=3, labelled=False, size_zyx=(4, 30, 28))
    return tmp_path


@pytest.fixture
def run(home, capfd, monkeypatch):
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 20)

    def call(command, *words: object) -> tuple[int, str, str]:
        code = command.main([str(word) for word in (*words, "--home", home)])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


def test_it_is_planned_with_its_own_labels(run, home):
    code, out, errors = run(plan_and_preprocess, "-d", "ACDC", "-pl", "cpu", "-m", "UNet", "-np", 1)
    assert (code, errors) == (0, "")
    assert "ACDC: 4 cases of 2 subjects to train on; pathology DCM 1, NOR 1; phase ED 2, ES 2" in out
    plan = json.loads((home / "preprocessed" / "ACDC" / "cpu_2d" / "plan.json").read_text())
    assert plan["preprocessing"]["labels"] == ACDC_LABELS
    fingerprint = json.loads((home / "preprocessed" / "ACDC" / "fingerprint.json").read_text())
    assert fingerprint["layout"] == "acdc"
    for case in fingerprint["cases"]:
        name = f"{case['subject']}_frame{'01' if case['phase'] == 'ED' else '03'}_gt.nii.gz"
        label = nib.load(home / "raw" / "ACDC" / "training" / case["subject"] / name)
        voxel_ml = float(np.prod(label.header.get_zooms())) / 1000
        counted = np.bincount(np.asarray(label.dataobj).ravel().astype(int), minlength=4)
        for structure, value in (("RV", 1), ("MYO", 2), ("LV", 3)):
            assert case["labels"][structure]["volume_ml"] == pytest.approx(counted[value] * voxel_ml)


@pytest.mark.parametrize(
    ("part", "masks"),
    [
        ("", {f"patient{n:03d}_{phase}" for n in (1, 2, 3) for phase in ("ED", "ES")}),
        ("testing", {"patient003_ED", "patient003_ES"}),
        ("training/patient002", {"patient002_ED", "patient002_ES"}),
        ("training/patient002/patient002_4d.nii.gz", {"patient002_4d"}),
    ],
)
def test_all_of_it_or_a_part_is_predicted(run, home, part, masks):
    code, _, errors = run(predict, "-i", home / "raw" / "ACDC" / part, "-o", home / "out", "--device", "cpu")
    assert code == 0 and "error" not in errors, errors
    assert {path.name.removesuffix(".nii.gz") for path in (home / "out").glob("*.nii.gz")} == masks


def test_a_patient_with_the_cine_alone_is_predicted_frame_by_frame(run, home):
    patient = home / "raw" / "ACDC" / "testing" / "patient003"
    for path in (*patient.glob("*frame*"), patient / "Info.cfg"):
        path.unlink()
    for place, out in ((patient.parent, "a"), (patient, "b")):
        code, _, errors = run(predict, "-i", place, "-o", home / out, "--device", "cpu")
        assert code == 0 and "error" not in errors, errors
        assert nib.load(home / out / "patient003.nii.gz").shape == (28, 30, 4, 4)


@pytest.mark.parametrize("references", ["", "training", "training/patient001"])
def test_masks_are_scored_against_it(run, home, references):
    (home / "out").mkdir()
    for number in (1, 2):
        for phase, frame in (("ED", "01"), ("ES", "03")):
            name = f"patient{number:03d}"
            label = home / "raw" / "ACDC" / "training" / name / f"{name}_frame{frame}_gt.nii.gz"
            shutil.copy(label, home / "out" / f"{name}_{phase}.nii.gz")
    words = ("-p", home / "out", "-g", home / "raw" / "ACDC" / references, "-o", home / "scores", "-np", 1)
    code, _, errors = run(evaluate, *words, "--only-referenced")
    assert code == 0, errors
    summary = json.loads((home / "scores" / "summary.json").read_text())
    assert summary["all"]["mean_dice"] == 1 and set(summary["all"]["labels"]) == {"RV", "MYO", "LV"}
    assert summary["all"]["cases"] == (2 if "patient001" in references else 4)


@pytest.mark.parametrize("command", ["plan", "predict", "evaluate"])
def test_what_is_wrong_is_a_line_for_each_patient(run, home, command):
    folder = home / "raw" / "ACDC"
    (folder / "training" / "patient001" / "Info.cfg").unlink()
    (folder / "training" / "patient002" / "patient002_frame03.nii.gz").unlink()
    calls = {
        "plan": (plan_and_preprocess, "-d", "ACDC", "--dry-run"),
        "predict": (predict, "-i", folder, "-o", home / "out", "--device", "cpu"),
        "evaluate": (evaluate, "-p", home / "out", "-g", folder, "-o", home / "scores"),
    }
    code, _, errors = run(*calls[command])
    first, second = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert f"{Path('patient001') / 'Info.cfg'}: not found; expected lines such as ED: 1" in first
    assert (
        "patient002_frame03.nii.gz: not found, but Info.cfg says ES: 3 (counted from 1); found Info.cfg, "
        in second
    )
    assert not (home / "out").exists() and not (home / "scores").exists()
