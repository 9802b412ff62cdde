"""A run's line in TensorBoard's table, read back as TensorBoard reads it."""

import json
from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from threads import no_pictures, one_thread  # noqa: F401 — used by being there
from tiny_runs import make_home, make_request

from trainers.utnet import recipe
from utseg import trainer
from utseg.errors import Interrupted
from utseg.trainer import final_scores, train_by_recipe, write_scores

LABELS = ["LV", "MYO", "RV"]
RECIPES = {"UTNet": recipe("UTNet"), "UNet": recipe("UNet")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of two networks."""
    home = make_home(tmp_path_factory.mktemp("home"))
    root = home / "results" / "Tiny" / "tiny_2d"
    for model, its_recipe in RECIPES.items():
        train_by_recipe(make_request(home, root / model / "fold0", model=model, epochs=2), its_recipe)
    return home, root


def lines(folder):
    return list(folder.glob("events.out.tfevents.*.scores"))


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def plugin(events, part):
    content = events.SummaryMetadata(f"_hparams_/{part}").plugin_data.content
    return HParamsPluginData.FromString(content)


def settings(events):
    found = plugin(events, "session_start_info").session_start_info.hparams
    return {name: value.string_value or value.number_value for name, value in found.items()}


def test_the_line_has_the_settings_and_the_final_scores(runs):
    folder = runs[1] / "UTNet" / "fold0"
    events = read(folder)
    found = settings(events)
    record = json.loads((folder / "run.json").read_text())
    assert (found["network"], found["trained_on"], found["optimiser"]) == ("UTNet", "fold0", "sgd")
    assert (found["base_channels"], found["batch_size"], found["seed"]) == (4, 4, 0)
    assert (found["epochs"], found["iterations"], found["patch_size"]) == (2, 10, "32 × 32")
    assert found["learning_rate"] == record["recipe"]["optimizer"]["learning_rate"]
    assert found["parameters"] > 1000
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    for label in LABELS:
        expected = summary["all"]["labels"][label]["dice"]["mean"]
        tag = f"native_dice/{label}"
        if expected is None:
            assert tag not in events.Tags()["scalars"]
        else:
            (event,) = events.Scalars(tag)
            assert (event.step, event.value) == (10, pytest.approx(expected))


def test_runs_share_tags_steps_and_columns(runs):
    utnet, unet = (read(runs[1] / model / "fold0") for model in RECIPES)
    undefined = {
        f"{metric}/{label}" for metric in ("native_hd95_mm", "native_assd_mm") for label in [*LABELS, "mean"]
    }
    differing = set(utnet.Tags()["scalars"]) ^ set(unet.Tags()["scalars"])
    assert differing <= undefined | {"loss_terms/train_auxiliary"}
    assert utnet.Tags()["images"] == unet.Tags()["images"]
    for tag in ("loss/train", "loss/validation", "validation_dice/mean", "optimisation/learning_rate"):
        assert (
            [event.step for event in utnet.Scalars(tag)]
            == [event.step for event in unet.Scalars(tag)]
            == [5, 10]
        )
    columns = [plugin(events, "experiment").experiment for events in (utnet, unet)]
    assert columns[0].SerializeToString(deterministic=True) == columns[1].SerializeToString(
        deterministic=True
    )
    metrics = {metric.name.tag for metric in columns[0].metric_infos}
    assert {f"native_dice/{label}" for label in [*LABELS, "mean"]} <= metrics
    assert {found.name for found in columns[0].hparam_infos} >= set(settings(utnet)) | set(settings(unet))


def test_a_run_is_one_run_to_tensorboard(runs):
    folders = {path.parent.relative_to(runs[1]).as_posix() for path in runs[1].rglob("*tfevents*")}
    assert folders == {"UTNet/fold0", "UNet/fold0"}


def test_resuming_and_overwriting_leave_one_line(runs, tmp_path, monkeypatch):
    request = make_request(runs[0], tmp_path / "run", epochs=2)

    def interrupted(run):
        raise KeyboardInterrupt

    with (
        monkeypatch.context() as patch,
        pytest.raises(Interrupted, match="interrupted in the final validation"),
    ):
        patch.setattr(trainer, "validate_at_native_resolution", interrupted)
        train_by_recipe(request, RECIPES["UTNet"])
    assert lines(request.output) == []
    resumed = replace(request, resume=True)
    train_by_recipe(resumed, RECIPES["UTNet"])
    (line,) = lines(request.output)
    line.unlink()
    for _ in range(2):  # killed between the summary and the line; finished
        train_by_recipe(resumed, RECIPES["UTNet"])
        assert len(lines(request.output)) == 1
    train_by_recipe(replace(request, overwrite=True, epochs=1), RECIPES["UTNet"])
    assert len(lines(request.output)) == 1
    events = read(request.output)
    assert settings(events)["epochs"] == 1
    assert [event.step for event in events.Scalars("loss/train")] == [5]
    assert [event.step for event in events.Scalars("native_dice/mean")] == [5]


def test_scores_that_no_case_has_are_columns_without_a_value(tmp_path):
    empty = {"prediction_empty": 3, "both_empty": 1}
    summary = {"all": {"labels": {"LV": {"dice": {"mean": 0.5}, "hd95_mm": {"mean": None}, "empty": empty}}}}
    scores = final_scores(summary, ["LV", "RV"])
    assert scores["native_dice/LV"] == scores["native_dice/mean"] == 0.5
    assert scores["native_missed/total"] == 3
    defined = {tag for tag, value in scores.items() if value is not None}
    assert defined == {"native_dice/LV", "native_dice/mean", "native_missed/total"}
    write_scores(tmp_path, {"model": "FCN", "base_channels": None}, scores, 7)
    events = read(tmp_path)
    assert settings(events) == {"model": "FCN"}
    assert set(events.Tags()["scalars"]) == defined
    declared = plugin(events, "experiment").experiment
    assert {found.name for found in declared.hparam_infos} == {"model", "base_channels"}
    assert {metric.name.tag for metric in declared.metric_infos} == set(scores)
