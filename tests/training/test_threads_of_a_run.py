"""The threads of a run: its bits follow from the numbers in its log, however it was interrupted; other work is noticed, and noted."""

from dataclasses import replace

import pytest
import torch
from test_resume import assert_same, results
from tiny_runs import make_home, make_request
from whole_runs import SAVED_AT_ONCE, Kill, killed_at, lines

from trainers.utnet import recipe
from utseg.compute.threads import Threads
from utseg.trainer import train_by_recipe
from utseg.training import checkpoint, loop, prepare, time_limit
from utseg.training.processes import Processes

RECIPE = recipe("UNet")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"), iterations_per_epoch=3)


def make_short(home, output, epochs):
    settings = SAVED_AT_ONCE | {"network.base_channels": 4, "validate_every": epochs}
    return make_request(home, output, model="UNet", epochs=epochs, settings=settings)


class Given(Threads):
    """Gives each iteration, from `self.at` on, its number of a list."""

    def __init__(self, numbers, at=0):
        super().__init__("training", adapts=False)
        self.numbers, self.at = numbers, at

    def timed(self):
        self._number = self.numbers[self.at]
        self.at += 1
        return super().timed()

    def go_on(self, number, usual):
        """From where the caller says."""


def train(monkeypatch, request, threads, kill_at=None):
    """Trains with these threads. Saved is what every third iteration leaves."""
    original = loop.save
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "Threads", lambda work, adapts: threads)
        patch.setattr(loop, "OVERLAYS", 0)
        patch.setattr(loop, "save", lambda run, state: None if state.iteration % 3 else original(run, state))
        if kill_at is None:
            train_by_recipe(request, RECIPE)
            return
        killed_at(patch, kill_at)
        with pytest.raises(Kill):
            train_by_recipe(request, RECIPE)


def numbers(folder):
    """The number of threads of each iteration, as the log says."""
    found = []
    for line in lines(folder):
        ends = [first for first, _ in line["threads"][1:]] + [line["iteration"] + 1]
        for (first, number), end in zip(line["threads"], ends, strict=True):
            assert first == len(found) + 1
            found += [number] * (end - first)
    return found


def test_a_run_follows_from_the_numbers_in_its_log_however_it_was_killed(home, tmp_path, monkeypatch):
    request = {name: make_short(home, tmp_path / name, epochs=2) for name in ("killed", "whole", "other")}
    first, then = [2, 1, 2, 1, 1, 1], [0, 0, 0, 2, 1, 2]
    train(monkeypatch, request["killed"], Given(first), kill_at=6)
    train(monkeypatch, replace(request["killed"], resume=True), Given(then, at=3))
    found = numbers(request["killed"].output)
    assert found == first[:3] + then[3:]
    train(monkeypatch, request["whole"], Given(found))
    assert_same(results(request["killed"].output), results(request["whole"].output))
    train(monkeypatch, request["other"], Given([1] * 6))
    weights, others = (results(request[name].output)[1] for name in ("whole", "other"))
    assert any(not torch.equal(weights[name], others[name]) for name in weights)  # else nothing was shown


def test_other_work_is_noticed_noted_and_remembered(home, tmp_path, monkeypatch, caplog):
    """Time is that of a clock that runs five times as fast while there are two threads."""
    now = [0.0]

    def clock():
        now[0] += 5.0 if torch.get_num_threads() == 2 else 1.0
        return now[0]

    def threads():
        return Threads("training", clock=clock)

    request = make_short(home, tmp_path / "run", epochs=4)
    torch.set_num_threads(2)
    try:
        with caplog.at_level("INFO", "utseg"):
            train(monkeypatch, request, threads(), kill_at=11)
        assert torch.get_num_threads() == 2
        assert caplog.text.count("training: 1 thread from here on, 5.0 times as fast as 2") == 1
        assert tuple(checkpoint.load_latest(request.output)["threads"]) == (1, 1.0)  # after the ninth
        train(monkeypatch, replace(request, resume=True), threads())
    finally:
        torch.set_num_threads(1)
    assert numbers(request.output) == [2] * 5 + [1] * 7


def test_max_time_measures_pieces_with_the_number_chosen_only_in_a_run_of_few_too(
    home, tmp_path, monkeypatch
):
    """Two threads take a second, one takes two, of a clock that nothing else moves; three iterations are planned."""
    now, measured, original = [0.0], [], time_limit.measure_iterations

    def take(*arguments):
        now[0] += 3.0 - torch.get_num_threads()

    def measure(step, batches, limit_s, clock):
        measured.append(original(step, batches, limit_s, lambda: now[0]))
        raise Kill

    monkeypatch.setattr(time_limit, "train_step", take)
    monkeypatch.setattr(time_limit, "measure_iterations", measure)
    request = replace(make_short(home, tmp_path / "run", epochs=1), max_time_s=60.0)
    torch.set_num_threads(2)
    try:
        with pytest.raises(Kill):
            monkeypatch.setattr(
                prepare, "Threads", lambda work, adapts: Threads(work, adapts=adapts, clock=lambda: now[0])
            )
            train_by_recipe(request, RECIPE)
    finally:
        torch.set_num_threads(1)
    assert measured == [1.0]


def test_compiled_steps_keep_their_number(home, tmp_path):
    torch.set_num_threads(2)
    try:
        for compiled in (False, True):
            request = replace(make_short(home, tmp_path / "run", epochs=1), compile=compiled)
            run = prepare.prepare(request, RECIPE, Processes())
            assert run.threads.is_settled == compiled
    finally:
        torch.set_num_threads(1)
