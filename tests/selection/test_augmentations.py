"""Test-time augmentation is chosen where it gains for certain, and switched off where it does not; utseg_predict follows."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_folds import make_folds, validated_in
from tiny_models import make_plan
from torch import Tensor, nn

from utseg.commands import find_best_configuration as command
from utseg.commands.predict import main as predict
from utseg.files import sha256
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, NO_AUGMENTATION
from utseg.inference.views import TestTimeAugmentation as Augmentation
from utseg.predict.model import LoadedModel
from utseg.predict.record import read_record
from utseg.selection import best_augmentation, read_best
from utseg.selection.augmentations import draw_subjects
from utseg.selection.models import DEFAULT_TTA_SUBJECTS
from utseg.training.record import WEIGHTS_FILE, read_run

SUBJECTS = 8
MIRRORED = Augmentation(mirror_axes=("x",))


class ByBrightness(nn.Module):
    """The labels of the made hearts by how bright a pixel is (z-scores), with what a subclass makes of it."""

    levels = (-0.2, 5.0, 1.4, 4.4)

    def main_logits(self, x: Tensor) -> Tensor:
        return torch.cat([-4 * (x[:, :1] - level) ** 2 for level in self.levels], 1)


class Noisy(ByBrightness):
    """Sees through a dirty window: the same noise on every image, another one on its mirror image."""

    def main_logits(self, x: Tensor) -> Tensor:
        noise = torch.randn(4, *x.shape[2:], generator=torch.Generator().manual_seed(0))
        return super().main_logits(x) + 1.5 * noise


class Handed(ByBrightness):
    """Sure that there is nothing where the brighter half is not on the left, as it is in all hearts that it has seen."""

    def main_logits(self, x: Tensor) -> Tensor:
        half = x.shape[3] // 2
        mirrored = x[..., :half].mean((1, 2, 3)) < x[..., -half:].mean((1, 2, 3))
        nothing = torch.tensor([50.0, 0, 0, 0])[:, None, None]
        return torch.where(mirrored[:, None, None, None], nothing, super().main_logits(x))


def make_home(home: Path, network: type[nn.Module], rotation_deg: float, patch: pytest.MonkeyPatch) -> Path:
    """Eight subjects, two folds of one model that is the network whatever its weights."""

    def load(folder: Path, _: torch.device, checkpoint: str = "final") -> LoadedModel:
        own = network().requires_grad_(False).eval()
        own.register_buffer("nothing", torch.zeros(1))
        own.register_parameter("none", nn.Parameter(torch.zeros(1), requires_grad=False))
        return LoadedModel(own, read_run(folder), folder, sha256(folder / WEIGHTS_FILE))

    for place in ("made_folds", "utseg.steps.prediction", "utseg.predict.model"):
        patch.setattr(f"{place}.load_model", load)
    trained = make_plan(mirror_axes=("x",)).augmentation
    trained = trained.model_copy(update={"rotation_deg": rotation_deg, "rotation_probability": 0.5})
    return make_folds(home, models=("UNet",), subjects=SUBJECTS, augmentation=trained)


def find(home: Path, *words: object) -> int:
    return command.main([*map(str, words), "--home", str(home), "--device", "cpu", "-np", "1"])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A home in which augmentation gains, and the choice was made once. While it lives all models are that network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 100)
        patch.setattr("utseg.selection.find.INLINE", 100)
        home = make_home(tmp_path_factory.mktemp("noisy") / "home", Noisy, 30.0, patch)
        assert find(home, "--quiet") == 0
        yield home


def results(home: Path) -> Path:
    return home / "results" / "Tiny"


def test_it_is_chosen_where_it_gains_for_certain(noisy):
    measured = read_best(results(noisy)).augmentation
    assert measured.chosen != NO_AUGMENTATION
    assert len(measured.subjects) == SUBJECTS and measured.cases == 2 * SUBJECTS
    assert [trial.passes for trial in measured.trials] == [2, 3, 6]
    taken = next(trial for trial in measured.trials if trial.augmentation == measured.chosen)
    assert taken.pays and taken.gain > 0.01 and taken.interval95[0] > 0 and taken.p < 0.05
    assert taken.subjects_better == SUBJECTS
    assert all(after > before for before, after in taken.labels.values())
    assert measured.trials[0].augmentation == MIRRORED and measured.trials[0].pays
    assert taken.words in measured.why


def test_each_subject_was_predicted_by_the_fold_that_held_it_back(noisy):
    """And nothing was predicted that validation had done already."""
    folder = results(noisy) / "selection/tta/auto_2d-UNet"
    assert {path.name for path in folder.iterdir()} == {"none", "turn_-10_10", "mirror_x+turn_-10_10"}
    for made in folder.glob("*/fold*"):
        run = results(noisy) / "auto_2d/UNet" / made.name
        record = read_record(made)
        assert set(record.cases) <= set(read_run(run).validation_cases)
        assert [model.weights_sha256 for model in record.models] == [sha256(run / WEIGHTS_FILE)]
        assert {path.name.removesuffix(".nii.gz") for path in made.glob("*.nii.gz")} == set(record.cases)
    assert len(list(folder.rglob("*.nii.gz"))) == 3 * 2 * SUBJECTS


def test_a_second_time_nothing_is_predicted_and_the_same_is_written(noisy, monkeypatch, capfd):
    before = (results(noisy) / "best.json").read_bytes()
    monkeypatch.setattr("utseg.predict.pipeline.predict_cases", None)
    assert find(noisy) == 0
    assert (results(noisy) / "best.json").read_bytes() == before
    said = capfd.readouterr().out
    assert "test-time augmentation, on 8 of the subjects" in said
    assert "mirrored along x, turned by −10° and 10°" in said and "6 passes" in said


def test_what_the_choice_says_is_what_predicts(noisy, tmp_path):
    chosen = read_best(results(noisy)).augmentation.chosen

    def used(*words: str) -> Augmentation:
        source = [
            "-i",
            str(noisy / "raw/Tiny"),
            "-o",
            str(tmp_path / "out"),
            "--home",
            str(noisy),
            "--device",
            "cpu",
        ]
        assert predict([*source, "--quiet", *words]) == 0
        return read_record(tmp_path / "out").test_time_augmentation

    assert used() == chosen
    assert used("--no-tta") == NO_AUGMENTATION
    assert used("-m", "UNet") == MIRRORED  # as training mirrored
    masks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    assert used("--resume") == chosen
    assert all(path.stat().st_mtime_ns > masks[path.name] for path in (tmp_path / "out").glob("*.nii.gz"))


def test_an_earlier_choice_which_measured_none_mirrors_as_training_did(noisy, tmp_path):
    content = json.loads((results(noisy) / "best.json").read_text())
    del content["augmentation"]
    (tmp_path / "best.json").write_text(json.dumps(content))
    assert best_augmentation(read_best(tmp_path)) == AS_MIRRORED_IN_TRAINING


def test_views_are_tried_in_the_precision_of_the_validation(noisy, tmp_path):
    home = Path(shutil.copytree(noisy, tmp_path / "home"))
    for fold in ("fold0", "fold1"):
        validated_in(results(home) / "auto_2d/UNet" / fold, "bfloat16")
    assert find(home, "--quiet") == 0
    tried = list((results(home) / "selection/tta/auto_2d-UNet").glob("*/fold*"))
    assert len(tried) == 3 * 2
    assert {read_record(made).precisions for made in tried} == {("bfloat16",)}
    validated_in(results(home) / "auto_2d/UNet/fold0", "float32")
    assert find(home, "--quiet") == 0
    assert {read_record(made).precisions for made in tried} == {("float32",)}


def test_fewer_subjects_if_wanted_and_none(noisy, tmp_path, capfd):
    home = Path(shutil.copytree(noisy, tmp_path / "home"))
    assert find(home, "--tta-subjects", 7) == 0
    assert len(read_best(results(home)).augmentation.subjects) == 7
    assert find(home, "--tta-subjects", 6) == 0
    measured = read_best(results(home)).augmentation
    assert measured.chosen == NO_AUGMENTATION and not measured.trials and measured.mean_dice is None
    assert (
        "test-time augmentation: 6 subjects are too few to tell which of 3 pays, so there is none"
        in capfd.readouterr().out
    )
    assert find(home, "--tta-subjects", 5, "--quiet") == 0
    measured = read_best(results(home)).augmentation
    assert measured.why == "5 subjects are too few to tell whether it pays, so there is none"
    assert find(home, "--tta-subjects", 0) == 0
    assert read_best(results(home)).augmentation is None
    assert (
        "test-time augmentation: not measured; prediction mirrors as training did" in capfd.readouterr().out
    )
    with pytest.raises(SystemExit) as stopped:
        find(home, "--tta-subjects", "few")
    assert stopped.value.code == 2
    assert "expected a whole number of at least 0, found 'few'" in capfd.readouterr().err


def test_it_is_switched_off_where_it_hurts(tmp_path, monkeypatch):
    """Although training mirrored and validation did."""
    home = make_home(tmp_path / "home", Handed, 0.0, monkeypatch)
    assert find(home, "--quiet") == 0
    best = read_best(results(home))
    (trial,) = best.augmentation.trials
    assert trial.augmentation == MIRRORED and not trial.pays
    assert trial.why == "it costs Dice" and trial.interval95[1] < 0
    assert best.augmentation.chosen == NO_AUGMENTATION
    assert best.augmentation.mean_dice > best.mean_dice + 0.1
    assert (
        json.loads((results(home) / "best.json").read_text())["augmentation"]["chosen"]["mirror_axes"] == []
    )


@given(st.sets(st.text("abc", min_size=1), max_size=30), st.integers(0, 30))
def test_the_same_subjects_are_drawn_in_whatever_order_they_come(subjects, most):
    drawn = draw_subjects(sorted(subjects), most)
    assert drawn == draw_subjects(sorted(subjects, reverse=True), most)
    assert set(drawn) <= subjects and len(drawn) == min(most, len(subjects))
    assert list(drawn) == sorted(drawn)


def test_the_help_says_how_many_subjects():
    assert command.DEFAULT_TTA_SUBJECTS == DEFAULT_TTA_SUBJECTS
