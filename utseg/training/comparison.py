"""A run's line in TensorBoard's table of runs (HParams): the settings that matter, and the final scores in native millimetres.

The line lies in the run's own folder, as one small event file that is written whole: the table, the curves and the pictures of a run
are then one run to TensorBoard, and writing it again replaces it. (`SummaryWriter.add_hparams` writes a file that cannot be told from
the curves', so an earlier line would stay and win, and has no columns without a value.) Columns are the same for every network; a
setting that a network does not have stays blank. Nothing is scored here: the scores are those of `validation/summary.json`.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from utseg.evaluate.metrics import MAIN
from utseg.files import read_json, write_bytes
from utseg.training.record import SUMMARY_FILE, VALIDATION_FOLDER
from utseg.training.state import State

if TYPE_CHECKING:
    from utseg.training.prepare import Run

PREFIX = "events.out.tfevents."
SUFFIX = ".scores"
MEAN = "mean"
MISSED = "native_missed/total"


def write_comparison(run: "Run", state: State) -> None:
    """Writes the line of a run that was validated at native resolution, in the place of an earlier one."""
    folder = run.request.output
    summary = read_json(folder / VALIDATION_FOLDER / SUMMARY_FILE)
    labels = [name for name, value in run.plan.preprocessing.labels.items() if value != 0]
    earlier = comparisons(folder)
    path = folder / f"{PREFIX}{int(time.time()):010d}{SUFFIX}"
    write_bytes(path, event_file(settings_of(run, state), final_scores(summary, labels), state.iteration))
    remove([other for other in earlier if other != path])


def comparisons(folder: Path) -> list[Path]:
    """The event files with a line of the table in a run's folder: one, or none yet."""
    return sorted(folder.glob(f"{PREFIX}*{SUFFIX}"))


def remove(files: list[Path]) -> None:
    """Removes lines of the table."""
    for path in files:
        path.unlink(missing_ok=True)


def settings_of(run: "Run", state: State) -> dict[str, str | float | None]:
    """The columns of the table, the same for every run. None where the network has no such number."""
    record, plan, optimizer = run.record, run.plan, run.recipe.optimizer
    initial = record.initial_weights
    channels = record.network_settings.get("base_channels")
    return {
        "model": record.model,
        "network": record.network,
        "trained_on": record.selection,
        "base_channels": float(channels) if isinstance(channels, int) else None,
        "deep_supervision": "yes" if len(state.network.heads) > 1 else "no",
        "parameters": float(sum(value.numel() for value in state.network.parameters())),
        "initial_weights": initial.file if initial else "random",
        "optimiser": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "batch_size": float(plan.batch_size),
        "patch_size": " × ".join(map(str, plan.patch_size)),
        "spacing_mm": " × ".join(f"{step:g}" for step in plan.preprocessing.spacing_yx_mm),
        "epochs": float(state.epoch),
        "iterations": float(state.iteration),
        "seed": float(record.seed),
        "training_cases": float(len(record.training_cases)),
        "validation_cases": float(len(record.validation_cases)),
        "planner": plan.planner,
        "device": record.device,
    }


def final_scores(summary: Mapping[str, Any], labels: list[str]) -> dict[str, float | None]:
    """`native_dice/LV`, `native_hd95_mm/LV`, …: the mean over subjects for each label, and `…/mean` over the labels that have one.

    Distances are defined only where a structure was found: `native_missed/total` counts, over cases and labels, the predictions that are
    empty where the reference is not. None where no case has a defined score: the column is there all the same, for the runs that have.
    """
    found: dict[str, float | None] = {}
    of_labels = summary["all"]["labels"]
    for metric in MAIN:
        tag = f"native_{metric}"
        means = {name: of_labels.get(name, {}).get(metric, {}).get("mean") for name in labels}
        defined = [value for value in means.values() if value is not None]
        found |= {f"{tag}/{name}": value for name, value in means.items()}
        found[f"{tag}/{MEAN}"] = sum(defined) / len(defined) if defined else None
    missed = [label["empty"]["prediction_empty"] for label in of_labels.values()]
    found[MISSED] = float(sum(missed)) if missed else None
    return found


def event_file(
    settings: Mapping[str, str | float | None], scores: Mapping[str, float | None], step: int
) -> bytes:
    """The bytes of an event file with the line of the table and its scores as scalars.

    TensorBoard takes the columns from the first run that it finds, so all are declared, those without a value too.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    declared = {key: 0.0 if value is None else value for key, value in settings.items()}
    columns, _, _ = hparams(declared, dict.fromkeys(scores, 0.0))
    _, begin, end = hparams(dict(settings), {})
    with TemporaryDirectory() as folder:
        with SummaryWriter(folder) as events:
            for summary in (columns, begin, end):
                events.file_writer.add_summary(summary, step)
            for tag, value in scores.items():
                if value is not None:
                    events.add_scalar(tag, value, step)
        (written,) = Path(folder).iterdir()
        return written.read_bytes()
