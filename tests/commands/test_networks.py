"""`utseg_networks`; and every network, somebody else's too, through `utseg_train` and `utseg_predict`."""

import csv
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commandline import assert_refused, run_here
from networks.small import flat_settings
from tiny_runs import make_home

from utseg import extensions
from utseg.networks import network_names
from utseg.planning.survey import NetworkFigures
from utseg.training.record import read_run

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def plugin_here(monkeypatch):
    """Somebody's package with a network, installed for this process until `undo` is called."""

    def undo():
        monkeypatch.undo()
        extensions._registered.cache_clear()

    monkeypatch.syspath_prepend(str(PLUGIN))
    extensions._registered.cache_clear()
    yield undo
    undo()


def test_the_table_has_networks_of_others_too_with_size_and_what_they_are(plugin_here):
    known = {
        "UTNet": ("10,018,500", "17.5"),
        "UTNet_encoder": ("10,944,056", "20.4"),
        "ResUNet": ("15,449,256", "23.6"),
    }
    result = run_here("utseg_networks", "-m", *known, "TinyNetwork")
    assert result.returncode == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    for name, expected in known.items():
        for figure in expected:
            assert figure in lines[name], (name, figure, lines[name])
    assert "from a package outside utseg" in lines["TinyNetwork"]


def test_the_table_has_every_network(monkeypatch):
    def unmeasured(task, kind):
        return NetworkFigures(task.network_name, "family", 0, 0.0, 0.0, 0.0, "what it is")

    monkeypatch.setattr("utseg.steps.surveying.survey", unmeasured)
    result = run_here("utseg_networks", "--csv")
    assert [row["name"] for row in csv.DictReader(io.StringIO(result.stdout))] == network_names()


def test_figures_at_a_plan_follow_its_patch_and_sizes(home):
    result = run_here("utseg_networks", "-d", "Tiny", "-m", "UTNet", "UNet", "--csv", home=home)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(result.stdout))}
    assert set(rows) == {"UTNet", "UNet"}
    assert int(rows["UTNet"]["parameters"]) < 20_000
    assert 0 < float(rows["UTNet"]["gmac"]) < 0.01
    assert 0 < float(rows["UTNet"]["memory_gb"]) < 0.1


def test_unknown_names_are_one_line(home):
    assert_refused(run_here("utseg_networks", "-m", "Nets"), "'Nets'", "UTNet", code=2)
    assert_refused(run_here("utseg_networks", "-d", "Other", home=home), "Other")
    assert_refused(run_here("utseg_networks", "-pl", "cpu"), "-d", code=2)
    assert_refused(
        run_here("utseg_train", "2d", "fold0", "-m", "UTNett", home=home), "'UTNett'", "SwinUNet", code=2
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", network_names())
def test_every_network_trains_an_epoch_and_predicts(home, name, tmp_path):
    flat = {key: value for key, value in flat_settings(name).items() if key != "base_channels"}
    settings = ["iterations_per_epoch=2"]
    settings += [f"network.{key}={json.dumps(value)}" for key, value in flat.items()]
    trained = run_here(
        *("utseg_train", "2d", "fold0", "-m", name, "--epochs", 1, "--device", "cpu", "--set", *settings),
        home=home,
    )
    assert trained.returncode == 0, trained.stderr
    run = home / "results" / "Tiny" / "tiny_2d" / name / "fold0"
    assert read_run(run).plan.network_name == name
    lines = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    assert len(lines) == 1
    assert all(np.isfinite(line["loss"]) for line in lines)
    image = sorted((home / "raw" / "Tiny" / "imagesTr").iterdir())[0]
    predicted = run_here(
        *("utseg_predict", "-i", image, "-o", tmp_path / "out", "-m", name, "-f", "fold0", "--no-tta"),
        home=home,
    )
    assert predicted.returncode == 0, predicted.stderr
    (mask,) = (tmp_path / "out").glob("*.nii.gz")
    assert nibabel.load(mask).shape == nibabel.load(image).shape


@pytest.mark.slow
def test_a_network_of_somebody_else_is_planned_trained_predicted_and_exported(plugin_here, tmp_path):
    home, image = make_home(tmp_path), "raw/Tiny/imagesTr/s00_ED_0000.nii.gz"
    plan = home / "preprocessed" / "Tiny" / "cpu_2d" / "plan.json"
    chosen = ("-d", "Tiny", "-m", "TinyNetwork", "-pl", "cpu")

    def done(command, *words, home=home):
        result = run_here(command, *words, home=home)
        assert result.returncode == 0, result.stderr

    done("utseg_plan_and_preprocess", *chosen, "--device", "cpu")
    planned = json.loads(plan.read_text())
    assert planned["network_name"] == "TinyNetwork"
    assert planned["network"] == {"widths": [8, 16], "aux_loss": False}
    assert "a package outside utseg" in planned["reasons"]["network.widths"]
    assert "TinyNetwork" in planned["reasons"]["estimated_memory_gb"]
    settings = ("--set", "network.widths=4,6", "iterations_per_epoch=2")
    done("utseg_train", "2d", "fold0", *chosen, "--epochs", 1, "--device", "cpu", *settings)
    run = read_run(home / "results" / "Tiny" / "cpu_2d" / "TinyNetwork" / "fold0")
    assert run.plan.network == {"widths": [4, 6], "aux_loss": False}
    assert run.plan.reasons["network.widths"] == "set by the user; the planner had [8, 16]"
    done("utseg_predict", "-i", home / image, "-o", tmp_path / "out", *chosen)
    archive = tmp_path / "model.zip"
    done("utseg_export_model", *chosen, "-f", "fold0", "-o", archive)
    done("utseg_import_model", archive, home=tmp_path / "other")
    plugin_here()
    assert_refused(run_here("utseg_import_model", archive, home=tmp_path / "third"), "TinyNetwork")


def test_a_wrong_setting_of_a_network_is_one_line_and_leaves_no_run(home):
    for words, expected in {
        ("UTNet", "network.num_heads=3,3"): "num_heads",
        ("UTNet", "network.projection=nearest"): "projection",
        ("UTNet", "network.block_list=1,5"): "block_list",
        ("UTNet", "network.attention_in=bottom"): "attention_in",
        ("TransUNet", "network.attention_heads=7"): "attention_heads",
        ("UNet", "network.norm=layer"): "norm",
        ("UTNet", "loss.deep_supervision_weights=[1]"): "1 weights for the 2 outputs",
    }.items():
        model, setting = words
        output = home / "results" / "Tiny" / "tiny_2d" / model / "vendor=A"
        result = run_here("utseg_train", "2d", "vendor=A", "-m", model, "--set", setting, home=home)
        assert_refused(result, expected)
        assert not output.exists()


@pytest.mark.slow
def test_nnunets_trainer_trains_nnunets_network_at_own_sizes_and_padded_patches_are_refused(home):
    words = ("utseg_train", "2d", "fold0", "-m", "nnUNetTrainer", "--epochs", 2, "--device", "cpu", "--set")
    brief = ("iterations_per_epoch=1", "network.aux_loss=true", "patch_size=32,32")
    refused = run_here(*words, *brief, "patch_size=36,32", home=home)
    assert_refused(refused, "loss.auxiliary_size=own", "(36, 32)", "expected multiples of (8, 8)")
    trained = run_here(*words, *brief, home=home)
    assert trained.returncode == 0, trained.stderr
    run = home / "results" / "Tiny" / "tiny_2d" / "nnUNetTrainer" / "fold0"
    lines = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.01, 0.01 * 0.5**0.9])
    assert "auxiliary" in lines[0]["terms"]


@pytest.mark.slow
def test_weights_of_a_run_are_taken_and_misfits_refused(home, tmp_path):
    brief = ("-m", "UNet", "--epochs", 1, "--device", "cpu")
    common = ("utseg_train", "2d", "vendor=B", *brief)
    start = home / "results" / "Tiny" / "tiny_2d" / "UNet" / "fold1"
    assert run_here("utseg_train", "2d", "fold1", *brief, home=home).returncode == 0
    refused = run_here(*common, "--set", "network.base_channels=8", "--weights", start, home=home)
    assert_refused(refused, "of another shape", "--allow-mismatch")
    assert_refused(run_here(*common, "--weights", tmp_path / "no.pth", home=home), "no such file")
    taken = run_here(*common, "--weights", start, home=home)
    assert taken.returncode == 0, taken.stderr
    assert "100 % of the values" in taken.stdout
    again = run_here(*common, "--weights", start, "--resume", home=home)
    assert again.returncode == 0, again.stderr
