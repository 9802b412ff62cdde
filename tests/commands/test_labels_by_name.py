"""Labels are matched by name wherever two files number them differently; where names do not match, the command refuses in a line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from plans import with_labels
from rawfiles import change_json, change_voxels, make_nnunet
from tiny_models import make_run_folder
from tiny_runs import make_home

from utseg.commands.ensemble import main as ensemble
from utseg.commands.evaluate import main as evaluate
from utseg.commands.predict import main as predict
from utseg.commands.report import main as report
from utseg.commands.train import main as train
from utseg.label_map import structures
from utseg.planning.task import planned_task
from utseg.training.record import read_run, read_weights, write_run, write_weights

MNMS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
ACDC = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
SCAR = {"background": 0, "LV": 1, "MYO": 2, "scar": 3}
SWAPPED = np.array([0, 3, 2, 1], np.uint8)
"""M&Ms' values in ACDC's, and the other way round."""
Call = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command's `main` in this process; exit code, error lines, all that was said."""
    monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 10)

    def run(main: Callable[[list[str]], int], *words: object) -> tuple[int, list[str], str]:
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, errors, captured.out + captured.err

    return run


def renumber_run(folder: Path, labels: dict[str, int], order: list[int]) -> None:
    """The same model of a plan that numbers labels otherwise: the rows of its heads change places."""
    weights = read_weights(folder)
    heads = {name: value[order] for name, value in weights.items() if name.startswith("heads.")}
    write_weights(weights | heads, folder)
    record = read_run(folder)
    write_run(record.model_copy(update={"plan": with_labels(record.plan, labels)}), folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three homes with a UTNet and a UNet, the UNet numbered as the UTNet, as ACDC, and with a label of its own; and a scan."""
    root = tmp_path_factory.mktemp("models")
    for seed, model in enumerate(("UTNet", "UNet")):
        folder = make_run_folder(root / "same/results/Tiny", model, seed=seed)
        (folder / "validation").mkdir()
        (folder / "validation" / "summary.json").write_text("{}")
    for home, labels, order in (("other", ACDC, [0, 3, 2, 1]), ("scar", SCAR, [0, 1, 2, 3])):
        shutil.copytree(root / "same", root / home)
        renumber_run(root / home / "results/Tiny/auto_2d/UNet/fold0", labels, order)
    image = np.random.default_rng(0).integers(0, 900, (36, 34, 3)).astype(np.int16)
    (root / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.4, 1.4, 9.0, 1])), root / "scans/a.nii.gz")
    return root


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).astype(np.uint8)


def test_models_of_two_numberings_predict_together_by_name(models, tmp_path, call):
    def together(home: str, *names: str) -> np.ndarray:
        words = ("-i", models / "scans", "-o", tmp_path / home, "--home", models / home, "--device", "cpu")
        code, errors, said = call(predict, *words, "-m", *names)
        assert (code, errors) == (0, [])
        assert ("labels matched by name: LV 1 = LV 3, MYO 2 = MYO 2, RV 3 = RV 1" in said) == (
            home == "other"
        )
        assert json.loads((tmp_path / home / "prediction.json").read_text())["labels"] == MNMS
        return voxels(tmp_path / home / "a.nii.gz")

    same = together("same", "UTNet", "UNet")
    assert len(np.unique(same)) > 1
    np.testing.assert_array_equal(together("other", "UTNet", "UNet"), same)


def test_models_with_other_names_do_not_predict_together(models, tmp_path, call):
    words = ("-i", models / "scans", "-o", tmp_path / "out", "--home", models / "scar", "--device", "cpu")
    code, errors, _ = call(predict, *words, "-m", "UTNet", "UNet")
    assert code == 1 and len(errors) == 1
    assert "labels do not match by name: LV 1, MYO 2, RV 3 in Tiny/auto_2d/UTNet/fold0" in errors[0]
    assert "no counterpart for RV, scar" in errors[0]
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_an_ensemble_maps_channels_by_name(models, tmp_path, call):
    for home, name in (("same", "UTNet"), ("same", "UNet"), ("other", "UNet"), ("scar", "UNet")):
        words = ("-i", models / "scans", "-o", tmp_path / f"{home}_{name}", "--home", models / home)
        assert call(predict, *words, "--device", "cpu", "-m", name, "--save-probabilities")[0] == 0
    joined = {}
    for home in ("same", "other"):
        members = tmp_path / f"{home}_UNet", tmp_path / "same_UTNet"
        code, _, said = call(ensemble, "-i", *members, "-o", tmp_path / home)
        assert code == 0 and ("matched by name: RV 1 = RV 3, MYO 2 = MYO 2, LV 3 = LV 1" in said) == (
            home == "other"
        )
        labels = json.loads((tmp_path / home / "prediction.json").read_text())["labels"]
        joined[home] = {name: voxels(tmp_path / home / "a.nii.gz") == value for name, value in labels.items()}
    assert all(np.array_equal(joined["other"][name], mask) for name, mask in joined["same"].items())
    code, errors, _ = call(
        ensemble, "-i", tmp_path / "scar_UNet", tmp_path / "same_UTNet", "-o", tmp_path / "no"
    )
    assert code == 1 and "no counterpart for RV, scar" in errors[0] and not (tmp_path / "no").exists()


def shrink(mask: np.ndarray) -> np.ndarray:
    """A mask that is not perfect: without its first rows."""
    return np.where(np.arange(mask.shape[1])[:, None] < mask.shape[1] // 2, 0, mask).astype(mask.dtype)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A home with raw/MnM and raw/ACDC, the same scans numbered in the two ways; and `masks`, numbered as MnM, of which nothing says so."""
    make_nnunet(tmp_path / "raw" / "MnM", subjects=2)
    shutil.copytree(tmp_path / "raw" / "MnM", tmp_path / "raw" / "ACDC")
    change_json(tmp_path / "raw" / "ACDC" / "dataset.json", labels=ACDC)
    for path in (tmp_path / "raw" / "ACDC" / "labelsTr").iterdir():
        change_voxels(path, lambda voxels: SWAPPED[voxels.astype(int)])
    shutil.copytree(tmp_path / "raw" / "MnM" / "labelsTr", tmp_path / "masks")
    for path in (tmp_path / "masks").iterdir():
        change_voxels(path, shrink)
    return tmp_path


def numbered(folder: Path, labels: dict[str, int]) -> None:
    """Notes what `utseg_predict` does of its masks, as far as their labels go."""
    (folder / "prediction.json").write_text(json.dumps({"labels": labels}))


def score(call: Call, home: Path, references: str, output: str, *words: object) -> tuple[int, list[str], str]:
    words = ("-p", home / "masks", "-g", home / references, "-o", home / output, "--home", home, *words)
    return call(evaluate, *words)


def rows(scores: Path) -> dict[tuple[str, str], list[str]]:
    """The scores by case and label's name, without its value."""
    lines = (scores / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("label")
    cells = [line.split(",") for line in lines[1:]]
    return {(own[0], own[place + 1]): own[place + 2 :] for own in cells}


@pytest.mark.parametrize("references", ["raw/ACDC", "raw/ACDC/labelsTr", "plain"])
def test_masks_and_references_of_two_numberings_are_scored_by_name(scored, call, references):
    shutil.copytree(scored / "raw/ACDC/labelsTr", scored / "plain")
    shutil.copy(scored / "raw/ACDC/dataset.json", scored / "plain")
    numbered(scored / "masks", MNMS)
    assert score(call, scored, "raw/MnM", "as they are")[0] == 0
    code, errors, said = score(call, scored, references, "scores")
    assert (code, errors) == (0, [])
    assert "labels of references and masks matched by name: RV 1 = RV 3, MYO 2 = MYO 2, LV 3 = LV 1" in said
    if references != "plain":
        assert rows(scored / "scores") == rows(scored / "as they are")
    by_label = json.loads((scored / "scores/summary.json").read_text())["all"]["labels"]
    assert all(0.1 < by_label[name]["dice"]["mean"] < 1 for name in ("LV", "MYO", "RV"))
    sources = json.loads((scored / "scores/sources.json").read_text())
    assert (sources["labels"], sources["reference_labels"], sources["mask_labels"]) == (ACDC, ACDC, MNMS)
    assert report_outlines(call, scored, "scores") == report_outlines(call, scored, "as they are")


def report_outlines(call: Call, home: Path, scores: str) -> dict[str, object]:
    """By label the outlines of the first case's reference and mask, slice by slice, in the report's viewer."""
    code, errors, _ = call(report, home / scores, "-o", home / "report.html", "--home", home, "-d", "MnM")
    assert (code, errors) == (0, [])
    page = (home / "report.html").read_text()

    def data(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(page.split(f'id="{name}">')[1].split("</script>")[0])
        return found

    names, stack = [label["name"] for label in data("viewer-data")["labels"]], data("stack-0")
    (model,) = stack["models"]
    sides = stack["reference"], model["paths"]
    assert any(path for one in sides for paths in one for path in paths)
    return {name: [[paths[i] for paths in one] for one in sides] for i, name in enumerate(names)}


def test_masks_with_other_names_are_refused(scored, call):
    numbered(scored / "masks", SCAR)
    code, errors, _ = score(call, scored, "raw/ACDC", "scores")
    assert code == 1 and len(errors) == 1
    assert "RV 1, MYO 2, LV 3 in" in errors[0] and "LV 1, MYO 2, scar 3 in" in errors[0]
    assert "prediction.json; no counterpart for RV, scar; give the same names to both" in errors[0]
    assert not (scored / "scores").exists()


def test_names_of_one_structure_match_and_that_is_said(scored, call):
    numbered(scored / "masks", {"background": 0, "lv cavity": 1, "myocardium": 2, "Rv": 3})
    code, _, said = score(call, scored, "raw/ACDC", "scores")
    assert code == 0 and "RV 1 = Rv 3, MYO 2 = myocardium 2, LV 3 = lv cavity 1" in said


def test_masks_that_nothing_says_the_numbering_of_are_refused_where_they_lie_on_other_labels(scored, call):
    code, errors, _ = score(call, scored, "raw/ACDC", "scores")
    assert code == 1 and len(errors) == 1
    assert "1 is taken for RV (Dice 0.00) and lies on LV (0." in errors[0]
    assert "3 is taken for LV (Dice 0.00) and lies on RV (0." in errors[0]
    assert "put a dataset.json with the labels of the masks beside them" in errors[0]
    assert not (scored / "scores" / "metrics.csv").exists()
    shutil.copy(scored / "raw/MnM/dataset.json", scored / "masks")  # as the message says
    assert score(call, scored, "raw/ACDC", "scores")[0] == 0


def test_references_that_nothing_says_the_numbering_of_are_refused_where_other_labels_lie_on_them(
    scored, call
):
    shutil.copytree(scored / "raw/ACDC/labelsTr", scored / "plain")
    code, errors, _ = score(call, scored, "plain", "scores")
    assert code == 1 and "the names of the labels are not known" in errors[0]
    numbered(scored / "masks", MNMS)
    code, errors, _ = score(call, scored, "plain", "scores")
    assert code == 1 and "put a dataset.json with the labels of the references beside them" in errors[0]
    code, errors, said = score(call, scored, "plain", "scores", "-d", "ACDC")
    assert (code, errors) == (0, []) and "RV 1 = RV 3" in said


@pytest.mark.parametrize("words", [("LV=1", "MYO=2", "RV=3"), ("1", "2", "3")])
def test_labels_of_two_plain_folders_are_named_by_hand(scored, call, words):
    for name in ("plain", "predicted"):
        shutil.copytree(scored / "raw/MnM/labelsTr", scored / name)
    arguments = [
        "-p",
        scored / "predicted",
        "-g",
        scored / "plain",
        "-o",
        scored / "scores",
        "--labels",
        *words,
    ]
    code, errors, said = call(evaluate, *arguments)
    assert (code, errors) == (0, [])
    perfect = [line.split()[0] for line in said.splitlines() if "1.000" in line]
    assert perfect == [word.partition("=")[0] for word in words]
    code, errors, _ = call(evaluate, *arguments[:-3], "LV=1", "RV=2")
    assert code == 1 and "known labels: 0 background, 1 LV, 2 RV" in errors[0]
    shutil.copy(scored / "raw/ACDC/dataset.json", scored / "plain")
    code, errors, _ = call(evaluate, *arguments[:-3], "LV=1", "MYO=2", "RV=3")
    assert code == 1 and "they are RV 1, MYO 2, LV 3; leave --labels out" in errors[0]


def test_numbers_alone_may_be_repeated_where_labels_have_names(scored, call):
    numbered(scored / "masks", MNMS)
    assert score(call, scored, "raw/ACDC/labelsTr", "without")[0] == 0
    code, errors, _ = score(call, scored, "raw/ACDC/labelsTr", "scores", "--labels", 1, 2, 3)
    assert (code, errors) == (0, [])
    assert rows(scored / "scores") == rows(scored / "without")
    code, errors, _ = score(call, scored, "raw/ACDC/labelsTr", "scores", "--labels", 1, 3)
    assert code == 1 and "they are RV 1, MYO 2, LV 3; leave --labels out" in errors[0]


@pytest.mark.parametrize(
    "words",
    [("LV=x",), ("0",), ("256",), ("LV=1", "LV=2"), ("1", "MYO=1"), ("9" * 5000,)],
    ids=lambda words: words[-1][:9],
)
def test_labels_that_are_none_are_refused(scored, call, words):
    arguments = [
        "-p",
        scored / "masks",
        "-g",
        scored / "raw/ACDC/labelsTr",
        "-o",
        scored / "scores",
        "--labels",
    ]
    code, errors, _ = call(evaluate, *arguments, *words)
    assert code == 2 and errors[0].startswith(f"error: --labels {words[-1]}: "[:1000])


def test_a_dataset_that_contradicts_the_references_is_refused_with_the_reason(scored, call):
    shutil.copytree(scored / "raw/ACDC/labelsTr", scored / "plain")
    shutil.copy(scored / "raw/ACDC/dataset.json", scored / "plain")
    for references in ("raw/ACDC", "raw/ACDC/labelsTr", "plain"):
        code, errors, _ = score(call, scored, references, "scores", "-d", "MnM")
        assert code == 1 and len(errors) == 1
        assert (
            "-d MnM: its labels are LV 1, MYO 2, RV 3, those of the references are RV 1, MYO 2, LV 3"
            in (errors[0])
        )
        assert "leave -d out" in errors[0] and not (scored / "scores").exists()


def test_a_dataset_that_is_named_gives_the_groups(scored, call):
    table = scored / "raw/ACDC/cases.csv"
    table.write_text(table.read_text().replace(",A,", ",Z,"))
    numbered(scored / "masks", MNMS)
    shutil.copytree(scored / "raw/ACDC", scored / "raw/Copy")
    (scored / "raw/Copy/cases.csv").write_text(table.read_text().replace(",Z,", ",Y,"))
    assert score(call, scored, "raw/ACDC", "own")[0] == 0
    assert score(call, scored, "raw/ACDC", "named", "-d", "Copy")[0] == 0
    groups = [json.loads((scored / name / "summary.json").read_text())["groups"] for name in ("own", "named")]
    assert set(groups[0]["vendor"]) == {"B", "Z"} and set(groups[1]["vendor"]) == {"B", "Y"}


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preprocessed dataset numbered as M&Ms."""
    return make_home(tmp_path_factory.mktemp("trainable"))


def start(call: Call, home: Path, weights: Path, *words: object) -> tuple[int, list[str], str]:
    """Trains so slowly that the weights stay those that it began from."""
    still = ("--set", "optimizer.learning_rate=1e-12", "optimizer.weight_decay=0", "network.aux_loss=false")
    where = ("2d", "fold0", "-m", "UNet", "--home", home, "--epochs", 1, "--device", "cpu", "-np", 0)
    return call(train, *where, "--overwrite", "--weights", weights, *still, *words)


def test_outputs_of_weights_are_matched_by_name(trainable, tmp_path, call):
    source = make_run_folder(tmp_path / "results/Other", "UNet", seed=5, labels=ACDC)
    code, errors, said = start(call, trainable, source)
    assert (code, errors) == (0, [])
    assert "outputs matched by name: LV 1 = LV 3, MYO 2 = MYO 2, RV 3 = RV 1" in said
    run = trainable / "results/Tiny/tiny_2d/UNet/fold0"
    before, after = read_weights(source), read_weights(run)
    for name in ("heads.0.weight", "heads.0.bias"):
        torch.testing.assert_close(after[name], before[name][[0, 3, 2, 1]])
    torch.testing.assert_close(after["encoder.0.conv1.weight"], before["encoder.0.conv1.weight"])
    assert json.loads((run / "run.json").read_text())["initial_weights"]["labels"] == ACDC


def test_labels_that_both_have_are_taken_over_and_the_others_named(trainable, tmp_path, call):
    source = make_run_folder(tmp_path / "results/Other", "UNet", seed=5, labels=SCAR)
    code, errors, said = start(call, trainable, source, "--seed", 3)
    assert (code, errors) == (0, [])
    assert (
        "outputs matched by name: LV 1 = LV 1, MYO 2 = MYO 2; new, as initialised: RV; not taken over: scar"
        in said
    )
    run = trainable / "results/Tiny/tiny_2d/UNet/fold0"
    torch.manual_seed(3)
    drawn = planned_task(read_run(run).plan).build()
    before, after = read_weights(source), read_weights(run)
    for name in drawn.class_axes():
        torch.testing.assert_close(after[name][:3], before[name][:3])
        torch.testing.assert_close(after[name][3], drawn.state_dict()[name][3])


OTHERS = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}
REGIONS = {"background": 0, "LV": (1,), "MYO": (2,), "RV": (3,)}


@pytest.mark.parametrize("labels", [OTHERS, REGIONS], ids=["other names", "regions"])
def test_weights_of_other_labels_are_refused_or_leave_the_outputs_as_initialised(
    labels, trainable, tmp_path, call
):
    source = make_run_folder(tmp_path / "results/Other", "UNet", seed=5, labels=labels)
    code, errors, _ = start(call, trainable, source)
    assert code == 1 and len(errors) == 1
    assert f"LV 1, MYO 2, RV 3 in the plan, {next(iter(structures(labels)))} 1, " in errors[0]
    assert ("as regions and plain labels never are" in errors[0]) == (labels is REGIONS)
    assert (
        "give the same names to both, or leave the outputs as initialised with --allow-mismatch" in errors[0]
    )
    code, errors, said = start(call, trainable, source, "--allow-mismatch")
    assert (code, errors) == (0, []) and "as initialised: heads.0" in said
    before, after = read_weights(source), read_weights(trainable / "results/Tiny/tiny_2d/UNet/fold0")
    assert not torch.allclose(after["heads.0.weight"], before["heads.0.weight"], atol=1e-3)


def test_weights_that_nothing_says_the_labels_of_are_taken_as_they_are(trainable, tmp_path, call):
    source = make_run_folder(tmp_path / "results/Other", "UNet", seed=5, labels=ACDC)
    shutil.copy(source / "model.safetensors", tmp_path / "alone.safetensors")
    code, _, said = start(call, trainable, tmp_path / "alone.safetensors")
    assert code == 0 and "nothing says how its outputs are numbered; taken as LV 1, MYO 2, RV 3" in said
    run = trainable / "results/Tiny/tiny_2d/UNet/fold0"
    torch.testing.assert_close(read_weights(run)["heads.0.weight"], read_weights(source)["heads.0.weight"])
    assert json.loads((run / "run.json").read_text())["initial_weights"]["labels"] is None
