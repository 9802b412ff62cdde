"""The number of threads on a simulated machine: the fastest, alone and beside other work; no flapping, few trials, one line a switch."""

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utseg.compute.threads import Threads, changes, numbers_up_to

ALONE = {1: 0.92, 2: 0.55}  # seconds of a training step, as measured on two cores
BESIDE = {1: 0.92, 2: 1.8}  # with a busy neighbour


class Machine:
    """Time passes by what `seconds` says of a number of threads at a piece of work."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 0.0
        self.used = []

    def work(self, threads, pieces):
        """Does so many pieces; returns the seconds they took."""
        began = self.now
        for _ in range(pieces):
            with threads.timed() as number:
                assert torch.get_num_threads() == number
                self.now += self.seconds(number, len(self.used))
                self.used.append(number)
        return self.now - began


@contextmanager
def cores(number, seconds, **changed):
    """A machine, and threads on it that start with that number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    machine = Machine(seconds)
    try:
        with Threads("training", **({"clock": lambda: machine.now} | changed)) as threads:
            yield machine, threads
        assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)


def of_many(neighbours):
    """Sixteen cores, on which a thread that shares its core takes three times as long, and the others wait for it."""
    return lambda number, at: (3 if number > 16 - neighbours else 1) / number


def test_alone_nothing_is_lost_but_one_piece(caplog):
    with caplog.at_level("INFO", "utseg"), cores(2, lambda number, at: ALONE[number]) as (machine, threads):
        assert machine.work(threads, 1000) <= 1000 * ALONE[2] + ALONE[1] - ALONE[2] + 1e-9
        assert machine.used.count(1) == 1 and not caplog.text


def test_beside_a_busy_process_it_is_nearly_as_fast_as_one_thread():
    with cores(2, lambda number, at: BESIDE[number]) as (machine, threads):
        taken = machine.work(threads, 500)
    assert taken < 500 * ALONE[2] / 0.55
    assert machine.used[-1] == 1
    assert machine.used[20:].count(2) * (BESIDE[2] - BESIDE[1]) <= 0.03 * taken


def test_it_follows_a_neighbour_that_comes_and_goes_and_says_so_once_each(caplog):
    def seconds(number, at):
        return (BESIDE if 200 <= at < 400 else ALONE)[number]

    with caplog.at_level("INFO", "utseg"), cores(2, seconds) as (machine, threads):
        machine.work(threads, 600)
    assert set(machine.used[20:200]) == {2}
    assert set(machine.used[210:240]) == {1}
    assert set(machine.used[460:]) == {2}
    assert caplog.messages == [
        "training: 1 thread from here on, 2.0 times as fast as 2",
        "training: 2 threads from here on, 1.7 times as fast as 1",
    ]


def test_times_that_scatter_make_it_neither_flap_nor_lose():
    rng = np.random.default_rng(0)
    beside = rng.lognormal(0, 0.7, 2000)

    def seconds(number, at):
        return BESIDE[number] * (beside[at] if number == 2 else rng.uniform(0.9, 1.15))

    with cores(2, seconds) as (machine, threads):
        taken = machine.work(threads, 2000)
    assert len(changes(machine.used, 0)) < 0.04 * 2000
    assert taken < 1.1 * 2000 * BESIDE[1]


@pytest.mark.parametrize("each_s", [40, 400])
def test_a_neighbour_that_comes_and_goes_all_the_time_costs_little(each_s):
    with cores(2, None) as (machine, threads):
        machine.seconds = lambda number, at: (BESIDE if machine.now // each_s % 2 else ALONE)[number]
        taken = machine.work(threads, 4000)
    assert taken < 1.1 * 4000 * BESIDE[1]


@pytest.mark.parametrize(("neighbours", "chosen"), [(0, 16), (1, 15), (4, 8), (10, 16)])
def test_on_many_cores_it_takes_what_is_fastest(neighbours, chosen):
    with cores(16, of_many(neighbours)) as (machine, threads):
        machine.work(threads, 40)
        assert threads.choice[0] == machine.used[-1] == chosen
        machine.seconds = of_many(0)
        machine.work(threads, 400)
        assert machine.used[-1] >= 15  # the sixteenth is worth less than what tells numbers apart


@pytest.mark.parametrize(("number", "adapts"), [(1, True), (4, False)])
def test_with_one_thread_or_unless_it_adapts_nothing_is_timed(number, adapts):
    with cores(number, lambda used, at: 1.0 + 5 * (at > 10), adapts=adapts) as (machine, threads):
        assert threads.is_settled
        machine.work(threads, 30)
    assert set(machine.used) == {number}
    assert threads.choice == (number, None)


def test_pieces_of_other_sizes_are_told_from_slower_ones():
    with cores(2, None) as (machine, threads):
        for size in [4, 4, 4, 1] * 50:
            with threads.timed(size) as number:
                machine.now += size * ALONE[number]
                machine.used.append(number)
    assert machine.used.count(1) == 1


def test_a_piece_that_fails_is_not_timed():
    with cores(2, lambda number, at: ALONE[number]) as (_, threads):
        for _ in range(20):
            with pytest.raises(ValueError), threads.timed():
                raise ValueError
        assert not threads.is_settled and threads.choice == (2, None)


def test_what_was_known_is_not_tried_again():
    with cores(2, lambda number, at: ALONE[number]) as (machine, threads):
        machine.work(threads, 50)
        known = threads.choice
    with cores(2, lambda number, at: ALONE[number]) as (machine, threads):
        threads.go_on(*known)
        assert threads.is_settled
        machine.work(threads, 50)
        assert set(machine.used) == {2}
        threads.go_on(*known)
        machine.seconds = lambda number, at: BESIDE[number]
        machine.work(threads, 20)
        assert machine.used[-1] == 1


@pytest.mark.parametrize(("number", "allowed"), [(8, 6), (6, 6), (4, 3), (1, 1)])
def test_no_more_are_gone_on_with_than_are_allowed_now(number, allowed):
    with cores(6, lambda number, at: 1.0) as (machine, threads):
        threads.go_on(number, 1.0)
        machine.work(threads, 1)
    assert machine.used == [allowed]


@given(st.integers(1, 300))
def test_the_numbers_that_are_tried_are_few_and_reach_from_one_to_all(most):
    numbers = numbers_up_to(most)
    assert numbers == sorted(set(numbers)) and numbers[0] == 1 and numbers[-1] == most
    assert most == 1 or most - 1 in numbers
    assert len(numbers) <= most.bit_length() + 1


@given(st.lists(st.integers(1, 3)), st.integers(0, 9))
def test_changes_say_of_each_piece_how_many_threads_it_had(numbers, first):
    found = changes(numbers, first)
    assert [max(pair for pair in found if pair[0] <= first + at)[1] for at in range(len(numbers))] == numbers
    assert all(left != right for (_, left), (_, right) in pairwise(found))
