"""Training in several processes that `torchrun` started, each with its share of every batch: how they agree, add, and fail together.

What is computed is what one process computes with the whole batch, but for the last bits and for what dropout draws: the counts of the
loss, the statistics of batch normalisation and the gradients are added over all processes. DistributedDataParallel is not used: after its
first step it puts gradients into other buckets, so a resumed run would add them in another order and end with other bits.

All processes take the same decisions, by values that all have: times are those of rank 0's clock, a signal to one is a signal to all, and
what rank 0 alone reads or does is told to the others. Only rank 0 writes and speaks, except that each names an error of its own.
A process alone is rank 0 of 1, and nothing here costs it anything or changes a bit.
"""

import atexit
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from utseg.errors import InputError, UtsegError
from utseg.training.interrupt import Interruption, Stopped

logger = logging.getLogger("utseg")
T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long one process waits for another: rank 0 validates alone at the end of a fold. One that dies is noticed at once all the same."""


class RankLost(UtsegError):
    """Another process has ended while this one waited for it."""


class SaidElsewhere(UtsegError):
    """An error that all processes have, and that rank 0 prints."""

    def lines(self) -> list[str]:
        return []


@dataclass(frozen=True)
class World:
    """One process among those of a run. `local_rank` and `local_size` count those of this machine, `restarts` those of torchrun."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def device(self, wanted: torch.device) -> torch.device:
        """The device of this process: of GPUs, the one with its number. Raises InputError where there is none, or one is named."""
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

    def places(self, batch_size: int) -> range:
        """Which places of a batch this process makes. Raises InputError where not all processes get as many."""
        if batch_size % self.size:
            raise InputError(
                f"batch_size: {batch_size} slices cannot be shared out evenly among the {self.size} processes that torchrun started; "
                "start as many as divide it, or --set batch_size=…"
            )
        share = batch_size // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    # What is added over processes.

    def total(self, x: Tensor) -> Tensor:
        """The sum over processes, in place. No gradient passes."""
        if self.size > 1:
            with _connected():
                dist.all_reduce(x)
        return x

    def total_of_parts(self, x: Tensor) -> Tensor:
        """The sum over processes of a value of which each has a part. Its gradient is the gradient of each part."""
        if self.size == 1:
            return x
        whole: Tensor = _Total.apply(x, self)
        return whole

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Puts the sums over processes in the place of the gradients: of one loss, of which each process has done its part."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        sums = flat.split([gradient.numel() for gradient in gradients])
        for gradient, whole in zip(gradients, sums, strict=True):
            gradient.copy_(whole.view(gradient.shape))

    # What is agreed on.

    def now(self) -> float:
        """Seconds on rank 0's clock."""
        return self._heard(False)[1]

    def pulse(self, interruption: Interruption) -> float:
        """Seconds on rank 0's clock. Raises Stopped in all processes where a signal came to one."""
        stopped, now = self._heard(bool(interruption.name))
        if stopped:
            raise Stopped
        return now

    def _heard(self, said: bool) -> tuple[bool, float]:
        """Whether any process said so, and rank 0's clock."""
        if self.size == 1:
            return said, time.monotonic()
        clock = time.monotonic() if self.is_first else -math.inf
        told = torch.tensor([float(said), clock], dtype=torch.float64)
        with _connected():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told[0]), float(told[1])

    def gathered(self, value: T) -> list[T]:
        """What each process has, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(values, value)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives in this process; where it fails in one, with a UtsegError or Stopped, it fails in all."""
        if self.size == 1:
            return work()
        result, failure = None, None
        try:
            result = work()
        except (UtsegError, Stopped) as error:
            failure = error
        failures = self.gathered(failure)
        for rank, found in enumerate(failures):
            if isinstance(found, UtsegError):
                raise self.for_all(found if rank == 0 else _named(found, rank))
        if any(found is not None for found in failures):
            raise Stopped
        return result  # type: ignore[return-value]  # without failures there is one

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in rank 0, where alone it is done. Fails in all where it fails there."""
        values: list[Any] = [self.together(work if self.is_first else lambda: None)]
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
            raise error if self.is_first else _named(error, self.rank) from error


ALONE = World()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        return world.total(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


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
def joined() -> World:
    """This process's place among those that torchrun started, which are connected when this is first asked; else alone."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if size == 1:
        return World(restarts=restarts)
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    # torchrun keeps its store when it starts processes again: without a prefix they would find the addresses of those that are gone.
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(f"start {restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    local_rank, local_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    world = World(rank, size, local_rank, local_size, restarts)
    if not world.is_first:
        logger.setLevel(logging.ERROR)
    return world
