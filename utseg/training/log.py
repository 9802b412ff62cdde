"""The log of a run: a line an epoch on the terminal, `training.jsonl`, TensorBoard events, `progress.png`.

The history of epochs is part of the checkpoint; `training.jsonl` and the picture are made from it, so that a resumed run has every
epoch once.
"""

import io
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from utseg.files import write_bytes, write_text
from utseg.training.events import EventWriter
from utseg.training.request import TrainRequest
from utseg.training.validation import Overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger("utseg")
JSONL = "training.jsonl"
PICTURE = "progress.png"
OVERLAYS = "overlays"
SECONDS_BETWEEN_PICTURES = 20.0
Epoch = dict[str, Any]


class RunLog:
    """Writes the epochs of one run into its folder. `history` holds the epochs that are already done. A context manager."""

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        self.folder = folder
        self.history = list(history)
        done = self.history[-1]["iteration"] if self.history else 0
        self._write_history()
        self._events = EventWriter(folder, purge_step=done + 1 if done else None)
        self._last_picture = time.monotonic()

    def epoch(self, epoch: Epoch, overlays: Sequence[tuple[str, Overlay]] = ()) -> None:
        """Logs one finished epoch. Raises UtsegError where the disk is full."""
        self.history.append(epoch)
        logger.info("%s", epoch_line(epoch))
        self._write_history()
        pictures = [(f"{OVERLAYS}/{name}", picture) for name, picture in overlays]
        self._events.write(epoch["iteration"], scalars_of(epoch), pictures=pictures)
        if time.monotonic() - self._last_picture > SECONDS_BETWEEN_PICTURES:
            self.picture()

    def picture(self) -> None:
        """Draws `progress.png`."""
        write_bytes(self.folder / PICTURE, draw_progress(self.history))
        self._last_picture = time.monotonic()

    def _write_history(self) -> None:
        lines = [json.dumps(epoch, allow_nan=False) + "\n" for epoch in self.history]
        write_text(self.folder / JSONL, "".join(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._events.__exit__(*error)


def scalars_of(epoch: Epoch) -> dict[str, float]:
    """What TensorBoard shows of an epoch: the same tags for every network, for runs side by side.

    `loss/train` and `loss/validation` are those of the full output, which every network has; what deep supervision adds is in
    `loss_terms/train_total` and `loss_terms/train_auxiliary`.
    """
    terms: dict[str, float] = epoch["terms"]
    losses: dict[str, float] = epoch["validation_losses"] or {}
    training_s = epoch["seconds"] - epoch["validation_seconds"]
    found: dict[str, float | None] = {
        "loss/train": epoch["loss"] - terms.get("auxiliary", 0.0),
        "loss/validation": losses.get("total"),
        "loss_terms/train_total": epoch["loss"],
        **{f"loss_terms/train_{name}": value for name, value in terms.items()},
        **{f"loss_terms/validation_{name}": losses[name] for name in losses if name != "total"},
        **{f"validation_dice/{name}": value for name, value in (epoch["validation_dice"] or {}).items()},
        "validation_dice/mean": epoch["mean_dice"],
        "optimisation/learning_rate": epoch["learning_rate"],
        "optimisation/gradient_norm": epoch["gradient_norm"],
        "speed/slices_per_second": epoch["slices"] / training_s if training_s > 0 else None,
        "speed/seconds_per_epoch": epoch["seconds"],
        "speed/data_wait_seconds": epoch["data_wait_seconds"],
        "speed/validation_seconds": epoch["validation_seconds"],
        "progress/epoch": epoch["epoch"],
        "progress/hours": epoch["total_seconds"] / 3600,
    }
    return {name: value for name, value in found.items() if value is not None}


def epoch_line(epoch: Epoch) -> str:
    """One epoch for people: `epoch 3/40  loss 0.412  Dice LV .91 MYO .80 RV .85  lr .0100  12.3 s (data wait .1 s)`."""
    parts = [f"epoch {epoch['epoch']}/{epoch['epochs']}", f"loss {epoch['loss']:.3f}"]
    if epoch["validation_dice"] is not None:
        parts.append(
            "Dice " + " ".join(f"{name} {short(value)}" for name, value in epoch["validation_dice"].items())
        )
    parts.append(f"lr {epoch['learning_rate']:.2g}")
    parts.append(f"{epoch['seconds']:.1f} s (data wait {epoch['data_wait_seconds']:.1f} s)")
    return "  ".join(parts) + ("  best" if epoch["best"] else "")


def short(value: float | None) -> str:
    """A Dice in two or three characters: .91, 1.0, – where there is none."""
    if value is None:
        return "–"
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"


def report(dice: dict[str, float | None], request: TrainRequest) -> None:
    """The table that ends a run."""
    defined = [value for value in dice.values() if value is not None]
    if not dice:
        logger.info("no subject was held back: nothing to validate on")
        return
    logger.info(
        "%s %s: mean Dice of the validation subjects at native resolution", request.model, request.selection
    )
    rows = {**dice, "mean": sum(defined) / len(defined)} if defined else dice
    width = max(map(len, rows))
    for name, value in rows.items():
        logger.info("  %-*s %s", width, name, short(value))
    logger.info("the model is in %s", request.output)


def draw_progress(history: Sequence[Epoch]) -> bytes:
    """Loss and validation Dice over epochs, as the bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    last = history[-1]["epochs"] if history else 1
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, dice_axes = figure.subplots(1, 2)

    def plot(axes: "Axes", group: str, name: str, **style: Any) -> None:
        """One curve, over the epochs that have the group."""
        points = [(epoch["epoch"], epoch[group][name]) for epoch in history if epoch.get(group)]
        if points:
            numbers, values = zip(*points, strict=True)
            axes.plot(numbers, [np.nan if value is None else value for value in values], **style)

    numbers = [epoch["epoch"] for epoch in history]
    marker = "." if len(history) == 1 else ""  # a line of one point has no length
    loss_axes.plot(numbers, [epoch["loss"] for epoch in history], label="total", color="black", marker=marker)
    for term in history[0]["terms"] if history else ():
        plot(loss_axes, "terms", term, label=term, linewidth=1, marker=marker)
    plot(loss_axes, "validation_losses", "total", label="validation", linestyle="--", marker=marker)
    validated = (epoch["validation_dice"] for epoch in history if epoch["validation_dice"])
    for label in next(validated, ()):
        plot(dice_axes, "validation_dice", label, label=label, marker=".")
    loss_axes.set(xlabel="epoch", title="loss", xlim=(0, last + 1))
    dice_axes.set(xlabel="epoch", title="validation Dice", xlim=(0, last + 1), ylim=(0, 1))
    for axes in (loss_axes, dice_axes):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
