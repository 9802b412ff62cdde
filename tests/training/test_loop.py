"""Whole runs on a tiny dataset: what they leave, how long they take, and what they refuse."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import make_request
from whole_runs import RECIPE, SAVED_AT_ONCE, Kill, killed_at, lines

from trainers.utnet import recipe
from utseg.errors import ArtefactError, InputError, SettingError, TimeTooShort, UtsegError
from utseg.trainer import train_by_recipe
from utseg.training import checkpoint, loop, time_limit
from utseg.training.record import is_finished, read_run, read_weights

pytestmark = pytest.mark.usefixtures("no_native_validation")
UNET = recipe("UNet")


def test_a_run_begins_with_the_planned_share_of_foreground(home, tmp_path):
    settings = {"initial_foreground": 0.2, "optimizer.learning_rate": 1e-12, "iterations_per_epoch": 1}
    request = make_request(home, tmp_path / "run", epochs=1, settings=settings)
    train_by_recipe(request, RECIPE)
    bias = read_weights(request.output)["heads.0.bias"]
    assert bias.softmax(0)[1:].sum().item() == pytest.approx(0.2)
    assert len(set(bias[1:].tolist())) == 1


def test_a_run_leaves_what_the_contract_names(whole):
    folder, result = whole
    names = {path.name for path in folder.iterdir()}
    assert {
        "run.json",
        "training.jsonl",
        "progress.png",
        "checkpoint_latest.pt",
        "checkpoint_best.pt",
        "model.safetensors",
        "validation",
    } <= names
    assert checkpoint.PREVIOUS not in names  # in less than save_minutes only the end was saved
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.startswith(".tmp") for name in names)
    record = read_run(folder)
    assert set(record.training_cases).isdisjoint(record.validation_cases)
    assert (record.epochs, record.iterations_per_epoch) == (4, 3)
    assert is_finished(folder)
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert summary["all"]["cases"] == len(record.validation_cases) == 2
    assert set(result) <= {"LV", "MYO", "RV"}
    assert all(0 <= value <= 1 for value in result.values())


def test_the_log_has_each_epoch_once_with_its_terms(whole):
    folder, _ = whole
    log = lines(folder)
    assert [line["epoch"] for line in log] == [1, 2, 3, 4]
    assert [line["iteration"] for line in log] == [3, 6, 9, 12]
    for line in log:
        assert line["iterations"] == 12
        terms = line["terms"]
        assert line["loss"] == pytest.approx(
            terms["cross_entropy"] + terms["dice"] + terms["auxiliary"], rel=1e-4
        )
        assert set(line["validation_dice"]) == {"LV", "MYO", "RV"}
        assert 0 <= line["data_wait_seconds"] <= line["seconds"]
    assert log[-1]["loss"] < log[0]["loss"]
    best = max(log, key=lambda line: line["mean_dice"])
    assert checkpoint.load(folder / checkpoint.BEST)["best_score"] == best["mean_dice"]


def test_tensorboard_has_scalars_and_pictures(whole):
    events = EventAccumulator(str(whole[0]))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"loss/train", "loss/validation", "optimisation/learning_rate", "validation_dice/LV"} <= scalars
    assert [event.step for event in events.Scalars("loss/train")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("loss/validation")] == [3, 6, 9, 12]
    pictures = events.Tags()["images"]
    assert pictures == [f"overlays/{case}" for case in read_run(whole[0]).validation_cases[: len(pictures)]]
    assert [event.step for event in events.Images(pictures[0])] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("epochs", "every", "shown"),
    [
        (1, 1, [1]),
        (4, 1, [1, 2, 3, 4]),
        (103, 1, [1, *range(5, 103, 5), 103]),
        (100, 3, [3, *range(3, 100, 3), 100]),
    ],
)
def test_pictures_come_with_the_first_and_the_last_validation_too(epochs, every, shown):
    validated = [number for number in range(1, epochs + 1) if number % every == 0 or number == epochs]
    found = [number for number in validated if loop.shows_pictures(number, epochs, every)]
    assert found == sorted(set(shown))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_cases(
    home, tmp_path, monkeypatch, where
):
    request = make_request(home, tmp_path / "run", settings=SAVED_AT_ONCE)
    original, seen = loop.train_step, {}

    def poisoned(network, optimizer, batch, *rest):
        if batch.iteration == 7:
            seen["weights"] = {name: value.clone() for name, value in network.named_parameters()}
            seen["network"], seen["names"] = network, batch.names
            if where == "loss":
                batch.image_BCHW[0, 0, 3, 3] = np.nan
            else:
                handle = next(iter(network.parameters())).register_hook(lambda gradient: gradient * np.inf)
        try:
            return original(network, optimizer, batch, *rest)
        finally:
            if batch.iteration == 7 and where == "gradient":
                handle.remove()

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(UtsegError, match="not finite") as stopped:
        train_by_recipe(request, RECIPE)
    message = str(stopped.value)
    assert "iteration 8 (epoch 3)" in message
    assert all(name in message for name in seen["names"])
    assert "best checkpoint (epoch" in message
    for name, value in seen["network"].named_parameters():
        assert torch.equal(value, seen["weights"][name])
    assert checkpoint.load(request.output / checkpoint.BEST)["epoch"] <= 2
    assert checkpoint.load_latest(request.output)["epoch"] == 2
    assert not (request.output / "model.safetensors").exists() and not is_finished(request.output)
    kept = request.output / checkpoint.BEST
    again = make_request(home, tmp_path / "again", weights=kept, epochs=1)
    monkeypatch.setattr(loop, "train_step", original)
    train_by_recipe(again, RECIPE)
    assert read_run(again.output).initial_weights.file == checkpoint.BEST


def test_max_time_sets_the_number_of_iterations_and_resume_keeps_it(home, tmp_path, monkeypatch):
    monkeypatch.setattr(time_limit, "LEAST_ITERATIONS", 4)
    monkeypatch.setattr(time_limit, "NATIVE_SECONDS_PER_CASE", 0.1)
    monkeypatch.setattr(time_limit, "NATIVE_SECONDS", 0.3)
    monkeypatch.setattr(time_limit, "epochs_that_fit", lambda first, done, spent, limit: first)
    original = time_limit.measure_iterations

    def measured(step, batches, limit_s, clock):
        assert original(step, batches, 0.01 * limit_s, clock) > 0
        return 5.0

    monkeypatch.setattr(time_limit, "measure_iterations", measured)
    request = make_request(home, tmp_path / "run", max_time_s=120.0)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        killed_at(patch, 4)
        train_by_recipe(request, RECIPE)
    record = read_run(request.output)
    total = record.epochs * record.iterations_per_epoch
    assert 4 <= total <= 30 and total != 12
    train_by_recipe(replace(request, resume=True), RECIPE)
    log = lines(request.output)
    assert [line["epoch"] for line in log] == list(range(1, record.epochs + 1))
    assert {line["iterations"] for line in log} == {total}
    assert log[-1]["iteration"] == total
    assert log[-1]["learning_rate"] < 0.2 * RECIPE.optimizer.learning_rate


def test_too_short_a_time_is_an_error_and_leaves_no_run(home, tmp_path, monkeypatch):
    monkeypatch.setattr(time_limit, "measure_iterations", lambda step, batches, limit, clock: 2.0)
    request = make_request(home, tmp_path / "run", max_time_s=60.0)
    with pytest.raises(
        TimeTooShort, match=r"too short to learn anything: \d+ iterations fit, 100 are the least"
    ):
        train_by_recipe(request, RECIPE)
    assert not (request.output / "run.json").exists() and not checkpoint.has_checkpoint(request.output)


def test_a_run_slower_than_measured_is_shortened(home, tmp_path, monkeypatch, caplog):
    request = make_request(home, tmp_path / "run", max_time_s=600.0)
    monkeypatch.setattr(time_limit, "LEAST_ITERATIONS", 18)  # half of which are three epochs
    monkeypatch.setattr(time_limit, "measure_iterations", lambda step, batches, limit, clock: 0.5)
    monkeypatch.setattr(
        time_limit, "epochs_that_fit", lambda first, done, spent, limit: max(done + 1, min(first, 3))
    )
    monkeypatch.setattr(time_limit, "LEAST_EPOCHS", 30)
    with caplog.at_level("INFO", "utseg"):
        train_by_recipe(request, RECIPE)
    assert re.search(r"3 epochs instead of \d\d", caplog.text)
    record = read_run(request.output)
    log = lines(request.output)
    assert record.epochs == len(log) == 3
    rates = [line["learning_rate"] for line in log]
    assert rates[1] > rates[2]
    assert rates[2] < 0.3 * RECIPE.optimizer.learning_rate


def test_a_wrong_setting_lists_the_right_ones(home, tmp_path):
    request = make_request(home, tmp_path / "run", settings={"network.base_chanels": 8})
    with pytest.raises(SettingError, match=r"did you mean 'network.base_channels'.*optimizer\.learning_rate"):
        train_by_recipe(request, RECIPE)
    request = make_request(home, tmp_path / "run", settings={"preprocessing.spacing_yx_mm": [1, 1]})
    with pytest.raises(SettingError, match="utseg_plan_and_preprocess"):
        train_by_recipe(request, RECIPE)
    request = make_request(home, tmp_path / "run", settings={"network.block_list": [1]})
    with pytest.raises(SettingError, match=r"unknown key 'network.block_list'"):
        train_by_recipe(request, UNET)
    assert not (tmp_path / "run").exists()


def test_a_setting_of_the_network_alone_reaches_it(home, tmp_path):
    settings = {"network.attention_dropout": 0.0, "network.base_channels": 8, "gradient_clip_norm": 1.0}
    request = make_request(home, tmp_path / "run", settings=settings, epochs=1)
    train_by_recipe(request, RECIPE)
    record = read_run(request.output)
    assert record.plan.network["attention_dropout"] == 0.0 and record.plan.network["base_channels"] == 8
    assert record.recipe["gradient_clip_norm"] == 1.0


def test_the_unet_trains_by_the_same_loop_on_a_selection(home, tmp_path):
    request = make_request(home, tmp_path / "run", model="UNet", selection="vendor=A", epochs=2, workers=1)
    train_by_recipe(request, UNET)
    record = read_run(request.output)
    assert record.plan.network_name == "UNet"
    vendors = {"s00": "A", "s02": "A", "s04": "A"}
    assert {case[:3] for case in (*record.training_cases, *record.validation_cases)} == set(vendors)


def test_training_on_every_subject_keeps_the_last_weights(home, tmp_path):
    request = make_request(home, tmp_path / "run", selection="all", epochs=2)
    train_by_recipe(request, RECIPE)
    record = read_run(request.output)
    assert len(record.training_cases) == 10
    assert is_finished(request.output)


def test_missing_raw_data_are_noticed_before_training(home, tmp_path):
    request = make_request(home, tmp_path / "run", raw=tmp_path / "nowhere")
    with pytest.raises((InputError, ArtefactError), match="nowhere"):
        train_by_recipe(request, RECIPE)
    assert not (tmp_path / "run").exists()
