"""A Dask cluster as the executor of parallel work: connects, checks what would fail later, hands out work, takes back results.

The cluster (scheduler, workers, their number, GPUs and memory) is started and ended by its owner. Files are not sent: workers read and
write the same paths as this machine, which is checked at the start. Nothing waits for ever: each way of losing workers ends in an error.
`distributed` is an extra of this package and is imported here only, when a cluster is asked for.
"""

import asyncio
import logging
import platform
import re
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.compute.pool import ClusterLost, ItemLost, available_cores
from utseg.errors import InputError, UsageError, UtsegError, listing
from utseg.files import read_json, require_writable, sha256_json
from utseg.home import typed_path

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as RemoteFuture

logger = logging.getLogger("utseg")
GPU = "GPU"
"""What a worker announces with `dask worker … --resources GPU=1`."""
ADDRESS = re.compile(r"((tcp|tls|ucx|ws|wss)://)?[^/\s]+:(?P<port>\d{1,5})/?")
HIGHEST_PORT = 65535
CONNECT_S = 10.0
FIRST_WORKER_S = 30.0
"""So long a cluster without workers is waited for at the start …"""
NO_WORKER_S = 300.0
"""… and so long when it has lost all of them."""
LOOK_EVERY_S = 2.0
FILE_SEEN_S = 10.0
"""A network file system may show a new file late."""
STOP_S = 60.0
EQUAL = ("utseg", "distributed")
EQUAL_FOR_EQUAL_RESULTS = ("numpy", "scipy", "SimpleITK", "torch")


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
    gpu: each task takes one GPU, where workers announce that resource, and a place of any worker where none does.
    stop_work: a picklable function, called on every worker when the block is left with tasks under way, to end what they have started.
    The queued are taken back then, and running ones waited for, `STOP_S` at most.

    Raises UsageError where `distributed` is not installed, InputError for a cluster that cannot be reached, has no workers, runs other
    software or does not share the folders. A task whose workers die is tried on others (as often as the scheduler's `allowed-failures`
    says, 3 times unless configured), then fails with ItemLost; a cluster that is gone fails all tasks with ClusterLost.
    """
    with _quiet(), _connected(address) as client:
        facts = _worker_facts(client, address)
        _require_same_software(facts)
        if writes is not None:
            require_writable(writes)
        _require_same_folders(client, writes, reads)
        announced = any(each["resources"].get(GPU) for each in facts.values())
        executor = DaskExecutor(client, address, {GPU: 1} if gpu and announced else None, stop_work)
        executor.cores_each = _cores_each(facts)
        logger.info("cluster %s: %s", address, executor.describe())
        with executor:
            yield executor


class DaskExecutor(Executor):
    """Tasks as futures of a connected client. `dask_executor` makes it; leaving the `with` block takes back what is not finished."""

    ahead_per_worker = 1
    """A scheduler blames a worker's death on all tasks that it was given, begun or not: no more are given than can be worked on."""

    cores_each = 1
    """Cores that each task may use, on the machine with the fewest for its tasks."""

    def __init__(
        self,
        client: "Client",
        address: str,
        resources: Mapping[str, int] | None = None,
        stop_work: Callable[[], object] | None = None,
    ) -> None:
        self._client = client
        self._address = address
        self._resources = dict(resources or {})
        self._stop_work = stop_work
        self._session = uuid.uuid4().hex
        self._numbers = count()
        self._pending: dict[Future[Any], RemoteFuture] = {}
        self._ended = threading.Event()
        self._workers = _workers(client)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def places(self) -> int:
        """Tasks that the cluster can run at once, now: it may grow and shrink."""
        if self._resources:
            places = [worker["resources"].get(GPU, 0) // self._resources[GPU] for worker in self._workers]
        else:
            places = [worker["nthreads"] for worker in self._workers]
        return max(1, int(sum(places)))

    @property
    def _max_workers(self) -> int:
        return self.places  # where other executors say it

    def describe(self) -> str:
        """Workers, places and whether GPUs are used, for a log."""
        hosts = len({worker["host"] for worker in self._workers})
        places = f"{self.places} {'GPUs' if self._resources else 'tasks at once'}"
        return f"{len(self._workers)} workers on {hosts} machine{'s' * (hosts > 1)}, {places}"

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As of any executor. Raises ClusterLost where the connection is gone."""
        if self._ended.is_set():
            raise RuntimeError("cannot schedule new futures after shutdown")
        name = f"{getattr(function, '__name__', 'task').strip('_')}-{self._session}-{next(self._numbers)}"
        try:
            remote = self._client.submit(
                partial(function, *args, **kwargs), key=name, pure=False, resources=self._resources
            )
        except Exception as error:
            if self._client.status == "running":
                raise
            raise ClusterLost(self._gone()) from error
        future: Future[Any] = Future()
        self._pending[future] = remote
        future.add_done_callback(self._forget)
        remote.add_done_callback(partial(_hand_over, future, self._gone()))
        return future

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
        for future in reversed(
            pending
        ):  # the last first, or the scheduler would hand them out as places get free
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
        without_since: float | None = None
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self._workers = _workers(self._client)
            except Exception:  # noqa: BLE001 — the connection's end is told by the futures
                continue
            without_since = None if self._workers else without_since or time.monotonic()
            if without_since is not None and time.monotonic() - without_since > NO_WORKER_S:
                for future in list(self._pending):
                    _settle(future, error=ClusterLost(self._deserted()))

    def _gone(self) -> str:
        return f"{self._address}: the scheduler of the cluster is gone; start it again and repeat the command, which goes on from here"

    def _deserted(self) -> str:
        return (
            f"{self._address}: the cluster has had no worker for {NO_WORKER_S:g} s; "
            "start workers and repeat the command, which goes on from here"
        )


def _hand_over(future: "Future[Any]", gone: str, remote: "RemoteFuture") -> None:
    """What became of a remote task, as the local future's result or error."""
    from distributed.scheduler import KilledWorker

    if remote.cancelled():
        _settle(future, error=ClusterLost(gone))
        return
    try:
        result = remote.result()
    except KilledWorker as error:
        _settle(future, error=ItemLost(_killed(error)))
    except BaseException as error:  # noqa: BLE001 — handed to the caller by the future, as any executor does
        _settle(future, error=error)
    else:
        _settle(future, result)


def _settle(future: "Future[Any]", result: Any = None, error: BaseException | None = None) -> None:
    with suppress(InvalidStateError):  # it was cancelled, or failed with its cluster
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _killed(error: Any) -> str:
    tries = getattr(error, "allowed_failures", 3) + 1
    return (
        f"{tries} workers of the cluster died while working on it; "
        "most often they were killed for lack of memory: give workers more, or look into their logs"
    )


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
            warnings.simplefilter("ignore")  # other versions are told below, in one line
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
    if typed_path(address, "--dask").is_file():
        try:
            address, named = str(read_json(typed_path(address))["address"]), f"{address}: "
        except (InputError, KeyError, TypeError):
            raise InputError(f"--dask {address}: not a scheduler's file; {expected}") from None
    else:
        named = ""
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


def _worker_facts(client: "Client", address: str) -> dict[str, dict[str, Any]]:
    """`worker_facts` of every worker, by its address."""
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError:
        raise InputError(
            f"--dask {address}: the cluster has no workers, and none came within {FIRST_WORKER_S:g} s; "
            f"start some with: dask worker {address}"
        ) from None
    try:
        facts: dict[str, dict[str, Any]] = client.run(worker_facts)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"--dask {address}: a worker cannot import this version of utseg ({error}); "
            f"start workers from an environment with utseg {version('utseg')} and Python {_python()}"
        ) from None
    return facts


def worker_facts(dask_worker: Any) -> dict[str, Any]:
    """Of the worker that runs this: its versions and resources, its machine, the cores there, and its places for tasks."""
    state = dask_worker.state
    return {
        "versions": _versions(),
        "resources": dict(state.total_resources),
        "machine": platform.node(),
        "cores": available_cores(),
        "places": state.nthreads,
    }


def _cores_each(facts: Mapping[str, Mapping[str, Any]]) -> int:
    places = Counter[str]()
    for fact in facts.values():
        places[fact["machine"]] += fact["places"]
    shares: list[int] = [fact["cores"] // places[fact["machine"]] for fact in facts.values()]
    return max(1, min(shares))


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _versions() -> dict[str, str]:
    found = {"Python": _python()}
    for package in (*EQUAL, *EQUAL_FOR_EQUAL_RESULTS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _require_same_software(facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where workers would not understand this process; warns where results may differ in their last digits."""
    own = _versions()
    for names, fatal in (("Python", *EQUAL), True), (EQUAL_FOR_EQUAL_RESULTS, False):
        for worker, fact in sorted(facts.items()):
            theirs = fact["versions"]
            others = [
                f"{name} {theirs[name]}, here {own[name]}" for name in names if theirs[name] != own[name]
            ]
            if others and fatal:
                raise InputError(
                    f"worker {worker}: {'; '.join(others)}; start workers from the same environment as this command"
                )
            if others:
                logger.warning("worker %s: %s; results may differ slightly", worker, "; ".join(others))


def _require_same_folders(client: "Client", writes: Path | None, reads: Sequence[Path]) -> None:
    """A token that is written here must be read by every worker, and the folders that are read must list the same names."""
    token = writes and writes.absolute() / f".tmp-{uuid.uuid4().hex[:12]}-token"
    listings = {str(folder.absolute()): _listing(folder) for folder in reads}
    try:
        if token:
            token.write_text(token.name)
        seen: dict[str, str | None] = client.run(_first_unseen, token, listings, FILE_SEEN_S)
    except OSError as error:
        raise UtsegError(f"{writes}: could not be written ({error.strerror or error})") from None
    finally:
        if token:
            token.unlink(missing_ok=True)
    unseen = {worker: folder for worker, folder in sorted(seen.items()) if folder is not None}
    if unseen:
        folder = next(iter(unseen.values()))
        raise InputError(
            f"{folder}: not the same folder on {len(unseen)} of {len(seen)} workers ({listing(list(unseen))}); "
            "workers need the same paths as this machine, on a shared file system"
        )


async def _first_unseen(token: Path | None, listings: Mapping[str, str], patience_s: float) -> str | None:
    """On a worker: the first folder that is not as the client sees it, None where all are."""
    deadline = time.monotonic() + patience_s
    while token and not (token.is_file() and token.read_text() == token.name):
        if time.monotonic() > deadline:
            return str(token.parent)
        await asyncio.sleep(0.1)
    return next((folder for folder, expected in listings.items() if _listing(Path(folder)) != expected), None)


def _listing(folder: Path) -> str:
    """A checksum of the names in a folder, of nothing where it is not there."""
    return sha256_json(sorted(each.name for each in folder.iterdir()) if folder.is_dir() else None)


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

    def begun() -> bool:
        return any(session in str(task.key) for task in {*state.executing, *state.long_running})

    def waiting() -> bool:
        return any(session in str(task.key) for task in (*state.ready, *state.constrained))

    while waiting() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    if stop_work is not None and begun():
        await asyncio.to_thread(stop_work)
    while begun() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log of what is told in our errors is not wanted beside them."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.comm")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
