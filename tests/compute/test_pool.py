"""The seam for parallel work: outcomes, bounded work ahead, dead workers named, one thread a worker."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import utseg.compute.pool as pool_module
from utseg.compute.pool import MOST_STOPS, THREAD_VARIABLES, InlineExecutor, process_pool, run_each
from utseg.errors import InputError, Interrupted, WorkerError


def double_or_refuse(number: int) -> int:
    if number == 3:
        raise InputError("three is refused")
    return 2 * number


def threads(_: int) -> list[str | None]:
    return [os.environ.get(variable) for variable in THREAD_VARIABLES]


def die(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_each_item_has_its_outcome_and_one_error_stops_no_other():
    outcomes = {each.item: each for each in run_each(double_or_refuse, range(8), InlineExecutor())}
    assert {item: each.result for item, each in outcomes.items() if item != 3} == {
        item: 2 * item for item in range(8) if item != 3
    }
    assert isinstance(outcomes[3].error, InputError)


def process_id(_: int) -> int:
    return os.getpid()


def test_a_pool_of_none_works_in_this_process():
    with process_pool(0) as pool:
        assert {each.result for each in run_each(process_id, range(3), pool, workers=0)} == {os.getpid()}


def test_items_come_in_order_where_that_is_asked_for_though_the_first_takes_longest():
    second_is_done = threading.Event()

    def work(item):
        if item == 0:
            second_is_done.wait(20)
        second_is_done.set()
        return item

    with ThreadPoolExecutor(2) as threads:
        found = [each.result for each in run_each(work, range(6), threads, in_order=True)]
    assert found == [*range(6)]


def test_an_item_that_is_stopped_is_run_again_but_not_for_ever():
    tries = []

    def stopped(item):
        tries.append(item)
        if item == "always" or tries.count(item) < 3:
            raise Interrupted("its job's time was up")
        return item

    outcomes = {each.item: each for each in run_each(stopped, ["twice", "always"], InlineExecutor())}
    assert outcomes["twice"].result == "twice" and tries.count("twice") == 3
    assert isinstance(outcomes["always"].error, Interrupted) and tries.count("always") == MOST_STOPS + 1


def test_workers_that_come_later_get_work(monkeypatch):
    monkeypatch.setattr(pool_module, "GROWS_S", 0.02)
    met = threading.Barrier(2, timeout=20)

    def meet(item):
        threads._max_workers = 2
        return met.wait()

    with ThreadPoolExecutor(2) as threads:
        threads.ahead_per_worker, threads._max_workers = 1, 1
        results = list(run_each(meet, "ab", threads))
    assert sorted(each.result for each in results) == [0, 1]


def test_items_are_taken_a_few_ahead_only():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    for done, _ in enumerate(run_each(abs, items(), InlineExecutor(), workers=2), start=1):
        assert len(taken) <= done + 4


def test_workers_use_one_thread_and_a_dead_one_is_named():
    with process_pool(1) as pool:
        assert pool.submit(threads, 0).result(timeout=60) == ["1"] * len(THREAD_VARIABLES)
        with pytest.raises(WorkerError, match=r"one of: .*1.*memory"):
            list(run_each(die, [1], pool))
