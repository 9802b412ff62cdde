"""From finished folds to `best.json`, as a command: what is compared, made, kept, chosen and written."""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from made_folds import FOLDS, SUBJECTS, add_fold, edit_json, validated_in

from utseg.commands.find_best_configuration import main
from utseg.errors import ArtefactError
from utseg.evaluate.records import read_metrics
from utseg.files import sha256
from utseg.predict.model import load_model
from utseg.predict.pipeline import predict_cases
from utseg.predict.record import read_record
from utseg.rawdata import open_dataset
from utseg.selection import best_runs, masks, read_best
from utseg.training.record import read_run

NAMES = ("auto_2d/UNet", "auto_2d/UTNet")


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """Cases in parts of two, joined and scored in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "CASES_AT_ONCE", 2)
        patch.setattr("utseg.selection.find.INLINE", 100)
        yield


def find(home: Path, *words: object) -> int:
    return main([*map(str, words), "--home", str(home), "--device", "cpu", "-np", "1"])


def results(home: Path) -> Path:
    return home / "results" / "Tiny"


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T


def test_all_models_and_pairs_are_compared_on_all_subjects(chosen):
    best = read_best(results(chosen))
    assert {one.name for one in best.candidates} == {*NAMES, " + ".join(NAMES)}
    assert best.compared.subjects == SUBJECTS
    assert sorted(best.compared.folds) == [f"fold{number}" for number in range(FOLDS)]
    assert best.compared.lacking == {}
    assert best.chosen in {one.name for one in best.candidates if one.tied}
    pair = next(one for one in best.candidates if len(one.models) == 2)
    singles = [one for one in best.candidates if len(one.models) == 1]
    assert pair.members == sum(one.members for one in singles) == 2 * FOLDS
    assert pair.gmac == pytest.approx(sum(one.gmac for one in singles))
    assert best.command == f"utseg_predict -i INPUT -o OUTPUT -d Tiny --home {chosen}"


def test_four_subjects_choose_the_cheapest_without_postprocessing(chosen):
    best = read_best(results(chosen))
    cheapest = min(best.candidates, key=lambda one: one.gmac)
    assert best.why == f"4 subjects are too few to tell models apart: the cheapest, {cheapest.name}, is taken"
    assert best.chosen == cheapest.name and best.tie and all(one.tied for one in best.candidates)
    assert best.postprocessing.rules == ()
    assert "the subjects that it was chosen on" in best.scored_on


def test_single_scores_are_those_of_the_validation(chosen):
    best = read_best(results(chosen))
    for one in best.candidates:
        if len(one.models) == 2:
            continue
        rows = [
            row
            for fold in range(FOLDS)
            for row in read_metrics(results(chosen) / one.name / f"fold{fold}" / "validation" / "metrics.csv")
        ]
        for label, mean in one.labels.items():
            values = np.array([row["dice"] for row in rows if row["label_name"] == label])
            assert mean == pytest.approx(np.nanmean(values), abs=1e-6)
        cases: dict[str, list[float]] = {}
        for row in rows:
            cases.setdefault(row["case"], []).append(row["dice"])
        assert one.mean_dice == pytest.approx(
            np.mean([np.nanmean(values) for values in cases.values()]), abs=1e-6
        )
        assert one.undefined == sum(np.isnan(row["dice"]) for row in rows)


def test_a_pair_is_what_both_folds_predict_together(chosen, tmp_path):
    cases = {case.case_id: case for case in open_dataset(chosen / "raw" / "Tiny").cases}
    folders = [results(chosen) / name / "fold1" for name in NAMES]
    own = [cases[case_id] for case_id in read_run(folders[0]).validation_cases]
    together = predict_cases(
        own, [load_model(folder, torch.device("cpu")) for folder in folders], tmp_path / "out"
    )
    made = results(chosen) / "selection/pairs/auto_2d-UNet+auto_2d-UTNet/fold1"
    for case, path in zip(own, together, strict=True):
        assert (
            mask_of(made / f"{case.case_id}.nii.gz") == mask_of(path)
        ).mean() > 0.999  # rounding moves a tie
    assert {model.weights_sha256 for model in read_record(made).models} == {
        sha256(folder / "model.safetensors") for folder in folders
    }


def test_nothing_but_masks_stays_on_disk(chosen):
    selection = results(chosen) / "selection"
    assert not list(selection.rglob("*.npz"))
    assert {path.name for path in selection.iterdir()} == {"pairs", ".lock"}


def test_a_second_time_nothing_is_predicted_and_the_same_is_written(chosen, monkeypatch, capfd):
    before = (results(chosen) / "best.json").read_bytes()
    monkeypatch.setattr("utseg.predict.pipeline.predict_cases", None)
    assert find(chosen, "-d", "Tiny") == 0
    assert (results(chosen) / "best.json").read_bytes() == before
    output = capfd.readouterr().out
    for words in (
        "mean Dice over 4 out-of-fold subjects",
        "scored on the subjects that it was chosen on, so a little too good",
        "4 subjects are too few to tell models apart",
        "postprocessing",
        "why: ",
        "to predict: utseg_predict",
    ):
        assert words in output
    assert f"* {read_best(results(chosen)).chosen}" in output


def test_an_unknown_device_is_refused_even_where_nothing_is_to_be_predicted(chosen, capfd):
    assert main(["-d", "Tiny", "--home", str(chosen), "--device", "nonsense"]) == 2
    assert "--device nonsense" in capfd.readouterr().err


def test_single_models_only(chosen, monkeypatch):
    before = (results(chosen) / "best.json").read_bytes()
    monkeypatch.setattr("utseg.selection.find.make_pairs", None)
    try:
        assert find(chosen, "-m", "UNet", "--quiet") == 0
        best = read_best(results(chosen))
        assert [one.name for one in best.candidates] == ["auto_2d/UNet"]
        assert "nothing else was there" in best.why
        assert find(chosen, "--no-pairs", "--quiet") == 0
        assert len(read_best(results(chosen)).candidates) == 2
    finally:
        (results(chosen) / "best.json").write_bytes(before)


def test_members_that_changed_or_went_make_it_useless(chosen, tmp_path):
    dataset = tmp_path / "Tiny"
    for file in results(chosen).rglob("*"):
        if file.is_file():
            copy = dataset / file.relative_to(results(chosen))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(file)
    best = read_best(dataset)
    assert [run.relative_to(dataset).as_posix() for run in best_runs(best, dataset)] == [
        member.run for member in best.members
    ]
    weights = dataset / best.members[0].run / "model.safetensors"
    data = bytearray(weights.read_bytes())
    weights.unlink()
    with pytest.raises(ArtefactError, match=f"{best.members[0].run} is not there any more; run utseg_find"):
        best_runs(best, dataset)
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ArtefactError, match="has other weights than when it was chosen"):
        best_runs(best, dataset)


def test_a_member_outside_of_the_results_is_none(chosen):
    best = read_best(results(chosen))
    member = best.members[0].model_copy(update={"run": "../../elsewhere/fold0"})
    with pytest.raises(ArtefactError, match="is not there any more"):
        best_runs(best.model_copy(update={"members": (member,)}), results(chosen))


def errors(capfd) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]


def test_only_subjects_that_all_have_are_compared_and_the_others_are_named(home, capfd):
    (results(home) / "auto_2d/UNet/fold1/validation/summary.json").unlink()
    assert find(home) == 0
    warnings = capfd.readouterr().err
    assert "UNet/fold1: left out, its training has not finished" in warnings
    assert (
        "2 subjects are left out of the comparison, as auto_2d/UNet has no out-of-fold prediction" in warnings
    )
    best = read_best(results(home))
    assert list(best.compared.folds) == ["fold0"]
    assert list(best.compared.lacking) == ["auto_2d/UNet"]
    assert {one.name: one.members for one in best.candidates} == {
        "auto_2d/UNet": 1,
        "auto_2d/UTNet": 2,
        "auto_2d/UNet + auto_2d/UTNet": 2,
    }


def test_no_subject_in_common(home, capfd):
    (results(home) / "auto_2d/UNet/fold1/validation/summary.json").unlink()
    (results(home) / "auto_2d/UTNet/fold0/validation/summary.json").unlink()
    assert find(home) == 1
    (line,) = errors(capfd)
    assert "no subject was held back by all of auto_2d/UNet, auto_2d/UTNet" in line


def test_models_of_several_plans_are_compared(home):
    for fold in range(2):
        add_fold(home, "UNet", fold, seed=fold, planner="cpu")
    assert find(home, "-m", "UNet", "--quiet") == 0
    assert {one.name for one in read_best(results(home)).candidates} == {
        "auto_2d/UNet",
        "cpu_2d/UNet",
        "auto_2d/UNet + cpu_2d/UNet",
    }
    best = read_best(results(home))
    twins = [one for one in best.candidates if len(one.models) == 1]
    assert twins[0].gmac == twins[1].gmac


def test_folds_of_a_model_that_were_trained_otherwise_are_named(home, capfd):
    def otherwise(record):
        record["plan"]["augmentation"]["gamma_probability"] = 0.875
        record["plan"]["batch_size"] += 1  # as by --fit
        record["epochs"] *= 2
        record["seed"] += 1

    edit_json(results(home) / "auto_2d/UNet/fold1/run.json", otherwise)
    edit_json(
        results(home) / "auto_2d/UTNet/fold1/run.json", lambda record: record.update(seed=record["seed"] + 1)
    )
    assert find(home) == 0
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "otherwise" in line]
    assert (
        "auto_2d/UNet/fold1: was trained otherwise than fold0: plan.augmentation.gamma_probability (" in line
    )
    assert "0.875 here), iterations (" in line and "batch_size" not in line and "seed" not in line


def test_models_are_found_without_torch():
    program = "import sys, utseg.selection, utseg.steps.choice; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_not_there_is_said_with_what_is(home, capfd):
    assert find(home, "-m", "TransUNet") == 1
    (line,) = errors(capfd)
    assert "no model TransUNet with a finished cross-validation fold" in line
    assert "there are: UNet" in line
    assert find(home, "-pl", "published") == 1
    (line,) = errors(capfd)
    assert "no plan published_2d" in line
    assert "there are: auto_2d" in line
    assert find(home / "nowhere") == 1
    assert "run utseg_train first" in errors(capfd)[0]


def test_a_validation_by_other_weights_is_refused(home, capfd):
    edit_json(
        results(home) / "auto_2d/UNet/fold0/validation/prediction.json",
        lambda record: record["models"][0].update(weights_sha256="0" * 64),
    )
    assert find(home) == 1
    (line,) = errors(capfd)
    assert "UNet/fold0/validation" in line and "utseg_train with --validate" in line


def test_an_image_that_changed_since_is_refused(home, capfd):
    path = sorted((home / "raw/Tiny/imagesTr").iterdir())[0]
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine, image.header), path)
    assert find(home) == 1
    assert "the image that are there now" in errors(capfd)[0]


def test_probabilities_of_the_validation_are_used_where_they_are(home, monkeypatch):
    cases = {case.case_id: case for case in open_dataset(home / "raw" / "Tiny").cases}
    for name in NAMES:
        for fold in range(2):
            folder = results(home) / name / f"fold{fold}"
            own = [cases[case_id] for case_id in read_run(folder).validation_cases]
            predict_cases(
                own, [load_model(folder, torch.device("cpu"))], folder / "validation", save_probabilities=True
            )
    monkeypatch.setattr("utseg.predict.pipeline.predict_cases", None)
    assert find(home, "--quiet") == 0
    assert len(read_best(results(home)).candidates) == 3
    assert list(results(home).rglob("validation/*.npz"))


def test_interrupted_it_goes_on_where_it_was(home, monkeypatch, capfd):
    real, calls = predict_cases, []

    def stopped(*words, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*words, **options)

    monkeypatch.setattr("utseg.predict.pipeline.predict_cases", stopped)
    assert find(home, "--quiet") == 75
    (line,) = errors(capfd)
    assert "run the command again to go on" in line and "--resume" not in line
    selection = results(home) / "selection"
    assert not list(selection.rglob("*.npz"))
    done = {path: path.stat().st_mtime_ns for path in selection.rglob("*.nii.gz")}
    assert len(done) == 2  # one part of two cases, predicted by both models
    assert find(home, "--quiet") == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(selection.rglob("*.nii.gz"))) == 2 * SUBJECTS


def test_a_pair_is_made_anew_when_a_member_was_trained_again(home):
    assert find(home, "--quiet") == 0
    masks = sorted(results(home).rglob("selection/pairs/*/fold*/*.nii.gz"))
    stamps = {mask: mask.stat().st_mtime_ns for mask in masks}
    shutil.rmtree(results(home) / "auto_2d/UNet/fold1")
    add_fold(home, "UNet", 1, seed=99)
    assert find(home, "--quiet") == 0
    again = {mask for mask in masks if mask.stat().st_mtime_ns != stamps[mask]}
    assert again == {mask for mask in masks if mask.parent.name == "fold1"}


def test_a_pair_is_predicted_in_the_precision_of_each_validation(home, monkeypatch):
    for validation in sorted(results(home).glob("auto_2d/*/fold*/validation")):
        validated_in(validation.parent, "float32")
    assert find(home, "--quiet") == 0
    masks = sorted(results(home).rglob("selection/pairs/*/fold*/*.nii.gz"))
    stamps = {mask: mask.stat().st_mtime_ns for mask in masks}
    validated_in(results(home) / "auto_2d/UNet/fold1", "bfloat16")
    assert find(home, "--quiet") == 0
    again = {mask for mask in masks if mask.stat().st_mtime_ns != stamps[mask]}
    assert again == {mask for mask in masks if mask.parent.name == "fold1"}
    (made,) = results(home).glob("selection/pairs/*/fold1")
    assert {use.network: use.precision for use in read_record(made).models} == {
        "UNet": "bfloat16",
        "UTNet": "float32",
    }
    monkeypatch.setattr("utseg.predict.pipeline.predict_cases", None)
    assert find(home, "--quiet") == 0


def test_a_validation_in_other_windows_than_planned_is_none(home, capfd):
    def everywhere(record):
        record["models"][0]["step_size"] = 0.75

    edit_json(results(home) / "auto_2d/UNet/fold0/validation/prediction.json", everywhere)
    assert find(home, "--quiet") == 1
    (line,) = errors(capfd)
    assert "not what prediction.json says" in line
