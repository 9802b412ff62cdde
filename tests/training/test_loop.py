"""Whole runs on a tiny dataset: that they end alike however they were interrupted, and what they refuse."""

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import make_home, make_request

from trainers.utnet import recipe
from utseg import trainer
from utseg.errors import ArtefactError, InputError, Interrupted, SettingError, TimeTooShort, UtsegError
from utseg.evaluate.summary import summarise
from utseg.files import write_json
from utseg.trainer import train_by_recipe
from utseg.training import checkpoint, loop, step, time_limit
from utseg.training.prepare import check_same_everywhere
from utseg.training.record import is_finished, read_run, read_weights

SAVED_AT_ONCE = {"save_minutes": 1e-5}
RECIPE, UNET = recipe("UTNet"), recipe("UNet")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"), iterations_per_epoch=3)


@pytest.fixture(scope="module")
def whole(home):
    """An uninterrupted run."""
    request = make_request(home)
    return request.output, train_by_recipe(request, RECIPE)


@pytest.fixture(autouse=True)
def no_native_validation(monkeypatch):
    """It takes as long as a tiny run; that of `whole` is there, and `test_trainer` scores others."""

    def empty(run):
        folder = run.request.output / "validation"
        folder.mkdir(exist_ok=True)
        write_json(folder / "summary.json", summarise([], ()))

    monkeypatch.setattr(trainer, "validate_at_native_resolution", empty)


def lines(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def results(folder):
    """All that has to be the same, however often a run was interrupted."""
    timeless = [{key: value for key, value in line.items() if "seconds" not in key} for line in lines(folder)]
    state = checkpoint.load_latest(folder)
    return timeless, state["network"], state["optimizer"]["state"], read_weights(folder)


def assert_same(left, right):
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def test_a_run_begins_with_the_planned_share_of_foreground(home, tmp_path):
    settings = {"initial_foreground": 0.2, "optimizer.learning_rate": 1e-12, "iterations_per_epoch": 1}
    request = make_request(home, tmp_path / "run", epochs=1, settings=settings)
    train_by_recipe(request, RECIPE)
    bias = read_weights(request.output)["heads.0.bias"]
    assert bias.softmax(0)[1:].sum().item() == pytest.approx(0.2)
    assert len(set(bias[1:].tolist())) == 1


class Kill(BaseException):
    """Ends a run at once, like SIGKILL: nothing in the program expects it."""


def killed_at(monkeypatch, iteration, kind=Kill):
    """Training dies before the given 1-based iteration."""
    original = loop.iterate

    def dying(run, state, batches):
        if state.iteration == iteration - 1:
            raise kind
        original(run, state, batches)

    monkeypatch.setattr(loop, "iterate", dying)


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


def test_the_weights_are_those_of_the_last_step(whole):
    folder, _ = whole
    assert_same(read_weights(folder), checkpoint.load_latest(folder)["network"])


def test_killed_before_the_model_is_written_it_resumes_to_the_very_same(home, whole, tmp_path, monkeypatch):
    request = make_request(home, tmp_path / "run")

    def dying(weights, folder):
        raise Kill

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(trainer, "write_weights", dying)
        train_by_recipe(request, RECIPE)
    assert not (request.output / "model.safetensors").exists() and not is_finished(request.output)
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert_same(results(request.output), results(whole[0]))
    (request.output / "model.safetensors").unlink()
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert_same(results(request.output), results(whole[0]))


@pytest.mark.parametrize(("iteration", "last_save"), [(4, 3), (8, 0), (8, 4)])
def test_a_killed_run_resumes_to_the_very_same_weights(
    home, whole, tmp_path, monkeypatch, iteration, last_save
):
    """Also from a checkpoint that lies before the last epoch of the log."""
    request = make_request(home, tmp_path / "run", settings=SAVED_AT_ONCE)
    original = loop.save
    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(
            loop, "save", lambda run, state: original(run, state) if state.iteration <= last_save else None
        )
        killed_at(patch, iteration)
        train_by_recipe(request, RECIPE)
    saved = checkpoint.load_latest(request.output)["iteration"] if last_save and iteration > 1 else 0
    assert saved == min(last_save, iteration - 1)
    assert len(lines(request.output)) == (iteration - 1) // 3
    torch.rand(7), np.random.random(3)  # noqa: NPY002
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert_same(results(request.output), results(whole[0]))


def test_averaged_weights_are_saved_as_the_model_and_resumed_in_float16(home, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "GradScaler", partial(step.GradScaler, init_scale=2.0**22, growth_interval=2))
    settings = {"weight_average": 0.1, "amp": "float16"} | SAVED_AT_ONCE
    whole, killed = (
        make_request(home, tmp_path / name, selection="all", settings=settings)
        for name in ("whole", "killed")
    )
    train_by_recipe(whole, RECIPE)
    saved = checkpoint.load_latest(whole.output)
    assert_same(read_weights(whole.output), saved["average"]["network"])
    name = next(iter(dict(saved["network"])))
    assert not torch.equal(saved["average"]["network"][name], saved["network"][name])
    assert saved["average"]["steps"] == 12
    assert (
        sum(line["skipped_steps"] for line in lines(whole.output)) >= 1 and saved["scaler"]["scale"] < 2**22
    )
    with monkeypatch.context() as patch, pytest.raises(Kill):
        killed_at(patch, 8)
        train_by_recipe(killed, RECIPE)
    train_by_recipe(replace(killed, resume=True), RECIPE)
    assert_same(results(killed.output), results(whole.output))
    assert_same(checkpoint.load_latest(killed.output)["average"], saved["average"])
    assert checkpoint.load_latest(killed.output)["scaler"] == saved["scaler"]


@pytest.mark.parametrize("began_with", [True, False], ids=["bfloat16", "float32"])
def test_a_run_goes_on_in_the_precision_that_it_began_in_on_another_processor(
    home, tmp_path, monkeypatch, caplog, began_with
):
    request = make_request(home, tmp_path / "run", settings={"iterations_per_epoch": 1} | SAVED_AT_ONCE)
    has = {"avx512_bf16": began_with}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        killed_at(patch, 3)
        train_by_recipe(request, RECIPE)
    began_in = "bfloat16" if began_with else "off"
    assert read_run(request.output).recipe["amp"] == began_in
    assert "no instructions" not in caplog.text
    has["avx512_bf16"] = not began_with
    asked_for = {"settings": {"amp": "off" if began_with else "bfloat16"} | request.settings}
    with pytest.raises(InputError, match=r"recipe\.amp"):
        train_by_recipe(replace(request, resume=True, **asked_for), RECIPE)
    used, original = set(), loop.train_step

    def seen(network, optimizer, batch, recipe, *words):
        used.add(recipe.amp)
        return original(network, optimizer, batch, recipe, *words)

    monkeypatch.setattr(loop, "train_step", seen)
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert used == {began_in}
    assert ("trains in bfloat16 (amp), for which this CPU has no instructions" in caplog.text) == began_with


def test_processors_of_another_kind_may_train_one_run_in_the_precision_of_the_first(whole):
    record = read_run(whole[0])
    seen = []

    def alike(**changes):
        changed = record.model_copy(update={"recipe": record.recipe | changes})
        check_same_everywhere(SimpleNamespace(record=changed, processes=SimpleNamespace(gather=gather)))
        return seen[-1] == seen[0]

    def gather(value):
        seen.append(value)
        return [value]

    assert alike() and alike(amp="bfloat16")
    assert not alike(gradient_clip_norm=1.0)


def test_a_signal_saves_in_the_middle_of_an_epoch_and_is_resumable(home, whole, tmp_path, monkeypatch):
    request = make_request(home, tmp_path / "run")
    original, handler = loop.iterate, signal.getsignal(signal.SIGTERM)
    for last in (5, 11):

        def signalled(run, state, batches, last=last):
            original(run, state, batches)
            if state.iteration == last:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"iteration {last} of 12"):
            patch.setattr(loop, "iterate", signalled)
            train_by_recipe(request, RECIPE)
        request = replace(request, resume=True)
        assert checkpoint.load_latest(request.output)["iteration"] == last
    assert signal.getsignal(signal.SIGTERM) is handler
    train_by_recipe(request, RECIPE)
    assert_same(results(request.output), results(whole[0]))


def test_a_signal_during_validation_stops_it_and_loses_nothing(home, whole, tmp_path, monkeypatch):
    request = make_request(home, tmp_path / "run")
    original, calls = loop.validate, []

    def signalled(network, store, cases, plan, device, **options):
        calls.append(cases)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(network, store, cases, plan, device, **options)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="iteration 6 of 12"):
        patch.setattr(loop, "validate", signalled)
        train_by_recipe(request, RECIPE)
    assert len(lines(request.output)) == 1
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert_same(results(request.output), results(whole[0]))


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


def test_a_damaged_latest_checkpoint_costs_an_epoch_not_the_run(home, whole, tmp_path, caplog):
    request = make_request(home, tmp_path / "run", settings=SAVED_AT_ONCE)
    train_by_recipe(request, RECIPE)
    request = replace(request, resume=True)
    latest = request.output / checkpoint.LATEST
    data = bytearray(latest.read_bytes())
    data[len(data) // 2] ^= 1
    latest.write_bytes(data)
    with caplog.at_level("WARNING", "utseg"):
        train_by_recipe(request, RECIPE)
    assert "previous checkpoint is used (epoch 3)" in caplog.text
    assert_same(results(request.output), results(whole[0]))


def test_a_finished_run_is_not_trained_again(home, whole, monkeypatch):
    folder, result = whole
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    again = train_by_recipe(make_request(home, resume=True), RECIPE)
    assert again == result
    with pytest.raises(InputError, match="--overwrite"):
        train_by_recipe(make_request(home), RECIPE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"} == before


def test_an_unfinished_run_is_neither_continued_nor_replaced_unasked(home, whole, tmp_path, monkeypatch):
    request = make_request(home, tmp_path / "run", settings=SAVED_AT_ONCE)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        killed_at(patch, 5)
        train_by_recipe(request, RECIPE)
    with pytest.raises(InputError, match="--resume goes on"):
        train_by_recipe(request, RECIPE)
    train_by_recipe(replace(request, overwrite=True), RECIPE)
    assert_same(results(request.output), results(whole[0]))


def test_a_run_killed_before_its_first_checkpoint_starts_by_the_same_command(home, tmp_path, monkeypatch):
    request = make_request(home, tmp_path / "run", epochs=1)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        killed_at(patch, 2)
        train_by_recipe(request, RECIPE)
    train_by_recipe(request, RECIPE)
    assert is_finished(request.output)


def test_nothing_to_resume(home, tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        train_by_recipe(make_request(home, tmp_path / "run", resume=True), RECIPE)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"settings": {"patch_size": [24, 24]}}, "plan.patch_size"),
        ({"settings": {"optimizer.learning_rate": 0.001}}, "recipe.optimizer.learning_rate"),
        ({"seed": 5}, "seed (0 then, 5 now)"),
        ({"epochs": 9}, "epochs (4 then, 9 now)"),
        ({"selection": "fold1"}, "validation_cases"),
    ],
)
def test_resuming_another_run_is_refused_by_the_name_of_the_key(home, whole, changes, key):
    request = make_request(home, whole[0], resume=True, **changes)
    with pytest.raises(InputError) as refused:
        train_by_recipe(request, RECIPE)
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_resuming_with_other_data_is_refused(home, whole, tmp_path):
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    record = next((copy / "preprocessed").rglob("case.json"))
    content = json.loads(record.read_text())
    content["slices"][0]["sha256"] = "0" * 64
    record.write_text(json.dumps(content))
    with pytest.raises(InputError, match="data_sha256"):
        train_by_recipe(make_request(copy, resume=True), RECIPE)


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
    request = make_request(home, tmp_path / "run", max_time_s=60.0)
    monkeypatch.setattr(time_limit, "LEAST_ITERATIONS", 18)  # half of which are three epochs
    monkeypatch.setattr(time_limit, "measure_iterations", lambda step, batches, limit, clock: 0.5)
    monkeypatch.setattr(
        time_limit, "epochs_that_fit", lambda first, done, spent, limit: max(done + 1, min(first, 3))
    )
    monkeypatch.setattr(time_limit, "LEAST_EPOCHS", 30)
    with caplog.at_level("INFO", "utseg"):
        train_by_recipe(request, RECIPE)
    assert "3 epochs instead of 3" in caplog.text
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
