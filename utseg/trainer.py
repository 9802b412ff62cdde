"""Trainers by name: a recipe, the training loop, and the validation of the finished model on its held-back subjects.

That validation goes from the raw images through the same path as any prediction and is scored in native millimetres. Its scores and the
settings of the run are one line in TensorBoard's table of runs (HParams), in an event file of its own in the run's folder.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.errors import Interrupted
from utseg.files import read_json, write_json
from utseg.home import plan_name
from utseg.label_map import structures
from utseg.training.events import EventWriter
from utseg.training.record import (
    SCORES_SUFFIX,
    SUMMARY_FILE,
    VALIDATION_FOLDER,
    is_finished,
    read_run,
    scores_files,
    write_weights,
)
from utseg.training.request import TrainRequest

if TYPE_CHECKING:
    from utseg.planning.memory import StepKind
    from utseg.training.prepare import Run
    from utseg.training.recipe import Recipe
    from utseg.training.state import State

logger = logging.getLogger("utseg")
Trainer = Callable[[TrainRequest], dict[str, float]]
MEAN = "mean"
MISSED = "native_missed/total"


def find_trainer(model: str) -> Trainer:
    """What trains the model of that name by its recipe. UsageError lists the names."""
    from utseg.training.recipe import find_recipe

    return partial(train_by_recipe, recipe=find_recipe(model))


def planned_step(network_name: str, device: str = "auto") -> "StepKind":
    """How the network of a name will be trained, as far as a plan's memory depends on it."""
    from utseg.device import resolve_device
    from utseg.training.memory import step_kind
    from utseg.training.recipe import find_recipe

    return step_kind(find_recipe(network_name), resolve_device(device))


def differences_of_finished(request: TrainRequest) -> list[str]:
    """In which plan, recipe, seed and length a run that has finished differs from what is asked for, with both values."""
    from utseg.planning.plan import read_plan
    from utseg.training.differences import OF_A_FOLD, differences
    from utseg.training.recipe import apply_settings, find_recipe

    record = read_run(request.output)
    recipe, plan = apply_settings(
        find_recipe(request.model), read_plan(request.plan_folder), request.settings
    )
    asked: dict[str, Any] = {"seed": request.seed, "recipe": recipe.model_dump(mode="json"), "plan": plan}
    asked |= {"patience": request.patience, "epochs": request.epochs or record.planned_epochs}
    found = differences(record, record.model_copy(update=asked), request)
    return [words for words in found if not words.startswith(OF_A_FOLD)]


def train_by_recipe(request: TrainRequest, recipe: "Recipe") -> dict[str, float]:
    """Trains as the request and the recipe say, goes on, or only validates; the mean Dice per label at native resolution.

    In several processes of torchrun, all return when training ends, and rank 0 alone validates at native resolution and has the Dice.
    Raises UtsegError in one line for all that a person can fix; Interrupted after SIGTERM or SIGINT, with everything saved.
    """
    from utseg.training.loop import train

    return train(request, recipe, finish)


def finish(run: "Run", state: "State", was_complete: bool) -> dict[str, float | None]:
    """Saves the model and validates it, unless a run that had finished before has all of that. Returns the mean Dice per label."""
    folder = run.request.output
    again = run.request.validate or run.request.save_probabilities
    had_finished = was_complete and is_finished(folder) and not again
    if had_finished:
        logger.info("%s: this run has finished, nothing is left to do", folder)
    else:
        # Weights of the end, whatever validation said on the way: whoever is to score a model must not choose it.
        write_weights(state.model.state_dict(), folder)
        state.say_which_model()
        try:
            validate_at_native_resolution(run)
        except KeyboardInterrupt:
            how = "again validates it anew" if run.request.validate else "with --resume goes on"
            raise Interrupted(
                f"{folder}: interrupted in the final validation, the training is saved; the same command {how}"
            ) from None
    summary = read_json(folder / VALIDATION_FOLDER / SUMMARY_FILE)
    if not (had_finished and scores_files(folder)):
        labels = list(structures(run.plan.preprocessing.labels))
        write_scores(folder, settings_of(run, state), final_scores(summary, labels), state.iteration)
    return {name: label["dice"]["mean"] for name, label in summary["all"]["labels"].items()}


def validate_at_native_resolution(run: "Run") -> None:
    """Predicts the raw images of the validation cases with the run's model into `validation/` and scores them there.

    What is there already of this model is kept, unless it is to be validated again. Without cases the summary says that nothing was scored.
    """
    from utseg.evaluate.score import evaluate_cases
    from utseg.evaluate.summary import summarise
    from utseg.predict.model import load_model
    from utseg.predict.pipeline import predict_cases

    request, folder = run.request, run.request.output / VALIDATION_FOLDER
    if not run.raw_validation:
        folder.mkdir(exist_ok=True)
        write_json(folder / SUMMARY_FILE, summarise([], ()))
        return
    logger.info("validation of %d cases at native resolution", len(run.raw_validation))
    model = load_model(request.output, run.device)
    (folder / SUMMARY_FILE).unlink(missing_ok=True)  # the run has not finished until its masks are scored
    predict_cases(
        run.raw_validation,
        [model],
        folder,
        save_probabilities=request.save_probabilities,
        workers=request.workers,
        resume=not request.validate,
    )
    evaluate_cases(run.raw_validation, folder, run.plan.preprocessing.labels, folder, workers=request.workers)


def settings_of(run: "Run", state: "State") -> dict[str, str | float | None]:
    """The columns of the table, the same for every run. None where the network has no such number."""
    record, plan, optimizer = run.record, run.plan, run.recipe.optimizer
    initial = record.initial_weights
    channels = plan.network.get("base_channels")
    return {
        "model": record.model,
        "network": plan.network_name,
        "trained_on": record.selection,
        "base_channels": float(channels) if isinstance(channels, int) else None,
        "deep_supervision": "yes" if len(state.network.heads) > 1 else "no",
        "parameters": float(sum(value.numel() for value in state.network.parameters())),
        "initial_weights": initial.file if initial else "random",
        "optimiser": type(state.optimizer).__name__.lower(),
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
        "planner": plan_name(plan.folder_name),
        "device": record.device,
    }


def final_scores(summary: Mapping[str, Any], labels: list[str]) -> dict[str, float | None]:
    """`native_dice/LV`, `native_hd95_mm/LV`, …: the mean over subjects for each label, and `…/mean` over the labels that have one.

    Distances are defined only where a structure was found: `native_missed/total` counts, over cases and labels, the predictions that are
    empty where the reference is not. None where no case has a defined score: the column is there all the same, for the runs that have.
    """
    from utseg.evaluate.metrics import metrics_for

    found: dict[str, float | None] = {}
    of_labels = summary["all"]["labels"]
    for metric in metrics_for("interval"):
        tag = f"native_{metric}"
        means = {name: of_labels.get(name, {}).get(metric, {}).get("mean") for name in labels}
        defined = [value for value in means.values() if value is not None]
        found |= {f"{tag}/{name}": value for name, value in means.items()}
        found[f"{tag}/{MEAN}"] = sum(defined) / len(defined) if defined else None
    missed = [label["empty"]["prediction_empty"] for label in of_labels.values()]
    found[MISSED] = float(sum(missed)) if missed else None
    return found


def write_scores(
    folder: Path, settings: Mapping[str, str | float | None], scores: Mapping[str, float | None], step: int
) -> None:
    """Writes the line of TensorBoard's table in the place of an earlier one.

    Not by SummaryWriter's `add_hparams`: it declares no column without a value, and TensorBoard takes the columns from the first run that
    it finds; and it names its file so that an earlier one cannot be told from the curves' and replaced.
    """
    from torch.utils.tensorboard.summary import hparams

    declared = {key: 0.0 if value is None else value for key, value in settings.items()}
    columns, _, _ = hparams(declared, dict.fromkeys(scores, 0.0))
    _, begin, end = hparams(dict(settings), {})
    for earlier in scores_files(folder):
        earlier.unlink()
    known = {tag: value for tag, value in scores.items() if value is not None}
    with EventWriter(folder, filename_suffix=SCORES_SUFFIX) as events:
        events.write(step, known, summaries=(columns, begin, end))
