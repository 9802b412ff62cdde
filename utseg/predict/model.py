"""Which trained models predict, and loading one: `run.json` says which network, `model.safetensors` or the best checkpoint fills it.

A network is looked up by its registered name; nothing else of a run's folder is executed or imported. torch is imported when a model
is loaded, not before.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

from utseg.errors import ArtefactError, InputError, SettingError, UsageError
from utseg.files import sha256
from utseg.home import (
    check_name,
    is_fold,
    plan_folder_name,
    plan_name,
    selection_folder_name,
    split_plan_name,
)
from utseg.label_map import LabelValue
from utseg.labels import match_network_labels, same_numbering
from utseg.planning.task import planned_task
from utseg.settings import with_settings
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, Checkpoint, RunRecord, read_run, read_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on its device, the record of its training, its folder, and the SHA-256 of its weights' file.

    `checkpoint`: which of the run's weights these are.
    """

    network: "nn.Module"
    record: RunRecord
    folder: Path
    sha256: str
    checkpoint: Checkpoint = "final"

    @property
    def name(self) -> str:
        """DATASET/PLAN_2d/MODEL/FOLD, as in `results`."""
        return "/".join(self.folder.absolute().parts[-4:])


def load_model(folder: Path, device: "torch.device", checkpoint: Checkpoint = "final") -> LoadedModel:
    """Loads the model of a run's folder. Raises ArtefactError where a file is missing, damaged, or does not fit the network."""
    record = read_run(folder)
    weights, file = _read_weights(folder, checkpoint)
    try:
        network = planned_task(record.plan).build()
    except (SettingError, UsageError) as error:
        raise ArtefactError(f"{folder / RUN_FILE}: the network cannot be built from it: {error}") from None
    if problems := weights_problems(weights, network.state_dict()):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ArtefactError(
            f"{file}: the weights are not those of the network in {RUN_FILE}: {problems[0]}{more}; train again"
        )
    network.load_state_dict(weights)
    network.eval().requires_grad_(False).to(device)
    return LoadedModel(network, record, folder, sha256(file), checkpoint)


def _read_weights(folder: Path, checkpoint: Checkpoint) -> "tuple[Mapping[str, Tensor], Path]":
    """The weights, and the file that they are in."""
    if checkpoint not in get_args(Checkpoint):
        raise UsageError(f"checkpoint {checkpoint!r}: expected one of {', '.join(get_args(Checkpoint))}")
    if checkpoint == "final":
        return read_weights(folder), folder / WEIGHTS_FILE
    from utseg.training.checkpoint import BEST, load

    file = folder / BEST
    if not file.is_file():
        raise ArtefactError(
            f"{file}: not found, the run has final weights at most; leave out --checkpoint {checkpoint}"
        )
    return load(file)["network"], file


def weights_problems(given: "Mapping[str, Tensor]", wanted: "Mapping[str, Tensor]") -> list[str]:
    """How tensors differ from those of a network in names and shapes, and which have values that are not finite; sorted."""
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not in the network" for name in given if name not in wanted]
    for name in given.keys() & wanted.keys():
        if given[name].shape != wanted[name].shape:
            found, expected = tuple(given[name].shape), tuple(wanted[name].shape)
            problems.append(f"{name} has the shape {found} where the network has {expected}")
        elif given[name].is_floating_point() and not given[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    return sorted(problems)


class NamedChannels(Protocol):
    """What a model or a folder of probabilities says of its channels: the labels of its outputs, the names of its inputs."""

    @property
    def labels(self) -> dict[str, LabelValue]: ...
    @property
    def channel_names(self) -> tuple[str, ...]: ...


def output_order(ours: NamedChannels, theirs: NamedChannels, *, we: str, they: str) -> list[int]:
    """For each of our outputs that of theirs which has the same label by name. `we`, `they`: what these are, for people.

    Raises InputError where labels do not match, or channels differ: they cannot predict together.
    """
    if ours.channel_names != theirs.channel_names:
        raise InputError(
            f"{they} and {we} do not go together: channel_names are {theirs.channel_names} and {ours.channel_names}"
        )
    matching = match_network_labels(ours.labels, theirs.labels, we=we, they=they)
    if not same_numbering(ours.labels, theirs.labels):
        logger.info("%s and %s: labels matched by name: %s", we, they, matching.in_words())
    return matching.channel_order()


def in_one_numbering(models: Sequence[LoadedModel]) -> list[LoadedModel]:
    """The models with outputs in the order of the first one's labels; each may have its own spacing and patch. Errors as `output_order`."""
    return [_numbered_as(model, models[0]) for model in models]


def _numbered_as(model: LoadedModel, first: LoadedModel) -> LoadedModel:
    from utseg.networks.network import SegmentationNetwork

    plan = model.record.plan
    ours, theirs = first.record.plan.preprocessing, plan.preprocessing
    order = output_order(ours, theirs, we=first.name, they=model.name)
    if ours.labels == theirs.labels:
        return model
    network = copy.deepcopy(model.network)
    assert isinstance(network, SegmentationNetwork)
    network.load_state_dict(network.in_class_order(network.state_dict(), order))
    preprocessing = theirs.model_copy(update={"labels": ours.labels})
    plan = plan.model_copy(update={"preprocessing": preprocessing})
    return replace(model, network=network, record=model.record.model_copy(update={"plan": plan}))


def with_windows_everywhere(model: LoadedModel, step_size: float) -> LoadedModel:
    """The model, predicting by windows with that step in place of what its plan says. Raises SettingError for a step that cannot be."""
    plan = with_settings(model.record.plan, {"focus": False, "step_size": step_size}, "step_size")
    return replace(model, record=model.record.model_copy(update={"plan": plan}))


def choose_runs(
    dataset: Path,
    *,
    planner: str | None = None,
    models: Sequence[str] = (),
    folds: Sequence[str] = (),
) -> list[Path]:
    """The folders of the runs that predict, below `results/NAME`.

    planner: the plan's name, as auto or auto_2.5d; may be left out where one has trained models. models: may where one is trained.
    folds: what the models were trained on; all of fold0, fold1, … that are trained where left out, else the only selection that is.
    Raises UsageError that lists what there is where the choice is not clear, InputError where something is not there.
    """
    plan_folder = _choose_plan(dataset, planner)
    names = list(dict.fromkeys(models)) or [model.name for model in _folders(plan_folder) if _trained(model)]
    if not models and len(names) > 1:
        raise UsageError(
            f"{plan_folder}: several models are trained: {', '.join(names)}; choose one or more with -m"
        )
    return [run for name in names for run in choose_folds(plan_folder / check_name(name, "model"), folds)]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _trained(folder: Path) -> list[Path]:
    """Subfolders that are runs with weights: whose training has come to its end."""
    return [run for run in _folders(folder) if (run / RUN_FILE).is_file() and (run / WEIGHTS_FILE).is_file()]


def _choose_plan(dataset: Path, planner: str | None) -> Path:
    there = [plan for plan in _folders(dataset) if any(_trained(model) for model in _folders(plan))]
    listed = ", ".join(plan_name(plan.name) for plan in there)
    if planner is not None:
        folder = dataset / plan_folder_name(*split_plan_name(check_name(planner, "plan")))
        if folder not in there:
            raise InputError(
                f"{folder}: no trained model is there (plans with trained models: {listed or 'none'}); run utseg_train first"
            )
        return folder
    if not there:
        raise InputError(f"{dataset}: no trained model is there; run utseg_train first")
    if len(there) > 1:
        raise UsageError(f"{dataset}: several plans have trained models: {listed}; choose one with -pl")
    return there[0]


def choose_folds(folder: Path, folds: Sequence[str] = ()) -> list[Path]:
    """The runs that predict of a model's folder, wherever that is. Arguments and errors as of `choose_runs`."""
    model, plan_folder = folder.name, folder.parent
    there = {run.name: run for run in _trained(folder)}
    unfinished = [run for run in _folders(folder) if (run / RUN_FILE).is_file() and run.name not in there]
    begun = f" (begun, not finished: {', '.join(run.name for run in unfinished)})" if unfinished else ""
    listed = (", ".join(there) or "none") + begun
    if not there:
        trained = ", ".join(entry.name for entry in _folders(plan_folder) if _trained(entry))
        raise InputError(f"{folder}: {model} is not trained there{begun}; trained: {trained or 'none'}")
    folds = [selection_folder_name(fold) for fold in folds]
    for fold in folds:
        if fold not in there:
            raise InputError(f"{folder}: {model} is not trained on {fold!r}; trained: {listed}")
    chosen = [there[fold] for fold in dict.fromkeys(folds)]
    if not folds:
        chosen = [run for name, run in there.items() if is_fold(name)]
        if not chosen and len(there) > 1:
            raise UsageError(f"{folder}: {model} is trained on several selections: {listed}; choose with -f")
        chosen = chosen or list(there.values())
        for run in unfinished:
            logger.warning("%s: left out, its training has not finished", run)
    return chosen
