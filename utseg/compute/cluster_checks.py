"""What has to be alike on a cluster's workers and this machine: the software, and the folders, for files are not sent."""

import asyncio
import logging
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.compute.pool import available_cores
from utseg.errors import InputError, UtsegError, listing
from utseg.files import sha256_json

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("utseg")
GPU = "GPU"  # what a worker announces with `dask worker … --resources GPU=1`
EQUAL = ("Python", "utseg", "distributed")
EQUAL_FOR_EQUAL_RESULTS = ("numpy", "scipy", "SimpleITK", "torch")
FILE_SEEN_S = 10.0  # a network file system may show a new file late


def worker_facts(dask_worker: Any) -> dict[str, Any]:
    """On a worker: its versions and resources, its machine and the cores that it may use there, and how many tasks it does at once."""
    state = dask_worker.state
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())
    return {
        "versions": versions(),
        "gpus": state.total_resources.get(GPU, 0),
        "machine": (platform.node(), *sorted(cores)),  # jobs on one machine may have cores of their own
        "tasks": state.nthreads,
    }


def cores_of_a_task(facts: Mapping[str, Mapping[str, Any]]) -> int:
    """The cores that each task may use, where they are fewest."""
    tasks = Counter[tuple[Any, ...]]()
    for fact in facts.values():
        tasks[tuple(fact["machine"])] += fact["tasks"]
    return max(1, min((len(machine) - 1) // count for machine, count in tasks.items()))


def versions() -> dict[str, str]:
    """Of Python and the packages that matter; "none" where one is not installed."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in (*EQUAL[1:], *EQUAL_FOR_EQUAL_RESULTS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def require_same_software(facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where workers would not understand this process; warns where results may differ in their last digits."""
    here = versions()
    for names, fatal in (EQUAL, True), (EQUAL_FOR_EQUAL_RESULTS, False):
        for worker, fact in sorted(facts.items()):
            there = fact["versions"]
            others = "; ".join(
                f"{name} {there[name]}, here {here[name]}" for name in names if there[name] != here[name]
            )
            if others and fatal:
                raise InputError(
                    f"worker {worker}: {others}; start workers from the same environment as this command"
                )
            if others:
                logger.warning("worker %s: %s; results may differ slightly", worker, others)


def require_same_folders(client: "Client", writes: Path | None, reads: Sequence[Path]) -> None:
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
