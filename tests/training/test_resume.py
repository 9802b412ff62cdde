"""Runs that were killed, stopped or damaged go on and end alike; what resuming refuses."""

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import make_request
from whole_runs import RECIPE, SAVED_AT_ONCE, Kill, killed_at, lines

from utseg import trainer
from utseg.errors import InputError, Interrupted
from utseg.trainer import train_by_recipe
from utseg.training import checkpoint, loop, step
from utseg.training.prepare import check_same_everywhere
from utseg.training.record import is_finished, read_run, read_weights

pytestmark = pytest.mark.usefixtures("no_native_validation")


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
    settings = {"weight_average": 0.1, "amp": "float16", "orthogonal_updates": True} | SAVED_AT_ONCE
    whole, killed = (
        make_request(home, tmp_path / name, selection="all", settings=settings)
        for name in ("whole", "killed")
    )
    train_by_recipe(whole, RECIPE)
    saved = checkpoint.load_latest(whole.output)
    assert {group["orthogonal"] for group in saved["optimizer"]["param_groups"]} == {True, False}
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


def test_a_finished_run_whose_checkpoints_are_gone_keeps_its_model(home, whole, tmp_path):
    folder = Path(shutil.copytree(whole[0], tmp_path / "run"))
    for path in folder.glob("checkpoint_*.pt"):
        path.unlink()
    with pytest.raises(InputError, match="its checkpoints are gone"):
        train_by_recipe(make_request(home, folder, resume=True), RECIPE)
    (folder / "validation/summary.json").unlink()  # as of a model that was imported without scores
    with pytest.raises(InputError, match="a trained model is there; --overwrite"):
        train_by_recipe(make_request(home, folder), RECIPE)
    assert_same(read_weights(folder), read_weights(whole[0]))


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
