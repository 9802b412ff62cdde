"""Validation during training: Dice of held-back subjects, per case in 3-D, on the preprocessed grid.

It draws the curve and marks the best checkpoint. It chooses no model: the figures to report, of the weights of the end, would else be of
what these very subjects chose.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from utseg.figures.montage import comparison_montage
from utseg.figures.windows import largest_slice
from utseg.inference.windows import default_batch_size, predict_volumes
from utseg.networks.losses import LossSettings, volume_loss
from utseg.planning.plan import Plan
from utseg.training.processes import ALONE, World

if TYPE_CHECKING:
    from utseg.preprocess.slices import SliceStore

Overlay = NDArray[np.uint8]
OVERLAP = 1 / 8
"""Of windows, during training: with the half that prediction takes, a slice of 1.7 patches a side has 9 instead of 4."""
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
    store: "SliceStore",
    case_ids: Sequence[str],
    plan: Plan,
    device: torch.device,
    *,
    loss: LossSettings | None = None,
    overlays: int = 0,
    check: Callable[[], None] = lambda: None,
    world: World = ALONE,
) -> Validation:
    """Segments the cases' preprocessed slices, without mirroring, and scores them. The network's mode and random states stay as they were.

    `loss`: how to compute it, None for not; `overlays`: the number of pictures wanted; `check` is called for each case and may raise.
    Several processes share out the cases, and all have what was found.
    """
    started = time.perf_counter()
    labels = {name: value for name, value in plan.preprocessing.labels.items() if value != 0}
    own = case_ids[world.rank :: world.size]

    def scored() -> list[Scored]:
        found = segmented(network, store, own, plan, device, check)
        pictures = set(case_ids[:overlays])
        return [score(case, plan, labels, loss, case.case_id in pictures) for case in found]

    parts = world.gathered(world.together(scored))
    cases = [parts[index % world.size][index // world.size] for index in range(len(case_ids))]
    defined = {name: [case.dice[name] for case in cases if not np.isnan(case.dice[name])] for name in labels}
    return Validation(
        dice={name: float(np.mean(values)) if values else None for name, values in defined.items()},
        empty={name: len(case_ids) - len(values) for name, values in defined.items()},
        seconds=time.perf_counter() - started,
        overlays=tuple((case.case_id, case.picture) for case in cases if case.picture is not None),
        losses={name: float(np.mean([case.losses[name] for case in cases])) for name in cases[0].losses}
        if cases
        else {},
    )


@dataclass(frozen=True)
class Scored:
    """What one case was found to be worth: Dice (NaN where there is none) and losses by name; perhaps its picture."""

    case_id: str
    dice: dict[str, float]
    losses: dict[str, float]
    picture: Overlay | None


def score(
    case: "Segmented", plan: Plan, labels: Mapping[str, int], loss: LossSettings | None, with_picture: bool
) -> Scored:
    """Scores a case in 3-D."""
    prediction_ZYX = case.probability_KZYX.argmax(0).astype(np.uint8)
    picture = None
    if with_picture:
        z = largest_slice(case.reference_ZYX)
        slices = case.image_CZYX[0, z], case.reference_ZYX[z], prediction_ZYX[z]
        title, spacing = f"{case.case_id}, slice {z + 1}", plan.preprocessing.spacing_yx_mm
        drawn = comparison_montage(*slices, spacing, labels, title, magnification=OVERLAY_MAGNIFICATION)
        picture = np.asarray(drawn)
    return Scored(
        case.case_id,
        {name: dice(prediction_ZYX == value, case.reference_ZYX == value) for name, value in labels.items()},
        volume_loss(case.probability_KZYX, case.reference_ZYX, loss) if loss is not None else {},
        picture,
    )


@dataclass(frozen=True)
class Segmented:
    """A preprocessed case and what the network makes of it."""

    case_id: str
    image_CZYX: NDArray[np.float32]
    reference_ZYX: NDArray[np.uint8]
    probability_KZYX: NDArray[np.float32]


def segmented(
    network: nn.Module,
    store: "SliceStore",
    case_ids: Sequence[str],
    plan: Plan,
    device: torch.device,
    check: Callable[[], None],
) -> Iterator[Segmented]:
    """The cases in turn, read as they are needed."""
    waiting: deque[tuple[NDArray[np.float32], NDArray[np.uint8]]] = deque()

    def read() -> Iterator[NDArray[np.float32]]:
        for case_id in case_ids:
            check()
            image_CZYX, reference_ZYX = store.read_case(case_id)
            waiting.append((image_CZYX, reference_ZYX))
            yield image_CZYX

    found = predict_volumes(
        [network],
        read(),
        patch_size=plan.patch_size,
        batch_size=default_batch_size(plan.patch_size, device),
        num_classes=plan.num_classes,
        device=device,
        overlap=OVERLAP,
    )
    for case_id, predicted in zip(case_ids, found, strict=True):
        yield Segmented(case_id, *waiting.popleft(), predicted.probabilities_KZYX)


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """2|P∩R| / (|P|+|R|) of two masks; NaN where both are empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else float("nan")
