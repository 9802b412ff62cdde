"""What a study will take, before it is run: the cost of each distinct run, from training steps and predictions that are timed here.

What is timed is the network, which is thrown away: augmentation, reading and writing come on top, as fixed seconds for each case. Nothing
is written. Axes: B batch, C channels, H and W rows and columns of a patch.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from utseg.compute.pool import available_cores
from utseg.compute.threads import torch_threads
from utseg.errors import UtsegError
from utseg.fingerprint import Fingerprint
from utseg.inference.grid import windows_per_slice
from utseg.planning.plan import Plan
from utseg.planning.survey import survey
from utseg.planning.task import planned_task
from utseg.preprocess.case import target_size
from utseg.progress import progress
from utseg.study.data import measured, own_fingerprint
from utseg.study.jobs import finished_outcome
from utseg.study.resolve import ResolvedRun, ResolvedStudy, StudyRequest

if TYPE_CHECKING:
    import torch

    from utseg.training.recipe import Recipe

logger = logging.getLogger("utseg")
MEASURED_BATCH = 2
MEASURED_STEPS = 3
SECONDS_PER_CASE = 0.2
SECONDS_PER_MEGAVOXEL = 0.8
"""Reading, resampling, restoring, judging, writing and scoring, on one core."""
SECONDS_TO_START = 8.0
"""Starting Python and torch, and worker processes for prediction and for scoring."""
VALIDATION_SHARE = 0.1
"""Of training, at most: validations in between, and at native resolution at the end."""


@dataclass(frozen=True)
class Cost:
    """What a run is expected to take. `memory_gb` (1024³ bytes) is that of a training step."""

    training_s: float
    testing_s: float
    memory_gb: float
    parameters: int
    gmac: float


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
    from utseg.device import resolve_device
    from utseg.training.memory import step_kind

    device = resolve_device(request.device)
    share = max(1, available_cores() // request.parallel)
    known = measured(study.plan.dataset, request.home.preprocessed, executor, request.workers, keep=False)
    speeds: dict[Any, tuple[float, float]] = {}
    found = []
    with progress("estimating runs", len(study.distinct)) as advance, torch_threads(share):
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
                figures = survey(planned_task(plan), step_kind(recipe, device))
                tested = sum(len(cases) for cases in run.planned.testing.values())
                own = own_fingerprint(run.data.own, known)
                iteration_s, patch_s = speeds[key]
                testing_s = testing_seconds(patch_s, plan, own, tested)
                iterations = (study.epochs or plan.epochs) * plan.iterations_per_epoch
                training_s = iterations * iteration_s * (1 + VALIDATION_SHARE)
                if study.slot_s is not None:
                    training_s = max(0.0, study.slot_s - testing_s)
                cost = Cost(training_s, testing_s, figures.memory_gb, figures.parameters, figures.gmac)
                found.append(Estimate(run, same, finished, cost))
            advance()
    return found


def total_seconds(estimates: list[Estimate], parallel: int) -> float:
    """What is left to do, so many runs at once."""
    left = [one.cost for one in estimates if one.cost is not None and not one.finished]
    return sum(cost.training_s + cost.testing_s for cost in left) / parallel


def measure(
    plan: Plan, recipe: "Recipe", device: "torch.device", *, training: bool = True
) -> tuple[float, float]:
    """Seconds of an iteration with the plan's batch, in the recipe's precision (0 unless `training`), and of the prediction of a patch.

    Raises SettingError for a wrong setting.
    """
    import torch

    from utseg.device import best_precision, computing_in
    from utseg.training.step import precision

    model = planned_task(plan).build().to(device)
    image_BCHW = torch.zeros(MEASURED_BATCH, plan.in_channels, *plan.patch_size, device=device)

    def step() -> None:
        with precision(recipe.amp, device):
            outputs = model(image_BCHW)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()

    def predict() -> None:
        with torch.inference_mode(), computing_in(best_precision(device), device):
            model.main_logits(image_BCHW)

    iteration_s = median_seconds(step, device) * plan.batch_size / MEASURED_BATCH if training else 0.0
    model.eval()
    return iteration_s, median_seconds(predict, device) / MEASURED_BATCH


def median_seconds(
    work: Callable[[], object], device: "torch.device", *, turns: int = MEASURED_STEPS, uncounted: int = 1
) -> float:
    """Seconds that the work takes on the device: the median over turns, after some that do not count."""
    import torch

    taken = []
    for _ in range(uncounted + turns):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return median(taken[uncounted:])


def testing_seconds(patch_s: float, plan: Plan, fingerprint: Fingerprint, cases: int) -> float:
    """Predicting and scoring so many cases of the size that the training cases have in the middle."""
    spacing, size = fingerprint.overall.spacing_zyx_mm, fingerprint.overall.size_zyx
    rows, columns = target_size(
        (round(size[1].median), round(size[2].median)),
        (spacing[1].median, spacing[2].median),
        plan.preprocessing.spacing_yx_mm,
    )
    windows = windows_per_slice((rows, columns), plan.patch_size, plan.step_size, plan.focus)
    patches = cases * size[0].median * windows * plan.augmentation.mirrored_views
    megavoxels = size[0].median * size[1].median * size[2].median / 1e6
    return (
        patches * patch_s + cases * (SECONDS_PER_CASE + SECONDS_PER_MEGAVOXEL * megavoxels) + SECONDS_TO_START
    )
