"""A Dask cluster as an executor: connect, hand out work, take back results. What Dask retries is said in `docs/CLUSTER.md`.

The cluster (scheduler, workers, their number, GPUs and memory) is started and ended by its owner; workers read and write the same paths as
this machine. Nothing waits for ever: each way of losing workers ends in an error.
`distributed` is an extra of this package and is imported here only, when a cluster is asked for.
"""

import asyncio
import logging
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.compute.cluster_checks import (
    GPU,
    cores_of_a_task,
    require_same_folders,
    require_same_software,
    versions,
    worker_facts,
)
from utseg.compute.pool import ClusterLost, ItemLost
from utseg.errors import InputError, UsageError
from utseg.files import read_json, require_writable
from utseg.home import typed_path

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as RemoteFuture

logger = logging.getLogger("utseg")
ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^/\s]+:(?P<port>\d{1,5})/?")
HIGHEST_PORT = 65535
CONNECT_S = 10.0
FIRST_WORKER_S = 30.0  # to wait for the first worker
NO_WORKER_S = 300.0  # to wait for another one when all are lost
WAIT_SETTING = "utseg.wait-for-workers"  # of Dask's configuration, instead of both
POLL_S = 2.0
STOP_S = 60.0
ALLOWED_FAILURES = 3  # Dask's default


@contextmanager
def dask_executor(
    address: str,
    *,
    writes: Path | None,
    reads: Sequence[Path] = (),
    gpu: bool = False,
    stop_work: Callable[[], object] | None = None,
) -> Iterator["DaskExecutor"]:
    """An executor on the workers of a Dask cluster: `tcp://HOST:8786`, or the path of its scheduler file.

    writes: a folder that workers must share with this machine (made where it is missing), None where nothing is written.
    reads: folders that they must see alike.
    gpu: each task takes one GPU, where workers announce that resource, and a thread of any worker where none does.
    stop_work: a picklable function, called on every worker when the block is left with tasks under way, to end what they have started.
    The queued are taken back then, and running ones waited for, `STOP_S` at most.

    Raises UsageError where `distributed` is not installed, InputError for a cluster that cannot be reached, has no workers, runs other
    software or does not share the folders. A task whose workers die is tried on others (as often as the scheduler's `allowed-failures`
    says, 3 times unless configured), then fails with ItemLost; a cluster that is gone fails all tasks with ClusterLost.
    """
    with _quiet(), _connected(address) as client:
        facts = _facts_of_workers(client, address)
        require_same_software(facts)
        if writes is not None:
            require_writable(writes)
        require_same_folders(client, writes, reads)
        uses_gpus = gpu and any(fact["gpus"] for fact in facts.values())
        with DaskExecutor(client, address, uses_gpus, cores_of_a_task(facts), stop_work) as executor:
            logger.info("cluster %s: %s", address, executor.describe())
            yield executor


class DaskExecutor(Executor):
    """Tasks as futures of a connected client. `dask_executor` makes it; leaving the `with` block takes back what is not finished.

    `cores_each`: cores that each task may use.
    """

    # A scheduler blames a worker's death on all tasks that it was given, begun or not: no more are given than can be worked on.
    ahead_per_worker = 1

    def __init__(
        self,
        client: "Client",
        address: str,
        uses_gpus: bool,
        cores_each: int,
        stop_work: Callable[[], object] | None,
    ) -> None:
        self.cores_each = cores_each
        self._client = client
        self._address = address
        self._uses_gpus = uses_gpus
        self._stop_work = stop_work
        self._session = uuid.uuid4().hex
        self._numbers = count()
        self._pending: dict[Future[Any], RemoteFuture] = {}
        self._ended = threading.Event()
        self._workers = _workers(client)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def tasks_at_once(self) -> int:
        """Tasks that the cluster can run now: it may grow and shrink."""
        each = (
            worker["resources"].get(GPU, 0) if self._uses_gpus else worker["nthreads"]
            for worker in self._workers
        )
        return max(1, int(sum(each)))

    _max_workers = tasks_at_once  # where other executors say it

    def describe(self) -> str:
        """Workers, tasks at once and whether GPUs are used, for a log."""
        hosts = len({worker["host"] for worker in self._workers})
        tasks = f"{self.tasks_at_once} {'GPUs' if self._uses_gpus else 'tasks at once'}"
        return f"{len(self._workers)} workers on {hosts} machine{'s' * (hosts > 1)}, {tasks}"

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As of any executor. Raises ClusterLost where the connection is gone."""
        if self._ended.is_set():
            raise RuntimeError("cannot schedule new futures after shutdown")
        named = function.func if isinstance(function, partial) else function
        name = f"{getattr(named, '__name__', 'task').strip('_')}-{self._session}-{next(self._numbers)}"
        work = partial(function, *args, **kwargs)
        try:
            remote = self._client.submit(
                work, key=name, pure=False, resources={GPU: 1} if self._uses_gpus else None
            )
        except Exception as error:
            if self._client.status == "running":
                raise
            raise ClusterLost(self._gone()) from error
        future: Future[Any] = Future()
        self._pending[future] = remote
        future.add_done_callback(self._forget)
        remote.add_done_callback(partial(self._hand_over, future))
        return future

    def _hand_over(self, future: "Future[Any]", remote: "RemoteFuture") -> None:
        """Gives the local future what became of the remote one."""
        from distributed.scheduler import KilledWorker

        if remote.cancelled():
            _fail(future, ClusterLost(self._gone()))
            return
        try:
            result = remote.result()
        except KilledWorker as error:
            tries = getattr(error, "allowed_failures", ALLOWED_FAILURES) + 1
            why = (
                f"{tries} workers of the cluster died while working on it; "
                "most often they were killed for lack of memory: give workers more, or look into their logs"
            )
            _fail(future, ItemLost(why))
        except BaseException as error:  # noqa: BLE001 — handed to the caller by the future, as any executor does
            _fail(future, error)
        else:
            with suppress(InvalidStateError):  # it was cancelled, or failed with its cluster
                future.set_result(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of any executor; with cancel_futures, running tasks are told to stop by `stop_work`."""
        pending = list(self._pending)
        if cancel_futures and pending:
            self._cancel(pending)
        elif wait:
            futures.wait(pending)
        self._ended.set()

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)

    def _cancel(self, pending: Sequence["Future[Any]"]) -> None:
        # The last first, or the scheduler would hand them out as workers get free.
        for future in reversed(pending):
            future.cancel()
        if self._client.status == "running":
            with suppress(Exception):  # a cluster that goes while it is asked has nothing to stop
                self._client.run_on_scheduler(_taken_back, self._session, STOP_S)
                self._client.run(_finish, self._session, self._stop_work, STOP_S)

    def _forget(self, future: "Future[Any]") -> None:
        remote = self._pending.pop(future, None)
        if remote is not None and future.cancelled():
            remote.cancel()
            future.set_running_or_notify_cancel()  # or `wait` would not see it

    def _watch(self) -> None:
        """Keeps count of the workers; fails all tasks where none is left and none comes back."""
        patience_s = _seconds_to_wait(NO_WORKER_S)
        last_seen = time.monotonic()
        while not self._ended.wait(POLL_S):
            try:
                self._workers = _workers(self._client)
            except Exception:  # noqa: BLE001 — the connection's end is told by the futures
                continue
            if self._workers:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > patience_s:
                why = (
                    f"{self._address}: the cluster has had no worker for {patience_s:g} s; "
                    "start workers and repeat the command, which goes on from here"
                )
                for future in list(self._pending):
                    _fail(future, ClusterLost(why))

    def _gone(self) -> str:
        return f"{self._address}: the scheduler of the cluster is gone; start it again and repeat the command, which goes on from here"


def _fail(future: "Future[Any]", error: BaseException) -> None:
    with suppress(InvalidStateError):  # it was cancelled, or failed with its cluster
        future.set_exception(error)


@contextmanager
def _connected(address: str) -> Iterator["Client"]:
    """A client of the cluster, closed at the end. Raises UsageError and InputError as `dask_executor`."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--dask {address}: the package `{error.name}` is not installed; install it with: pip install 'utseg[dask]'"
        ) from None
    scheduler = _scheduler_address(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other versions are told in one line
            client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except OSError as error:
        raise InputError(
            f"--dask {address}: no Dask scheduler answers at {scheduler} within {CONNECT_S:g} s; "
            f"is it running, and can this machine reach it? ({type(error).__name__})"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


def _scheduler_address(address: str) -> str:
    """The address itself, or the one that a scheduler's file names. Raises InputError where it is neither."""
    expected = "expected as tcp://HOST:8786, or the file that `dask scheduler --scheduler-file` writes"
    named = ""
    if typed_path(address, "--dask").is_file():
        try:
            address, named = str(read_json(typed_path(address))["address"]), f"{address}: "
        except (InputError, KeyError, TypeError):
            raise InputError(f"--dask {address}: not a scheduler's file; {expected}") from None
    found = ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > HIGHEST_PORT:
        raise InputError(
            f"--dask {named}{address}: no such scheduler file, and no address with a port; {expected}"
        )
    return address


def _workers(client: "Client") -> list[dict[str, Any]]:
    """What the scheduler knows of each worker: host, nthreads, resources."""
    found = client.scheduler_info(n_workers=-1)  # releases that know no such number tell of all
    return list(found["workers"].values())


def _seconds_to_wait(usual_s: float) -> float:
    """For a worker to come: as Dask's configuration says, else as usual."""
    from dask.config import get
    from dask.utils import parse_timedelta

    return float(parse_timedelta(get(WAIT_SETTING, usual_s)))


def _facts_of_workers(client: "Client", address: str) -> dict[str, dict[str, Any]]:
    """`worker_facts` of every worker, by its address."""
    patience_s = _seconds_to_wait(FIRST_WORKER_S)
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError:
        raise InputError(
            f"--dask {address}: the cluster has no workers, and none came within {patience_s:g} s; "
            f"start some with: dask worker {address}"
        ) from None
    try:
        facts: dict[str, dict[str, Any]] = client.run(worker_facts)
    except (ImportError, AttributeError) as error:
        here = versions()
        raise InputError(
            f"--dask {address}: a worker cannot import this version of utseg ({error}); "
            f"start workers from an environment with utseg {here['utseg']} and Python {here['Python']}"
        ) from None
    return facts


async def _taken_back(session: str, patience_s: float, dask_scheduler: Any) -> None:
    """On the scheduler: waits until it knows that the session's tasks are cancelled, or it would give the queued to who gets free."""
    deadline = time.monotonic() + patience_s
    while any(session in str(key) for key in dask_scheduler.tasks) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


async def _finish(
    session: str, stop_work: Callable[[], object] | None, patience_s: float, dask_worker: Any
) -> None:
    """On a worker, when the session's tasks are cancelled: lets go of those not begun, stops the others, waits for their end."""
    deadline, state = time.monotonic() + patience_s, dask_worker.state

    def any_of(*states: str) -> bool:
        return any(session in str(task.key) for name in states for task in getattr(state, name))

    while any_of("ready", "constrained") and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    if stop_work is not None and any_of("executing", "long_running"):
        await asyncio.to_thread(stop_work)
    while any_of("executing", "long_running") and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log of what is told in our errors is not wanted beside them."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.comm")]
    with ExitStack() as stack:
        for each in loggers:
            stack.callback(each.setLevel, each.level)
            each.setLevel(logging.CRITICAL)
        yield
