"""Run a function over many items in worker processes or on any executor: results, errors, dead workers; `run_each` retries.

A worker that dies is named with the items it may have held; nothing waits forever. At most a few items per worker are under way, so
memory does not grow with their number.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess as ParentProcess
from typing import Any, Generic, TypeVar, cast

from utseg.errors import CaseErrors, Interrupted, UtsegError, WorkerError
from utseg.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD_PER_WORKER = 2
GROWS_S = 5.0  # how often it is asked whether workers were added
MOST_STOPS = 20  # of an item that is run again each time
# Read by the numeric libraries when they are first imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ItemLost(BrokenExecutor):
    """The workers that tried one task died; the executor works on. The message has no name in it, that is the caller's."""


class ClusterLost(BrokenExecutor):
    """All workers are gone, or the way to them. The message says which cluster and what to do."""


@dataclass(frozen=True)
class ItemResult(Generic[Item, Result]):
    """What became of one item: a result, or the error that its case caused."""

    item: Item
    result: Result | None = None
    error: UtsegError | None = None


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fresh_process_context() -> BaseContext:
    """How processes are started: without state of this one (its threads, locks and OpenMP would not survive a fork)."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


def start_worker() -> None:
    """The first thing a worker does: numeric libraries get one thread each, and the worker's life is bound to that of its parent.

    Several processes with a thread for each core slow each other down severalfold. A pool's workers would wait forever for work from a
    parent that was killed.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal's Ctrl-C reaches the whole group; the parent ends the pool
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: ParentProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def process_pool(workers: int | None = None) -> Iterator[Executor]:
    """A pool of fresh processes (no state of this one is inherited), one a core where None; 0: none, each call is done at once, here.

    An error that leaves the block cancels what is queued.
    What is being worked on is waited for, seconds at most: an interpreter that exits beside a pool in mid-air prints tracebacks.
    """
    if workers == 0:
        yield InlineExecutor()
        return
    pool = ProcessPoolExecutor(
        max_workers=workers or available_cores(),
        mp_context=fresh_process_context(),
        initializer=start_worker,
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class InlineExecutor(Executor):
    """Runs each call at once in this process: for so little work that starting others would take longer."""

    _max_workers = 1

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 — handed to the caller by the future, as any executor does
            future.set_exception(error)
        return future


def run_each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor,
    *,
    name: Callable[[Item], str] = str,
    workers: int | None = None,
    costly_items: bool = False,
    in_order: bool = False,
) -> Iterator[ItemResult[Item, Result]]:
    """Runs a picklable function over the items and yields an ItemResult as each finishes; of those that have, the first begun.

    in_order: each is waited for until all that were begun before it have been yielded.

    A UtsegError belongs to its item and is yielded; any other error is a defect and is raised. A dead worker raises WorkerError, which
    is yielded instead by an executor that knows which item died with it and has other workers.
    An item that was stopped from outside (Interrupted), as at the end of a job's time on a cluster, is run again.
    `workers`: how many the executor has; None: as it says itself, which may change. They are kept busy ahead of what is asked for.
    With `costly_items`, where making an item is work of its own, no item is made while a finished one waits to be yielded.
    """
    source = iter(items)
    under_way: dict[Future[Result], tuple[Item, int]] = {}
    exhausted = False
    ahead = getattr(executor, "ahead_per_worker", AHEAD_PER_WORKER)

    def submit(item: Item, stops: int = 0) -> None:
        try:
            under_way[executor.submit(function, item)] = item, stops
        except BrokenExecutor as error:
            raise _dead_worker(error, [*under_way.values(), (item, stops)], name) from error

    while True:
        limit = ahead * (workers or getattr(executor, "_max_workers", None) or available_cores())
        while not exhausted and len(under_way) < limit:
            if costly_items and any(future.done() for future in under_way):
                break
            try:
                submit(next(source))
            except StopIteration:
                exhausted = True
        if not under_way:
            return
        awaited = list(under_way)[:1] if in_order else under_way
        finished = wait(awaited, timeout=GROWS_S, return_when=FIRST_COMPLETED).done
        if not finished:
            continue
        future = next(future for future in under_way if future in finished)
        item, stops = under_way[future]
        try:
            result = ItemResult[Item, Result](item, result=future.result())
        except ItemLost as error:
            result = ItemResult[Item, Result](item, error=WorkerError(f"{name(item)}: {error}"))
        except BrokenExecutor as error:
            raise _dead_worker(error, under_way.values(), name) from error
        except UtsegError as error:
            result = ItemResult[Item, Result](item, error=error)
        del under_way[future]
        if isinstance(result.error, Interrupted) and stops < MOST_STOPS:
            submit(item, stops + 1)
        else:
            yield result


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    executor: Executor,
    title: str,
    *,
    name: Callable[[Item], str] = str,
    workers: int | None = None,
) -> list[Result]:
    """The results of all items, in their order, with a progress bar. Raises CaseErrors with the lines of all items that failed."""
    results: dict[int, Result] = {}
    problems: dict[int, list[str]] = {}
    with progress(title, len(items)) as advance:
        for outcome in run_each(function, items, executor, name=name, workers=workers):
            if outcome.error is not None:
                problems[id(outcome.item)] = outcome.error.lines()
            else:
                results[id(outcome.item)] = cast(Result, outcome.result)
            advance()
    if problems:
        raise CaseErrors(line for item in items for line in problems.get(id(item), []))
    return [results[id(item)] for item in items]


def _dead_worker(
    error: BrokenExecutor, held: Iterable[tuple[Item, int]], name: Callable[[Item], str]
) -> WorkerError:
    if isinstance(error, ClusterLost):
        return WorkerError(str(error))
    return WorkerError(
        f"a worker process died while working on one of: {', '.join(sorted(name(item) for item, _ in held))}; "
        "most often it was killed for lack of memory: try fewer with -np, or look into the system log"
    )
