"""Validation during training: Dice of held-back subjects, per case in 3-D, on the preprocessed grid.

It draws the curve and marks the best checkpoint. It chooses no model: the figures to report, of the weights of the end, would else be of
what these very subjects chose.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from utseg.figures.montage import comparison_montage
from utseg.figures.windows import largest_slice
from utseg.inference.windows import default_batch_size, predict_volumes
from utseg.labels import IGNORED_CLASS, class_numbers, structures
from utseg.networks.losses import LossSettings, volume_loss
from utseg.planning.plan import Plan
from utseg.preprocess.neighbours import with_neighbours
from utseg.preprocess.slices import CaseRecord, SliceStore
from utseg.training.processes import Processes

Overlay = NDArray[np.uint8]
# Of windows, during training: with steps of half a window a slice of 1.7 patches a side has 9 instead of 4.
STEP_SIZE = 7 / 8
OVERLAY_MAGNIFICATION = 1.5


@dataclass(frozen=True)
class Validation:
    """What one validation found. `dice` maps label names to the mean over cases, None where no case has the label or shows it.

    `empty` counts, per label, the cases in which reference and prediction both lack it: they have no Dice. `losses` are those of
    `volume_loss`, means over cases; empty without cases or where none were asked for. `overlays` are (Y, X, 3).
    """

    dice: dict[str, float | None]
    empty: dict[str, int]
    seconds: float
    overlays: tuple[tuple[str, Overlay], ...] = ()
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def mean_dice(self) -> float | None:
        """Mean over the labels that have one."""
        values = [value for value in self.dice.values() if value is not None]
        return sum(values) / len(values) if values else None


def validate(
    network: nn.Module,
    store: SliceStore,
    cases: Sequence[CaseRecord],
    plan: Plan,
    device: torch.device,
    *,
    loss: LossSettings | None = None,
    overlays: int = 0,
    check: Callable[[], None] = lambda: None,
    processes: Processes | None = None,
) -> Validation:
    """Segments the cases' preprocessed slices, without mirroring, and scores them. The network's mode and random states stay as they were.

    `loss`: how to compute it, None for not; `overlays`: the number of pictures wanted; `check` is called for each case and may raise.
    Several processes share out the cases, and all have what was found.
    """
    started = time.perf_counter()
    shown = cases[:overlays]

    def score(mine: Sequence[CaseRecord]) -> list[CaseScore]:
        scores = []
        for case in mine:
            check()
            scores.append(score_case(network, store, case, plan, device, loss, case in shown))
        return scores

    scores = (processes or Processes()).share_out(cases, score)
    names = list(structures(plan.preprocessing.labels))
    defined = {name: [case.dice[name] for case in scores if not np.isnan(case.dice[name])] for name in names}
    losses = scores[0].losses if scores else ()
    return Validation(
        dice={name: float(np.mean(values)) if values else None for name, values in defined.items()},
        empty={name: len(cases) - len(values) for name, values in defined.items()},
        seconds=time.perf_counter() - started,
        overlays=tuple((case.case_id, case.picture) for case in scores if case.picture is not None),
        losses={name: float(np.mean([case.losses[name] for case in scores])) for name in losses},
    )


@dataclass(frozen=True)
class CaseScore:
    """What the network makes of one case: Dice (NaN where there is none) and losses by name; perhaps a picture."""

    case_id: str
    dice: dict[str, float]
    losses: dict[str, float]
    picture: Overlay | None


def score_case(
    network: nn.Module,
    store: SliceStore,
    case: CaseRecord,
    plan: Plan,
    device: torch.device,
    loss: LossSettings | None,
    with_picture: bool,
) -> CaseScore:
    """Segments a case and scores it in 3-D."""
    image_CZYX, reference_ZYX = store.read_case(case)
    (predicted,) = predict_volumes(
        [network],
        [with_neighbours(image_CZYX, plan, case.slice_distance_mm)],
        patch_size=plan.patch_size,
        batch_size=default_batch_size(plan.patch_size, device),
        num_classes=plan.num_classes,
        device=device,
        step_size=STEP_SIZE,
    )
    losses = volume_loss(predicted.probabilities_KZYX, reference_ZYX, loss) if loss is not None else {}
    prediction_ZYX = predicted.probabilities_KZYX.argmax(0).astype(np.uint8)
    prediction_ZYX[reference_ZYX == IGNORED_CLASS] = 0
    reference_ZYX[reference_ZYX == IGNORED_CLASS] = 0
    labels = class_numbers(plan.preprocessing.labels)
    picture = None
    if with_picture:
        z = largest_slice(reference_ZYX)
        slices = image_CZYX[0, z], reference_ZYX[z], prediction_ZYX[z]
        title, spacing = f"{case.case_id}, slice {z + 1}", plan.preprocessing.spacing_yx_mm
        drawn = comparison_montage(*slices, spacing, labels, title, magnification=OVERLAY_MAGNIFICATION)
        picture = np.asarray(drawn)
    return CaseScore(
        case.case_id,
        {name: dice(prediction_ZYX == number, reference_ZYX == number) for name, number in labels.items()},
        losses,
        picture,
    )


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """2|P∩R| / (|P|+|R|) of two masks; NaN where both are empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")
