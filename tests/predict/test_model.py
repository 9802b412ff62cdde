"""Which runs predict, and what may be wrong with one."""

import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_models import band_model, make_run_folder

from utseg.errors import ArtefactError, InputError, UsageError
from utseg.predict.model import choose_runs, in_one_numbering, load_model
from utseg.training.record import read_weights, write_weights

CPU = torch.device("cpu")


@pytest.fixture()
def run(tmp_path) -> Path:
    return make_run_folder(tmp_path / "Tiny")


@pytest.mark.parametrize("model", ["UTNet", "UNet"])
def test_a_loaded_model_is_the_network_that_was_saved(tmp_path, model):
    folder = make_run_folder(tmp_path / "Tiny", model)
    loaded = load_model(folder, CPU)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert loaded.name == f"Tiny/auto_2d/{model}/fold0"
    saved = read_weights(folder)
    assert all(torch.equal(value, saved[name]) for name, value in loaded.network.state_dict().items())
    x = torch.randn(2, 1, 33, 20)
    assert loaded.network.main_logits(x).shape == (2, 4, 33, 20)


def test_nothing_there(tmp_path):
    with pytest.raises(ArtefactError, match=r"run\.json not found"):
        load_model(tmp_path, CPU)


def test_no_weights(run):
    (run / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors: not found, .* has not come to its end"):
        load_model(run, CPU)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.99])
def test_a_flipped_bit_in_the_weights_is_noticed(run, where):
    path = run / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 64
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match=r"model\.safetensors: damaged"):
        load_model(run, CPU)


def test_weights_of_another_network(run):
    record = json.loads((run / "run.json").read_text())
    record["plan"]["network"]["base_channels"] = 8
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match=r"has the shape .* where the network has .*\(and \d+ more\)"):
        load_model(run, CPU)


def test_weights_that_miss_a_tensor_or_have_one_too_many(run):
    weights = read_weights(run)
    first = next(iter(weights))
    write_weights({name: value for name, value in weights.items() if name != first}, run)
    with pytest.raises(ArtefactError, match=f"{first} is missing"):
        load_model(run, CPU)
    write_weights(weights | {"more": torch.zeros(1)}, run)
    with pytest.raises(ArtefactError, match="more is not in the network"):
        load_model(run, CPU)


def test_weights_that_are_not_finite(run):
    weights = read_weights(run)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].flatten()[0] = float("nan")
    write_weights(weights, run)
    with pytest.raises(ArtefactError, match=f"{name} has values that are not finite"):
        load_model(run, CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network_name", "os.system"),
        ("network", {"levels": "many"}),
        ("network", {"num_classes": 3}),
    ],
)
def test_a_record_that_does_not_hold_together(run, key, value):
    record = json.loads((run / "run.json").read_text())
    record["plan"][key] = value
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match=r"run\.json"):
        load_model(run, CPU)


def test_a_checkpoint_that_is_none_is_not_taken_for_the_best(run):
    with pytest.raises(UsageError, match="checkpoint 'latest': expected one of final, best"):
        load_model(run, torch.device("cpu"), "latest")


def test_the_only_plan_model_and_fold_need_no_name(tmp_path, run):
    assert choose_runs(tmp_path / "Tiny") == [run]


def test_all_folds_are_taken_unless_some_are_named(tmp_path):
    dataset = tmp_path / "Tiny"
    folds = [make_run_folder(dataset, fold=f"fold{i}") for i in range(3)]
    other = make_run_folder(dataset, fold="vendor=A")
    make_run_folder(dataset, fold="fold=1")  # trained on what a column called fold says
    assert choose_runs(dataset) == folds
    assert choose_runs(dataset, folds=["fold2", "fold0", "fold2"]) == [folds[2], folds[0]]
    assert choose_runs(dataset, folds=["vendor=A"]) == [other]


def test_runs_that_are_not_finished_give_way_to_those_that_are(tmp_path, caplog):
    dataset = tmp_path / "Tiny"
    folds = [make_run_folder(dataset, fold=f"fold{i}") for i in range(3)]
    for fold in (folds[0], folds[2]):
        (fold / "model.safetensors").unlink()  # it is written at the end
    with caplog.at_level(logging.WARNING, logger="utseg"):
        assert choose_runs(dataset) == [folds[1]]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "left out, its training has not finished"
    ] * 2
    with pytest.raises(InputError, match=r"trained: fold1 \(begun, not finished: fold0, fold2\)"):
        choose_runs(dataset, folds=["fold0"])
    (folds[1] / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no trained model is there"):
        choose_runs(dataset)


def test_what_is_not_clear_is_listed(tmp_path):
    dataset = tmp_path / "Tiny"
    make_run_folder(dataset, fold="vendor=A")
    make_run_folder(dataset, fold="all")
    with pytest.raises(UsageError, match="several selections: all, vendor=A; choose with -f"):
        choose_runs(dataset)
    make_run_folder(dataset, "UNet")
    with pytest.raises(
        UsageError, match="several models are trained: UNet, UTNet; choose one or more with -m"
    ):
        choose_runs(dataset)
    assert choose_runs(dataset, models=["UNet"]) == [dataset / "auto_2d" / "UNet" / "fold0"]
    make_run_folder(dataset, "UNet", planner="cpu")
    with pytest.raises(UsageError, match="several plans have trained models: auto, cpu; choose one with -pl"):
        choose_runs(dataset)
    assert choose_runs(dataset, planner="cpu") == [dataset / "cpu_2d" / "UNet" / "fold0"]


def test_what_is_not_there_is_said_with_what_is(tmp_path, run):
    dataset = tmp_path / "Tiny"
    with pytest.raises(InputError, match="UTNet is not trained on 'fold3'; trained: fold0"):
        choose_runs(dataset, folds=["fold3"])
    with pytest.raises(InputError, match="UNet is not trained there; trained: UTNet"):
        choose_runs(dataset, models=["UNet"])
    with pytest.raises(InputError, match="plans with trained models: auto"):
        choose_runs(dataset, planner="cpu")
    with pytest.raises(InputError, match="no trained model is there"):
        choose_runs(tmp_path / "Other")
    with pytest.raises(UsageError, match="not a plain name"):
        choose_runs(dataset, models=["../UTNet"])


def test_models_predict_together_only_for_the_same_task():
    models = [band_model(), band_model(spacing_yx_mm=(2.0, 2.0))]
    assert in_one_numbering(models) == models
    with pytest.raises(InputError, match=r"do not match by name: .* no counterpart for RV, scar; "):
        in_one_numbering([band_model(), band_model(labels={"background": 0, "LV": 1, "MYO": 2, "scar": 3})])
    with pytest.raises(InputError, match="channel_names are"):
        in_one_numbering([band_model(), band_model(channel_names=("T1", "T2"))])


def test_a_model_of_another_numbering_gives_its_outputs_in_the_order_of_the_first(tmp_path):
    others = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    cpu = torch.device("cpu")
    first = load_model(make_run_folder(tmp_path / "A", seed=1), cpu)
    second = load_model(make_run_folder(tmp_path / "B", seed=2, labels=others), cpu)
    same, changed = in_one_numbering([first, second])
    assert same is first
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(changed.network.main_logits(x), second.network.main_logits(x)[:, [0, 3, 2, 1]])
    assert (
        second.record.plan.preprocessing.labels == others
        and changed.record.plan.preprocessing.labels == first.record.plan.preprocessing.labels
    )
