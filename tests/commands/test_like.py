"""`utseg_plan_and_preprocess --like`: a plan that keeps to that of a trained model, and a training that goes on from its weights."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commandline import assert_refused
from inprocess import Typed
from rawfiles import change_json, make_nnunet
from tiny_models import make_run_folder
from tiny_runs import AUGMENTATION

from utseg.archive import export_model
from utseg.commands.report import main as report
from utseg.files import sha256
from utseg.planning.plan import PLAN_FILE, Plan, read_plan
from utseg.training.record import read_run, read_weights

PLAN = "utseg_plan_and_preprocess"
SCAR = {"background": 0, "scar": 1, "MYO": 2, "LV": 3}
CT = {"lower": 0.0, "upper": 200.0, "mean": 90.0, "sd": 30.0}
VALUES = {
    "spacing_yx_mm": (1.5, 1.25),
    "clip_percentiles": (2.0, 99.0),
    "network": {"base_channels": 8},
    "augmentation": AUGMENTATION,
    "planner": "tiny",
    "focus": True,
    "memory_gb": 6.0,
    "reasons": {"patch_size": "32 × 32: as small as can be", "focus": "True: for a test"},
}
OF_DATA = {"dataset", "planner", "like", "fingerprint_sha256", "reasons", "estimated_memory_gb"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the raw dataset New, of other labels; two folds of a UNet on Tiny, and an archive of them."""
    home = tmp_path_factory.mktemp("like")
    make_nnunet(home / "raw" / "New", subjects=5, size_zyx=(4, 36, 32))
    change_json(home / "raw/New/dataset.json", labels=SCAR)
    old = home / "results" / "Tiny"
    runs = [make_run_folder(old, "UNet", f"fold{number}", seed=number, **VALUES) for number in (0, 1)]
    export_model(runs, home / "model.zip")
    return home


@pytest.fixture
def home(sources: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sources, tmp_path / "home"))


def plan_of(home: Path, folder: str = "like_2d") -> Plan:
    return read_plan(home / "preprocessed" / "New" / folder)


def test_a_plan_like_a_run_keeps_its_values_and_training_goes_on_from_its_weights(home, typed: Typed):
    run = home / "results/Tiny/tiny_2d/UNet/fold0"
    words = ("-d", "New", "--like", run)
    result = typed(PLAN, *words, home=home)
    assert result.returncode == 0, result.stderr
    source, plan = (
        json.loads((home / path).read_text())
        for path in (run / "run.json", "preprocessed/New/like_2d/plan.json")
    )
    source = source["plan"]
    for key in source.keys() - OF_DATA - {"preprocessing"}:
        assert plan[key] == source[key], key
    for key in source["preprocessing"].keys() - {"labels", "channel_names", "ways"}:
        assert plan["preprocessing"][key] == source["preprocessing"][key], key
    assert plan["preprocessing"]["labels"] == SCAR and plan["preprocessing"]["ways"]
    assert (plan["dataset"], plan["planner"]) == ("New", "like")
    assert plan["like"]["name"] == "Tiny/tiny_2d/UNet/fold0"
    assert plan["reasons"]["patch_size"] == (
        "as in Tiny/tiny_2d/UNet/fold0 (--like); there 32 × 32: as small as can be"
    )
    assert f"utseg_train 2d fold0 -d New -pl like -m UNet --weights {run}" in result.stdout
    page = home / "report.html"
    still = ("optimizer.learning_rate=1e-12", "optimizer.weight_decay=0", "iterations_per_epoch=1")
    train = ("2d", "fold0", "-d", "New", "-pl", "like", "-m", "UNet", "--weights", run)
    result = typed(
        "utseg_train", *train, "--epochs", 1, "--device", "cpu", "-np", 0, "--set", *still, home=home
    )
    assert result.returncode == 0, result.stderr
    assert "MYO 2 = MYO 2, LV 3 = LV 1; new, as initialised: scar; not taken over: RV" in result.stdout
    assert report([str(home / "results/New/like_2d/UNet/fold0"), "-o", str(page)]) == 0
    said = page.read_text()
    assert f"--like {run.resolve()}" in said
    (loss,) = re.findall(r"<svg(?:(?!</svg>).)*Training loss.*?</svg>", said, re.DOTALL)
    assert loss.count("<circle") > 1 and "polyline" not in loss  # one epoch is a point for each curve
    before, after = read_weights(run), read_weights(home / "results/New/like_2d/UNet/fold0")
    assert after["heads.0.weight"][[0, 2, 3]].allclose(before["heads.0.weight"][[0, 2, 1]], atol=1e-4)


def test_weights_come_from_a_zip_or_a_folder_with_folds_too(home, typed: Typed):
    """Of the same fold, verified and not imported."""
    folder = home / "results/Tiny/tiny_2d/UNet"
    like = ("-d", "New", "--like", home / "model.zip")
    result = typed(PLAN, *like, home=home)
    assert f"utseg_train 2d fold0 -d New -pl like -m UNet --weights {home / 'model.zip'}" in result.stdout
    where = ("-d", "New", "-m", "UNet", "--epochs", 1, "--device", "cpu", "-np", 0)
    still = ("--set", "optimizer.learning_rate=1e-12", "iterations_per_epoch=1")
    for path in (home / "model.zip", folder):
        result = typed(
            "utseg_train", "2d", "fold1", *where, "--overwrite", "--weights", path, *still, home=home
        )
        assert result.returncode == 0 and f"--weights {path}: those of UNet/fold1" in result.stdout, (
            result.stderr
        )
        begun = read_run(home / "results/New/like_2d/UNet/fold1").initial_weights
        assert begun.sha256 == sha256(folder / "fold1/model.safetensors")
    result = typed("utseg_train", "2d", "fold2", *where, "--weights", home / "model.zip", home=home)
    assert_refused(result, "none of them UNet/fold2: UNet/fold0, UNet/fold1; name the folder", code=2)
    assert sorted(path.name for path in (home / "results").iterdir()) == ["New", "Tiny"]


def test_the_same_command_keeps_the_plan_and_another_source_is_refused(home, typed: Typed):
    folder = home / "results/Tiny/tiny_2d/UNet"
    file = home / "preprocessed/New/like_2d" / PLAN_FILE

    def call(*words: object):
        return typed(PLAN, "-d", "New", "--plan-only", *words, home=home)

    assert call("--like", home / "model.zip").returncode == 0
    assert plan_of(home).like.name == "Tiny/tiny_2d/UNet"
    before = file.read_bytes()
    for words in (("--like", folder), ("-pl", "like")):
        result = call(*words)
        assert result.returncode == 0 and "keeping" in result.stdout, result.stderr
        assert file.read_bytes() == before
    assert_refused(call("-pl", "like", "--replan"), "was made like Tiny/tiny_2d/UNet", "--like", code=2)
    other = ("--like", folder / "fold1")
    assert_refused(call(*other), "--like names Tiny/tiny_2d/UNet/fold1", "--replan", "-pl NAME", code=2)
    assert call(*other, "-pl", "second", "--set", "batch_size=2").returncode == 0
    assert plan_of(home, "second_2d").batch_size == 2
    assert call(*other, "--replan").returncode == 0
    assert plan_of(home).like.name == "Tiny/tiny_2d/UNet/fold1"
    change_json(home / "raw/New/dataset.json", labels=SCAR | {"background": 0, "RV": 3, "LV": 4})
    result = call("-pl", "like")
    assert result.returncode == 0 and "planning anew" in result.stdout, result.stderr
    assert plan_of(home).preprocessing.labels["LV"] == 4 and plan_of(home).patch_size == (32, 32)
    assert plan_of(home).reasons["patch_size"].count("--like") == 1


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("-c", "2.5d"), 2, ("-c 2.5d", "keeps 2d", "leave -c out")),
        (("-m", "UTNet"), 2, ("-m UTNet", "keeps UNet")),
        (("--memory-gb", "24"), 2, ("--memory-gb 24", "keeps 6.0")),
        (("-pl", "auto"), 2, ("-pl auto: is a planner", "as like")),
        (("-pl", "new_2d"), 2, ("-pl new_2d", "leave out the configuration")),
        (("-pl", "a/b"), 2, ("a/b",)),
    ],
)
def test_what_contradicts_the_source_is_refused(sources, typed: Typed, words, code, expected):
    result = typed(PLAN, "-d", "New", "--like", sources / "model.zip", *words, home=sources)
    assert_refused(result, *expected, code=code)
    assert not (sources / "preprocessed").exists()


def test_channels_keep_theirs_by_name_and_new_ones_are_planned(home, typed: Typed):
    make_nnunet(home / "raw" / "New2", subjects=3, size_zyx=(3, 36, 32), channels=2)
    change_json(home / "raw/New2/dataset.json", channel_names={"0": "noNorm", "1": "ct"})
    old = make_run_folder(
        home / "results/CT",
        "UNet",
        channel_names=("PET", "CT"),
        normalisation=("z-score", CT),
        augmentation=AUGMENTATION.model_copy(update={"intensity_unit": (3.0, 5.0)}),
    )
    assert typed(PLAN, "-d", "New2", "--like", old, "--plan-only", home=home).returncode == 0
    plan = read_plan(home / "preprocessed/New2/like_2d")
    first, second = plan.preprocessing.normalisation
    assert (first, second.model_dump()) == ("noNorm", CT)
    assert plan.augmentation.intensity_unit[1] == 5.0 != plan.augmentation.intensity_unit[0]
    assert "; noNorm as auto plans: channel 0 (noNorm)" in plan.reasons["preprocessing.normalisation"]
    change_json(home / "raw/New2/dataset.json", channel_names={"0": "T1", "1": "T2"})
    result = typed(PLAN, "-d", "New2", "--like", old, "--replan", "--plan-only", home=home)
    assert_refused(result, "its channels are PET, CT, those of New2 are T1, T2: none is the same", code=1)
