"""2.5-D as a user runs it, beside 2-D: plan → train → predict → evaluate → report → choose → hand on, on the phantom."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from commandline import assert_refused, run_here

SMALL = (
    *("network.base_channels=4", "network.levels=2", "patch_size=32,32", "iterations_per_epoch=1"),
    *("batch_size=2", "estimated_memory_gb=0.1"),
)
TRAIN = ("fold0", "-d", "Phantom", "-m", "UNet", "-pl", "cpu", "--epochs", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def home(tiny_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planned and trained in both configurations."""
    home = tmp_path_factory.mktemp("neighbours")
    shutil.copytree(tiny_phantom, home / "raw" / "Phantom")
    for configuration in ("2d", "2.5d"):
        words = ("-d", "Phantom", "-pl", "cpu", "-m", "UNet", "-c", configuration, "--set", *SMALL)
        for result in (
            run_here("utseg_plan_and_preprocess", *words, home=home),
            run_here("utseg_train", configuration, *TRAIN, home=home),
        ):
            assert result.returncode == 0, result.stderr
    return home


def test_both_have_their_plans_and_the_same_slices(home):
    flat, deep = (home / "preprocessed" / "Phantom" / name for name in ("cpu_2d", "cpu_2.5d"))
    plans = [json.loads((folder / "plan.json").read_text()) for folder in (flat, deep)]
    assert plans[0]["preprocessing"] == plans[1]["preprocessing"]
    assert plans[0]["neighbour_distance_mm"] is None and plans[1]["neighbour_distance_mm"] > 5
    slices = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.npz")}
        for folder in (flat, deep)
    ]
    assert slices[0] == slices[1] and len(slices[0]) > 10
    run = home / "results" / "Phantom" / "cpu_2.5d" / "UNet" / "fold0"
    assert json.loads((run / "run.json").read_text())["plan"]["configuration"] == "2.5d"
    assert (run / "validation" / "summary.json").is_file()


def test_it_predicts_scores_and_reports(home, tmp_path):
    testing, masks, scores = home / "raw" / "Phantom" / "Testing", tmp_path / "masks", tmp_path / "scores"
    predict = ("utseg_predict", "-i", testing, "-o", masks, "-d", "Phantom")
    assert_refused(
        run_here(*predict, home=home), "several plans", "cpu_2.5d, cpu; choose one with -pl", code=2
    )
    for name, *words in (
        (*predict, "-pl", "cpu_2.5d"),
        ("utseg_evaluate", "-p", masks, "-g", testing, "-o", scores),
        ("utseg_report", home / "results" / "Phantom", scores, "-o", tmp_path / "report.html"),
    ):
        result = run_here(name, *words, home=home)
        assert result.returncode == 0, result.stderr
    record = json.loads((masks / "prediction.json").read_text())
    assert [model["name"] for model in record["models"]] == ["Phantom/cpu_2.5d/UNet/fold0"]
    with (scores / "metrics.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"1", "2", "3"}
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Plan cpu_2.5d of Phantom",
        "utseg_plan_and_preprocess -d Phantom -pl cpu -c 2.5d",
        "utseg_train 2.5d fold0",
        "utseg_predict -i IMAGES",
        "-pl cpu_2.5d -f fold0",
        "its last slice is repeated",
    ):
        assert words in page, words


def test_the_best_is_found_among_both_and_goes_out_and_in(home, tmp_path):
    words = ("-d", "Phantom", "--no-pairs", "--tta-subjects", 0, "--device", "cpu")
    result = run_here("utseg_find_best_configuration", *words, home=home)
    assert result.returncode == 0, result.stderr
    assert "cpu_2.5d/UNet" in result.stdout and "cpu_2d/UNet" in result.stdout
    archive, other = tmp_path / "model.zip", tmp_path / "other"
    for name, *words in (
        ("utseg_export_model", "-d", "Phantom", "-pl", "cpu_2.5d", "-o", archive),
        ("utseg_import_model", archive, "--home", other),
        ("utseg_networks", "-d", "Phantom", "-pl", "cpu_2.5d", "-m", "UNet"),
    ):
        result = run_here(name, *words, home=None if "--home" in words else home)
        assert result.returncode == 0, (name, result.stderr)
    assert "Phantom, cpu_2.5d: 3 channels" in result.stdout
    folder = other / "results" / "Phantom" / "cpu_2.5d" / "UNet"
    assert "shown with the slices before and after it" in next(folder.rglob("MODEL_CARD.md")).read_text()


def test_weights_of_2d_are_those_of_the_middle_slice(home):
    weights = home / "results" / "Phantom" / "cpu_2d" / "UNet" / "fold0"
    result = run_here("utseg_train", "2.5d", *TRAIN, "--overwrite", "--weights", weights, home=home)
    assert result.returncode == 0, result.stderr
    said = "inputs matched by name: cine-MRI of the slice = cine-MRI; new, as initialised: cine-MRI of the slice before, "
    assert said in result.stdout


def test_what_is_not_planned_is_refused_with_the_command_that_plans_it(home, tmp_path):
    shutil.copytree(home / "preprocessed", tmp_path / "preprocessed")
    shutil.rmtree(tmp_path / "preprocessed" / "Phantom" / "cpu_2.5d")
    assert_refused(
        run_here("utseg_train", "2.5d", "fold0", "-d", "Phantom", "-pl", "cpu", home=tmp_path),
        "no 2.5d plan is there (plans there: cpu); run utseg_plan_and_preprocess -pl cpu -c 2.5d first",
    )
    shutil.rmtree(home / "preprocessed" / "Phantom" / "cpu_2.5d" / "slices")
    assert_refused(
        run_here("utseg_train", "2.5d", *TRAIN, "--overwrite", home=home), "run utseg_plan_and_preprocess"
    )
