"""How long a run will take, from a training step and a prediction that are timed here, on a network that is thrown away.

What is timed is the network: augmentation, reading and writing come on top, as fixed seconds for each case. Nothing is read or written.

Axes: B batch, C channels, H and W rows and columns of a patch.
"""

import time
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from utseg.fingerprint import Fingerprint
from utseg.planning.memory import StepKind
from utseg.planning.plan import Plan
from utseg.planning.survey import survey
from utseg.planning.task import planned_task
from utseg.preprocess.case import target_size

if TYPE_CHECKING:
    import torch

    from utseg.training.recipe import Recipe

MEASURED_BATCH = 2
MEASURED_STEPS = 3
WINDOW_OVERLAP = 0.5
SECONDS_PER_CASE = 0.2
SECONDS_PER_MEGAVOXEL = 0.8
"""Reading, resampling, restoring, judging, writing and scoring, on one core."""
SECONDS_TO_START = 8.0
"""Starting Python and torch, and worker processes for prediction and for scoring."""
VALIDATION_SHARE = 0.1
"""Of training, at most: validations in between, and at native resolution at the end."""


@dataclass(frozen=True)
class Speed:
    """Seconds of an iteration with the plan's batch, and of the prediction of one patch."""

    iteration_s: float
    patch_s: float


@dataclass(frozen=True)
class Cost:
    """What a run is expected to take. `memory_gb` (1024³ bytes) is that of a training step."""

    training_s: float
    testing_s: float
    memory_gb: float
    parameters: int
    gmac: float


def measure(plan: Plan, recipe: "Recipe", device: "torch.device", *, training: bool = True) -> Speed:
    """Times a few training steps (unless only predictions matter), in the recipe's precision, and predictions.

    Raises SettingError for a wrong setting.
    """
    import torch

    from utseg.training.step import precision

    model = planned_task(plan).build().to(device)
    image_BCHW = torch.zeros(MEASURED_BATCH, plan.in_channels, *plan.patch_size, device=device)

    def step() -> None:
        with precision(recipe.amp, device):
            outputs = model(image_BCHW)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()

    def predict() -> None:
        with torch.inference_mode():
            model.main_logits(image_BCHW)

    iteration_s = _median_seconds(step, device) * plan.batch_size / MEASURED_BATCH if training else 0.0
    model.eval()
    return Speed(iteration_s, _median_seconds(predict, device) / MEASURED_BATCH)


def _median_seconds(work: Any, device: "torch.device") -> float:
    import torch

    taken = []
    for _ in range(MEASURED_STEPS + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return sorted(taken[1:])[MEASURED_STEPS // 2]


def testing_seconds(speed: Speed, plan: Plan, fingerprint: Fingerprint, cases: int) -> float:
    """Predicting and scoring so many cases of the size that the training cases have in the middle."""
    spacing, size = fingerprint.overall.spacing_zyx_mm, fingerprint.overall.size_zyx
    rows, columns = target_size(
        (round(size[1].median), round(size[2].median)),
        (spacing[1].median, spacing[2].median),
        plan.preprocessing.spacing_yx_mm,
    )
    windows = 1
    for length, patch in zip((rows, columns), plan.patch_size, strict=True):
        windows *= 1 + max(0, ceil((length - patch) / (patch * (1 - WINDOW_OVERLAP))))
    views = 1 << len(plan.augmentation.mirror_axes)
    patches = cases * size[0].median * windows * views
    megavoxels = size[0].median * size[1].median * size[2].median / 1e6
    return (
        patches * speed.patch_s
        + cases * (SECONDS_PER_CASE + SECONDS_PER_MEGAVOXEL * megavoxels)
        + SECONDS_TO_START
    )


def expected_cost(
    plan: Plan,
    kind: StepKind,
    speed: Speed,
    fingerprint: Fingerprint,
    *,
    epochs: int | None,
    slot_s: float | None,
    tested: int,
) -> Cost:
    """What a run will take: of its slot where it has one, else of its epochs (None: the plan's)."""
    figures = survey(planned_task(plan), kind)
    testing_s = testing_seconds(speed, plan, fingerprint, tested)
    training_s = (epochs or plan.epochs) * plan.iterations_per_epoch * speed.iteration_s
    training_s = training_s * (1 + VALIDATION_SHARE) if slot_s is None else max(0.0, slot_s - testing_s)
    return Cost(training_s, testing_s, figures.memory_gb, figures.parameters, figures.gmac)
