"""The state of a run between two iterations, network, optimizer and counters, made from the seed or from a checkpoint."""

import logging
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler

from utseg.compute.threads import Threads
from utseg.label_map import has_regions
from utseg.labels import members
from utseg.networks.layers.synchronised_norm import synchronise_norms
from utseg.networks.network import SegmentationNetwork
from utseg.planning.task import planned_task
from utseg.training.average import WeightAverage
from utseg.training.checkpoint import BEST, restore_random_state
from utseg.training.log import Epoch
from utseg.training.optimizer import make_optimizer
from utseg.training.prepare import Run
from utseg.training.schedule import Schedule, warmup_share
from utseg.training.step import Sums, make_scaler
from utseg.training.weights import fill

logger = logging.getLogger("utseg")


@dataclass
class State:
    """`iteration` counts steps done; `sums` are over the epoch under way; `seconds` are those of all processes that worked on the run."""

    network: SegmentationNetwork
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    iteration: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    sums: Sums = field(default_factory=Sums)
    history: list[Epoch] = field(default_factory=list)
    average: WeightAverage[SegmentationNetwork] | None = None
    scaler: GradScaler | None = None
    members_KN: Tensor | None = None

    @property
    def model(self) -> SegmentationNetwork:
        """The network that is validated and saved: the averaged one where the recipe averages."""
        return self.average.network if self.average else self.network

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def is_complete(self) -> bool:
        """Whether every iteration is done and its epoch closed."""
        return self.iteration >= self.schedule.iterations and not self.sums.iterations

    def say_which_model(self) -> None:
        """In the log: the model is the last epoch's, whichever was best."""
        averaged = ", averaged over its last part" if self.average else ""
        best = ""
        if self.best_score is not None:
            best = f"; epoch {self.best_epoch} had the best Dice in validation, {self.best_score:.3f}, and is in {BEST}"
        logger.info("the model is that of the end of the schedule, epoch %d%s%s", self.epoch, averaged, best)


def new_state(run: Run) -> State:
    """The state before the first iteration. All random generators of the process are seeded."""
    state = _random_state(run)
    if run.fit is not None and run.request.weights is not None:
        fill(state.network, run.fit, run.request.weights)
    if run.processes.size > 1:  # another kind of processor may have drawn other last bits
        drawn = run.processes.on_first(
            lambda: {name: value.cpu() for name, value in state.network.state_dict().items()}
        )
        state.network.load_state_dict(drawn)
    return state


def _random_state(run: Run) -> State:
    """The state with random weights. Weights are drawn alike by all processes, what comes after them (dropout) by each for itself."""
    record, processes = run.record, run.processes
    torch.manual_seed(record.seed)
    random.seed(record.seed)
    np.random.seed(record.seed % 2**32)  # noqa: NPY002 — for libraries that draw from it
    network, labels = planned_task(record.plan).build().to(run.device), record.plan.preprocessing.labels
    network.upsamples_auxiliary = run.recipe.loss.auxiliary_size == "full"
    if record.plan.initial_foreground:
        network.expect_foreground(record.plan.initial_foreground, regions=has_regions(labels))
    if processes.total is not None:
        synchronise_norms(network, processes.total)
    if not processes.is_first:
        torch.manual_seed(int(np.random.SeedSequence([record.seed, processes.rank]).generate_state(1)[0]))
    warmup = warmup_share(run.recipe.schedule, record.planned_epochs)
    optimizer = make_optimizer(
        network,
        run.recipe.optimizer,
        pretrained=record.initial_weights is not None,
        orthogonal=record.plan.orthogonal_updates,
    )
    width = run.recipe.weight_average
    average = WeightAverage(network, width) if width else None
    scaler = make_scaler(run.recipe.amp, run.device)
    if run.request.compile:
        network.compile()  # in place: names of weights stay
    members_KN = torch.from_numpy(members(labels)).to(run.device) if has_regions(labels) else None
    held = record.iterations_per_epoch if run.recipe.schedule.changes_every == "epoch" else 1
    schedule = Schedule(run.iterations, warmup, held=held)
    return State(network, optimizer, schedule, average=average, scaler=scaler, members_KN=members_KN)


def latest_checkpoint(state: State, generators: list[dict[str, Any]], threads: Threads) -> dict[str, Any]:
    """The state with those of all random generators of each process, and the choice of threads, as tensors and plain types."""
    return {
        "epoch": state.epoch,
        "iteration": state.iteration,
        "network": dict(state.network.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "random": generators,
        "schedule": asdict(state.schedule),
        "best_score": state.best_score,
        "best_epoch": state.best_epoch,
        "seconds": state.seconds,
        "sums": asdict(state.sums),
        "history": state.history,
        "average": state.average.state_dict() if state.average else None,
        "threads": threads.choice,
        "scaler": state.scaler.state_dict() if state.scaler else None,
    }


def best_checkpoint(state: State, score: float | None) -> dict[str, Any]:
    """What the best checkpoint holds: the weights that were validated, and where they come from."""
    return {
        "epoch": state.epoch + 1,
        "iteration": state.iteration,
        "network": dict(state.model.state_dict()),
        "best_score": score,
    }


def resumed_state(run: Run, saved: dict[str, Any]) -> State:
    """The state of a checkpoint. Random generators are where they were; those of a process that was not there are as in a new run.

    The run's threads go on from the number that it was saved with.
    """
    state = _random_state(run)
    state.network.load_state_dict(saved["network"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule = Schedule(**saved["schedule"])
    state.iteration = saved["iteration"]
    state.best_score, state.best_epoch = saved["best_score"], saved["best_epoch"]
    state.seconds = saved["seconds"]
    state.sums = Sums(**saved["sums"])
    state.history = list(saved["history"])
    if state.average:
        state.average.load_state_dict(saved["average"])
    if state.scaler:
        state.scaler.load_state_dict(saved["scaler"])
    if run.processes.rank < len(saved["random"]):
        restore_random_state(saved["random"][run.processes.rank])
    run.threads.go_on(*saved["threads"])
    return state
