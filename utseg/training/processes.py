"""Training in several processes that `torchrun` started, each with its share of every batch: how they agree, add, and fail together.

What is computed is what one process computes with the whole batch, but for the last bits and for what dropout draws: the counts of the
loss, the statistics of batch normalisation and the gradients are added over all processes. DistributedDataParallel is not used: after its
first step it puts gradients into other buckets, so a resumed run would add them in another order and end with other bits.

All processes take the same decisions, by values that all have: times are those of rank 0's clock, a signal to one is a signal to all, and
what rank 0 alone reads or does is told to the others. Only rank 0 writes and logs, except that each names an error of its own.
"""

import atexit
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from utseg.errors import InputError, UtsegError
from utseg.training.interrupt import Interruption, Stopped

logger = logging.getLogger("utseg")
S = TypeVar("S")
T = TypeVar("T")
# Rank 0 validates alone at the end of a fold. A process that dies is noticed at once all the same.
LONGEST_WAIT = timedelta(days=7)


class RankLost(UtsegError):
    """Another process has ended while this one waited for it."""


class SaidElsewhere(UtsegError):
    """An error that all processes have, and that rank 0 prints."""

    def lines(self) -> list[str]:
        return []


class Processes:
    """The processes of a run, of which this is number `rank`. A single one has nothing to share, add or agree on.

    `local_rank` and `local_size` count those of this machine, `restarts` how often torchrun has started them again. `total` sums a tensor
    over processes, in place, without gradients; None where there is nothing to add.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1, restarts: int = 0
    ) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self.restarts = restarts
        self.is_first = rank == 0  # which alone writes and logs
        self.total: Callable[[Tensor], Tensor] | None = self._total if size > 1 else None

    def device(self, wanted: torch.device) -> torch.device:
        """The device of this process: of GPUs, the one with its number. Raises InputError where there is none, or one is named."""
        if self.size > 1 and wanted.type == "mps":
            raise InputError(
                "--device mps: one process trains on it; run utseg_train without torchrun, or with --device cpu"
            )
        if self.size == 1 or wanted.type != "cuda":
            return wanted
        there = torch.cuda.device_count()
        if wanted.index is not None or self.local_rank >= there:
            raise InputError(
                f"--device {wanted}: torchrun started {self.local_size} processes on this machine, which has {there} GPUs; start as many "
                "processes as GPUs (--nproc-per-node), and give --device auto, cuda or cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def rows(self, batch_size: int) -> range:
        """Which rows of a batch this process makes. Raises InputError where not all processes get as many."""
        if batch_size % self.size:
            raise InputError(
                f"batch_size: {batch_size} slices cannot be shared out evenly among the {self.size} processes that torchrun started; "
                "start as many as divide it, or --set batch_size=…"
            )
        share = batch_size // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def share_out(self, items: Sequence[S], work: Callable[[Sequence[S]], list[T]]) -> list[T]:
        """The results of `work` for all items, of which each process does some. Fails in all where it fails in one."""
        parts = self.gather(self.fail_together(lambda: work(items[self.rank :: self.size])))
        return [parts[index % self.size][index // self.size] for index in range(len(items))]

    def now(self) -> float:
        """Seconds on rank 0's clock."""
        return self._agree(False)[1]

    def check_interrupted(self, interruption: Interruption) -> float:
        """Seconds on rank 0's clock. Raises Stopped in all processes where a signal came to one."""
        stopped, now = self._agree(bool(interruption.name))
        if stopped:
            raise Stopped
        return now

    def gather(self, value: T) -> list[T]:
        """What each process has, by rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with _connected():
                dist.all_gather_object(values, value)
        return values

    def fail_together(self, work: Callable[[], T]) -> T:
        """What `work` gives in this process; where it fails in one, with a UtsegError or Stopped, it fails in all."""
        result, failure = None, None
        try:
            result = work()
        except (UtsegError, Stopped) as error:
            failure = error
        failures = self.gather(failure)
        for rank, found in enumerate(failures):
            if isinstance(found, UtsegError):
                raise self.for_all(found if rank == 0 else _named(found, rank))
        if any(found is not None for found in failures):
            raise Stopped
        return result  # type: ignore[return-value]  # without failures there is one

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in rank 0, where alone it is done. Fails in all where it fails there."""
        values: list[Any] = [self.fail_together(work if self.is_first else lambda: None)]
        if self.size > 1:
            with _connected():
                dist.broadcast_object_list(values, src=0)
        value: T = values[0]
        return value

    def for_all(self, error: UtsegError) -> UtsegError:
        """An error that all processes have, for each to raise: rank 0 prints it."""
        if self.is_first:
            return error
        silent = SaidElsewhere(str(error))
        silent.exit_code = error.exit_code
        return silent

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """An error that another process than rank 0 has, says which."""
        try:
            yield
        except SaidElsewhere:
            raise
        except UtsegError as error:
            if self.is_first:
                raise
            raise _named(error, self.rank) from error

    def _total(self, x: Tensor) -> Tensor:
        with _connected():
            dist.all_reduce(x)
        return x

    def _agree(self, said: bool) -> tuple[bool, float]:
        """Whether any process said so, and rank 0's clock."""
        if self.size == 1:
            return said, time.monotonic()
        told = torch.tensor(
            [float(said), time.monotonic() if self.is_first else -math.inf], dtype=torch.float64
        )
        with _connected():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told[0]), float(told[1])


def _named(error: UtsegError, rank: int) -> UtsegError:
    named = UtsegError(f"rank {rank}: {error}")
    named.exit_code = error.exit_code
    return named


@contextmanager
def _connected() -> Iterator[None]:
    """Around everything that needs the other processes: that one of them is gone is an error that says so."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            "another process of this run has ended, its own message or torchrun's says which and why; what was saved last is kept, "
            f"the same command with --resume goes on ({str(error).splitlines()[0][:120]})"
        ) from error


@cache
def join_processes() -> Processes:
    """The processes that torchrun started, connected when this is first called; else this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if size == 1:
        return Processes(restarts=restarts)
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    # torchrun keeps its store when it starts processes again: without a prefix they would find the addresses of those that are gone.
    store, rank, size = next(rendezvous("env://", timeout=LONGEST_WAIT))
    store = PrefixStore(f"start {restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    atexit.register(dist.destroy_process_group)
    local_rank, local_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    processes = Processes(rank, size, local_rank, local_size, restarts)
    if not processes.is_first:
        logger.setLevel(logging.ERROR)
    return processes
