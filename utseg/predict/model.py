"""Which trained models predict, and loading one: `run.json` says which network, `model.safetensors` fills it.

A network is looked up by its registered name; nothing else of a run's folder is executed or imported. torch is imported when a model
is loaded, not before.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.errors import ArtefactError, InputError, SettingError, UsageError
from utseg.files import sha256
from utseg.home import check_name, plan_folder_name, selection_folder_name
from utseg.labels import match_labels
from utseg.planning.task import planned_task
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, RunRecord, read_run, read_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on its device, the record of its training, its folder, and the SHA-256 of its weights' file."""

    network: "nn.Module"
    record: RunRecord
    folder: Path
    sha256: str

    @property
    def name(self) -> str:
        """DATASET/PLAN_2d/MODEL/FOLD, as in `results`."""
        return "/".join(self.folder.absolute().parts[-4:])


def load_model(folder: Path, device: "torch.device") -> LoadedModel:
    """Loads the model of a run's folder. Raises ArtefactError where a file is missing, damaged, or does not fit the network."""
    record = read_run(folder)
    weights = read_weights(folder)
    try:
        network = planned_task(record.plan).build()
    except (SettingError, UsageError) as error:
        raise ArtefactError(f"{folder / RUN_FILE}: the network cannot be built from it: {error}") from None
    _check_weights(weights, network.state_dict(), folder / WEIGHTS_FILE)
    network.load_state_dict(weights)
    network.eval().requires_grad_(False).to(device)
    return LoadedModel(network, record, folder, sha256(folder / WEIGHTS_FILE))


def _check_weights(given: "Mapping[str, Tensor]", wanted: "Mapping[str, Tensor]", path: Path) -> None:
    """Names and shapes must be the network's, and all values finite."""
    problems = weights_problems(given, wanted)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ArtefactError(
            f"{path}: the weights are not those of the network in {RUN_FILE}: {problems[0]}{more}; train again"
        )


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


def in_one_numbering(models: Sequence[LoadedModel]) -> list[LoadedModel]:
    """The models with outputs in the order of the first one's labels, matched by name; each may have its own spacing and patch.

    Raises InputError where labels do not match, or channels differ: they cannot predict together.
    """
    first = models[0]
    for model in models[1:]:
        ours, theirs = (
            first.record.plan.preprocessing.channel_names,
            model.record.plan.preprocessing.channel_names,
        )
        if ours != theirs:
            raise InputError(
                f"{model.name} and {first.name} cannot predict together: channel_names are {theirs} and {ours}; choose with -m and -f"
            )
    return [_numbered_as(model, first) for model in models]


def _numbered_as(model: LoadedModel, first: LoadedModel) -> LoadedModel:
    from utseg.networks.network import SegmentationNetwork

    ours, theirs = first.record.plan.preprocessing.labels, model.record.plan.preprocessing.labels
    if ours == theirs:
        return model
    matching = match_labels(ours, theirs, we=first.name, they=model.name)
    logger.info("%s and %s: labels matched by name: %s", first.name, model.name, matching.in_words())
    network = copy.deepcopy(model.network)
    assert isinstance(network, SegmentationNetwork)
    network.load_state_dict(network.in_class_order(network.state_dict(), matching.channel_order()))
    plan = model.record.plan
    preprocessing = plan.preprocessing.model_copy(update={"labels": ours})
    plan = plan.model_copy(update={"preprocessing": preprocessing})
    return replace(model, network=network, record=model.record.model_copy(update={"plan": plan}))


def choose_runs(
    dataset: Path,
    *,
    planner: str | None = None,
    models: Sequence[str] = (),
    folds: Sequence[str] = (),
) -> list[Path]:
    """The folders of the runs that predict, below `results/NAME`.

    planner: the plan's name; may be left out where one has trained models. models: may be left out where one is trained.
    folds: what the models were trained on; all of fold0, fold1, … that are trained where left out, else the only selection that is.
    Raises UsageError that lists what there is where the choice is not clear, InputError where something is not there.
    """
    plan_folder = _choose_plan(dataset, planner)
    names = list(dict.fromkeys(models)) or [_only_model(plan_folder)]
    return [run for name in names for run in _choose_folds(plan_folder, name, folds)]


def _trained(folder: Path) -> list[Path]:
    """Subfolders that are runs with weights: whose training has come to its end."""
    return [entry for entry in _begun(folder) if (entry / WEIGHTS_FILE).is_file()]


def _begun(folder: Path) -> list[Path]:
    """Subfolders that are runs."""
    return [entry for entry in _folders(folder) if (entry / RUN_FILE).is_file()]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _choose_plan(dataset: Path, planner: str | None) -> Path:
    there = [plan for plan in _folders(dataset) if any(_trained(model) for model in _folders(plan))]
    listed = ", ".join(plan.name.removesuffix(plan_folder_name("")) for plan in there)
    if planner is not None:
        folder = dataset / plan_folder_name(check_name(planner, "plan"))
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


def _only_model(plan_folder: Path) -> str:
    there = [model.name for model in _folders(plan_folder) if _trained(model)]
    if len(there) > 1:
        raise UsageError(
            f"{plan_folder}: several models are trained: {', '.join(there)}; choose one or more with -m"
        )
    return there[0]


def _choose_folds(plan_folder: Path, model: str, folds: Sequence[str]) -> list[Path]:
    folder = plan_folder / check_name(model, "model")
    there = {run.name: run for run in _trained(folder)}
    unfinished = [run for run in _begun(folder) if run.name not in there]
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
        chosen = [run for name, run in there.items() if name.startswith("fold")]
        if not chosen and len(there) > 1:
            raise UsageError(f"{folder}: {model} is trained on several selections: {listed}; choose with -f")
        chosen = chosen or list(there.values())
        for run in unfinished:
            logger.warning("%s: left out, its training has not finished", run)
    return chosen
