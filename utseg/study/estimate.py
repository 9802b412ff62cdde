"""What a study will take, before it is run: the cost of each distinct run, from steps that are timed here and plans that are made
or previewed.

Nothing is written.
"""

import logging
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from utseg.compute.pool import available_cores
from utseg.errors import UtsegError
from utseg.planning.task import planned_task
from utseg.progress import progress
from utseg.study.data import measured, own_fingerprint
from utseg.study.jobs import finished_outcome
from utseg.study.resolve import ResolvedRun, ResolvedStudy, StudyRequest
from utseg.study.speed import Cost, Speed, expected_cost, measure

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class Estimate:
    """A distinct run, how many runs of the study it is, whether it has finished, and its cost (None where `problem` says why not)."""

    run: ResolvedRun
    same: int
    finished: bool
    cost: Cost | None
    problem: str = ""


def estimate(study: ResolvedStudy, request: StudyRequest, executor: Executor | None = None) -> list[Estimate]:
    """The cost of every distinct run. Raises CaseErrors for scans that cannot be read."""
    import torch

    from utseg.device import resolve_device
    from utseg.training.memory import step_kind

    device = resolve_device(request.device)
    torch.set_num_threads(max(1, available_cores() // request.parallel))
    known = measured(study.plan.dataset, request.home.preprocessed, executor, request.workers, keep=False)
    speeds: dict[Any, Speed] = {}
    found = []
    with progress("estimating runs", len(study.distinct)) as advance:
        for run in study.distinct:
            same = sum(other.checksum == run.checksum for other in study.runs)
            finished = finished_outcome(run.folder, run.checksum) is not None
            if isinstance(run.setup, UtsegError):
                found.append(Estimate(run, same, finished, None, str(run.setup)))
            else:
                recipe, plan = run.setup
                key = (planned_task(plan), recipe.amp)
                if key not in speeds:
                    speeds[key] = measure(plan, recipe, device)
                cost = expected_cost(
                    plan,
                    step_kind(recipe, device),
                    speeds[key],
                    own_fingerprint(run.data.own, known),
                    epochs=study.epochs,
                    slot_s=study.slot_s,
                    tested=sum(len(cases) for cases in run.planned.testing.values()),
                )
                found.append(Estimate(run, same, finished, cost))
            advance()
    return found


def total_seconds(estimates: list[Estimate], parallel: int) -> float:
    """What is left to do, so many runs at once."""
    left = [one.cost for one in estimates if one.cost is not None and not one.finished]
    return sum(cost.training_s + cost.testing_s for cost in left) / parallel
