"""The one seam for parallel work: any `concurrent.futures.Executor`, a process pool by default (`cluster.py` has another).

A worker that dies is named with the items it may have held; nothing waits forever. At most a few items per worker are under way, so
memory does not grow with their number.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess as ParentProcess
from typing import Any, Generic, TypeVar

from utseg.errors import UtsegError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD_PER_WORKER = 2
# Read by the numeric libraries when they are first imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ItemLost(BrokenExecutor):
    """The workers that tried one task died; the executor works on. The message has no name in it, that is the caller's."""


class ClusterLost(BrokenExecutor):
    """All workers are gone, or the way to them. The message says which cluster and what to do."""


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
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
def process_pool(workers: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes (no state of this one is inherited). An error that leaves the block cancels what is queued.

    What is being worked on is waited for, seconds at most: an interpreter that exits beside a pool in mid-air prints tracebacks.
    """
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
) -> Iterator[Outcome[Item, Result]]:
    """Runs a picklable function over the items and yields an Outcome as each finishes; of those that have, the first begun.

    A UtsegError belongs to its item and is yielded; any other error is a defect and is raised. A dead worker raises WorkerError, which
    is yielded instead by an executor that knows which item died with it and has other workers.
    `workers`: how many the executor has; None: as it says itself, which may change. They are kept busy ahead of what is asked for.
    With `costly_items`, where making an item is work of its own, no item is made while a finished one waits to be yielded.
    """
    source = iter(items)
    under_way: dict[Future[Result], Item] = {}
    exhausted = False
    ahead = getattr(executor, "ahead_per_worker", AHEAD_PER_WORKER)
    while True:
        limit = ahead * (workers or getattr(executor, "_max_workers", None) or available_cores())
        while not exhausted and len(under_way) < limit:
            if costly_items and any(future.done() for future in under_way):
                break
            try:
                item = next(source)
            except StopIteration:
                exhausted = True
                break
            under_way[_submit(executor, function, item, under_way, name)] = item
        if not under_way:
            return
        finished = wait(under_way, return_when=FIRST_COMPLETED).done
        future = next(future for future in under_way if future in finished)
        try:
            outcome = Outcome[Item, Result](under_way[future], result=future.result())
        except ItemLost as error:
            lost = WorkerError(f"{name(under_way[future])}: {error}")
            outcome = Outcome[Item, Result](under_way[future], error=lost)
        except BrokenExecutor as error:
            raise _dead_worker(error, under_way.values(), name) from error
        except UtsegError as error:
            outcome = Outcome[Item, Result](under_way[future], error=error)
        del under_way[future]
        yield outcome


def _submit(
    executor: Executor,
    function: Callable[[Item], Result],
    item: Item,
    under_way: dict[Future[Result], Item],
    name: Callable[[Item], str],
) -> Future[Result]:
    try:
        return executor.submit(function, item)
    except BrokenExecutor as error:
        raise _dead_worker(error, [*under_way.values(), item], name) from error


def _dead_worker(error: BrokenExecutor, items: Iterable[Item], name: Callable[[Item], str]) -> WorkerError:
    if isinstance(error, ClusterLost):
        return WorkerError(str(error))
    held = ", ".join(sorted(name(item) for item in items))
    return WorkerError(
        f"a worker process died while working on one of: {held}; "
        "most often it was killed for lack of memory: try fewer with -np, or look into the system log"
    )
