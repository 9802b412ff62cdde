"""Runs that end before their planned end: on a plateau, and by the stop file; the cool-down is finished, also after a kill."""

from dataclasses import replace

import pytest
from test_resume import assert_same, results
from tiny_runs import make_request
from whole_runs import RECIPE, Kill, killed_at, lines

from utseg.errors import InputError, UsageError
from utseg.trainer import train_by_recipe
from utseg.training import loop, time_limit
from utseg.training.early_end import epochs_without_gain
from utseg.training.record import is_finished, read_run

pytestmark = pytest.mark.usefixtures("no_native_validation")


def touched_at(patch, iteration):
    """A person touches the stop file during this iteration."""
    original = loop.iterate

    def iterate(run, state, batches):
        original(run, state, batches)
        if state.iteration == iteration:
            (run.request.output / "stop").touch()

    patch.setattr(loop, "iterate", iterate)


def test_the_stop_file_ends_a_run_with_its_cool_down_and_a_killed_one_likewise(home, tmp_path, monkeypatch):
    stopped, killed = (make_request(home, tmp_path / name, epochs=30) for name in ("stopped", "killed"))
    with monkeypatch.context() as patch:
        touched_at(patch, 2)
        train_by_recipe(stopped, RECIPE)
    found = lines(stopped.output)
    assert [line["iterations"] for line in found] == [6, 6]
    peak = RECIPE.optimizer.learning_rate
    at = 3 / 90
    last = at + (1 - at) * 2 / 3
    assert found[-1]["learning_rate"] == pytest.approx(peak * (1 - last) ** 0.9)
    assert is_finished(stopped.output) and not (stopped.output / "stop").exists()
    record = read_run(stopped.output)
    assert (record.epochs, record.planned_epochs, record.ended_early.epoch) == (2, 30, 1)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        touched_at(patch, 2)
        killed_at(patch, 6)
        train_by_recipe(killed, RECIPE)
    assert (killed.output / "stop").exists()
    with pytest.raises(InputError, match=r"epochs \(30 then, 31 now\)"):
        train_by_recipe(replace(killed, resume=True, epochs=31), RECIPE)
    train_by_recipe(replace(killed, resume=True), RECIPE)
    assert_same(results(killed.output), results(stopped.output))


def test_killed_before_its_shorter_schedule_is_saved_it_ends_likewise(home, tmp_path, monkeypatch):
    """run.json knows the decision, no checkpoint does yet."""

    def killed(run, state):
        raise Kill

    request = make_request(home, tmp_path / "run", epochs=30)
    with monkeypatch.context() as patch, pytest.raises(Kill):
        touched_at(patch, 2)
        patch.setattr(loop, "save", killed)
        train_by_recipe(request, RECIPE)
    assert read_run(request.output).epochs == 2
    (request.output / "stop").unlink()
    train_by_recipe(replace(request, resume=True), RECIPE)
    assert [line["iterations"] for line in lines(request.output)] == [6, 6]


def test_a_plateau_ends_a_run(home, tmp_path, monkeypatch):
    """Of a Dice that falls from the second epoch on, three epochs later."""
    scores = iter([0.5, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
    original = loop.validate

    def falling(*values, **options):
        found, dice = original(*values, **options), next(scores)
        return replace(found, dice=dict.fromkeys(found.dice, dice))

    monkeypatch.setattr(loop, "validate", falling)
    request = make_request(home, tmp_path / "run", epochs=30, patience=3)
    train_by_recipe(request, RECIPE)
    assert [line["epochs"] for line in lines(request.output)] == [30, 30, 30, 30, 7, 7, 7]
    record = read_run(request.output)
    assert record.patience == 3 and record.ended_early.epoch == 5
    assert "running mean of the validation Dice in 3 epochs" in record.ended_early.why
    with pytest.raises(UsageError, match="--patience: all holds no subject back"):
        train_by_recipe(make_request(home, tmp_path / "all", selection="all", patience=3), RECIPE)


def test_a_plateau_ends_a_run_that_has_a_time_too(home, tmp_path, monkeypatch):
    """The time gave 30 epochs, and 20 after the second, which was slow; the Dice falls from the second epoch on."""
    scores = iter([0.5, 0.6, *[0.4] * 5])
    original = loop.validate

    def falling(*values, **options):
        found, dice = original(*values, **options), next(scores)
        return replace(found, dice=dict.fromkeys(found.dice, dice))

    def fitted(run, *_):
        return replace(run, record=run.record.model_copy(update={"epochs": 30}), loop_limit_s=100.0)

    monkeypatch.setattr(loop, "validate", falling)
    monkeypatch.setattr(loop, "fit_run_to_time", fitted)
    monkeypatch.setattr(time_limit, "epochs_that_fit", lambda first, done, *_: 20 if done > 1 else first)
    request = make_request(home, tmp_path / "run", max_time_s=3600.0, patience=3)
    train_by_recipe(request, RECIPE)
    found = lines(request.output)
    assert [line["epochs"] for line in found] == [30, 20, 20, 20, 7, 7, 7]
    record = read_run(request.output)
    assert (record.epochs, record.planned_epochs, record.ended_early.epoch) == (7, 30, 5)
    slowed = 6 / 90  # of the schedule, after two epochs of three iterations
    ended = slowed + (1 - slowed) * 9 / 54
    last = ended + (1 - ended) * 5 / 6
    assert found[-1]["learning_rate"] == pytest.approx(RECIPE.optimizer.learning_rate * (1 - last) ** 0.9)
    assert is_finished(request.output)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], 0),
        ([None, None], 2),
        ([0.5], 0),
        ([0.5, 0.4], 1),
        ([0.5, None, 0.6], 0),
        ([0.1, 0.9, 0.5], 0),
        ([0, 1, None, 0], 2),
    ],
)
def test_the_running_mean_counts(scores, expected):
    assert epochs_without_gain(scores) == expected
