"""What stands before the first iteration: everything a request names is read and checked, and becomes the run's record.

Only reading happens here, so that a wrong word, setting, file or selection is refused before a folder is made. A resumed run must be the
run that was started: plan, recipe, data, cases and seed are compared key by key.
"""

import logging
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import utseg
from utseg.case import Case, Dataset
from utseg.device import resolve_device
from utseg.errors import ArtefactError, InputError, SettingError, listing
from utseg.files import sha256, sha256_json
from utseg.fingerprint.same_scan import same_scans
from utseg.networks import build_network, network_settings
from utseg.networks.network import SegmentationNetwork
from utseg.planning.plan import Plan, read_plan
from utseg.planning.survey import values_for_network
from utseg.preprocess.slices import CaseRecord, SliceStore
from utseg.preprocess.splits import check_same_scans, label_gaps, left_out, read_splits, select_cases
from utseg.preprocess.stale import check_current
from utseg.rawdata import open_dataset
from utseg.training.processes import World
from utseg.training.recipe import Recipe, apply_settings
from utseg.training.record import RUN_FILE, InitialWeights, RunRecord, read_run
from utseg.training.request import TrainRequest
from utseg.training.weights import (
    Fit,
    check_fit,
    fit_weights,
    labels_of_weights,
    number_outputs,
    read_tensors,
    weights_file,
)

logger = logging.getLogger("utseg")
MAY_DIFFER = (
    "device",
    "versions",
    "git_revision",
    "started",
    "plan.reasons",
    "plan.estimated_memory_gb",
    "initial_weights.saw",
    "training_scans",
)
PROCESSES = "processes"
TIMETABLE = ("epochs", "iterations_per_epoch", "recipe.validate_every")


@dataclass(frozen=True)
class Run:
    """A run as it will be, or is: its record, the recipe in it as a value, and where its data are. `validation` are raw cases.

    `fit` is what `--weights` gives the network to start from. `loop_limit_s` bounds the seconds of the loop in a new run with `--max-time`.
    `device` is this process's.
    """

    request: TrainRequest
    record: RunRecord
    recipe: Recipe
    store: SliceStore
    validation: tuple[Case, ...]
    device: torch.device
    world: World
    fit: Fit | None = None
    loop_limit_s: float | None = None

    @property
    def plan(self) -> Plan:
        """The plan with `--set` applied."""
        return self.record.plan

    @property
    def iterations(self) -> int:
        """Length of the schedule as recorded."""
        return self.record.epochs * self.record.iterations_per_epoch


def prepare(request: TrainRequest, recipe: Recipe, world: World) -> Run:
    """Reads what the request names. Raises UtsegError where something is missing, wrong or does not fit together."""
    device = world.device(resolve_device(request.device))
    known = network_settings(recipe.network_name)
    recipe, plan, extra = apply_settings(
        recipe, read_plan(request.plan_folder), request.settings, tuple(known)
    )
    world.places(plan.batch_size)
    planned = {key: value for key, value in values_for_network(plan).items() if key in known}
    network = shape_of_network(recipe.network_name, plan, planned | extra)
    check_outputs(network, recipe)
    initial, fit = read_initial(request, network, recipe.network_name, plan.preprocessing.labels)
    store = SliceStore(request.plan_folder)
    records = [store.case_record(case_id) for case_id in store.case_ids()]
    if not records:
        raise ArtefactError(
            f"{request.plan_folder}: no preprocessed slice is there; run utseg_plan_and_preprocess"
        )
    store.require_made_with(plan.preprocessing, records)
    training, validation = select(request, records)
    dataset = open_dataset(request.raw)
    is_whole = request.preprocessed.name == plan.dataset  # else a study's choice of the dataset's cases
    advice = store.advice if is_whole else "run the study again"
    for remark in check_current(dataset, plan, records, (*training, *validation), advice):
        if is_whole:
            logger.warning("%s: %s", request.raw, remark)
    warn_of_gaps(request.selection, training, validation, records, plan)
    if initial is not None:
        initial = initial.model_copy(update={"saw": _seen_before(request, plan, records, validation)})
    record = RunRecord(
        model=request.model,
        network=recipe.network_name,
        network_settings=planned | extra,
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        plan=plan,
        recipe=recipe.model_dump(mode="json"),
        initial_weights=initial,
        selection=request.selection,
        training_cases=tuple(training),
        validation_cases=tuple(validation),
        training_scans=tuple(
            sorted({scan for one in records if one.case_id in set(training) for scan in one.scans})
        ),
        epochs=request.epochs or plan.epochs,
        iterations_per_epoch=plan.iterations_per_epoch,
        seed=request.seed,
        device=str(device) if world.size == 1 else device.type,
        data_sha256=store.data_sha256([*training, *validation]),
        versions=versions(world),
        git_revision=git_revision(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cases = _raw_cases(dataset, record.validation_cases)
    return Run(request, record, recipe, store, cases, device, world, fit)


def shape_of_network(name: str, plan: Plan, settings: dict[str, Any]) -> SegmentationNetwork:
    """The network without memory for its values, to look at. Raises SettingError for a wrong setting."""
    with torch.device("meta"):
        return build_network(name, in_channels=plan.in_channels, num_classes=plan.num_classes, **settings)


def check_outputs(network: SegmentationNetwork, recipe: Recipe) -> None:
    """Raises SettingError where deep supervision has fewer weights than the network has outputs."""
    outputs, weights = len(network.heads), recipe.loss.deep_supervision_weights
    if outputs > len(weights):
        raise SettingError(
            f"loss.deep_supervision_weights: {len(weights)} weights for the {outputs} outputs that network {recipe.network_name} has; "
            "give one for each, or --set network.aux_loss=false"
        )


def read_initial(
    request: TrainRequest, network: SegmentationNetwork, name: str, labels: dict[str, int]
) -> tuple[InitialWeights | None, Fit | None]:
    """What `--weights` names, checked against the network, with its outputs in the order of the plan's labels."""
    if request.weights is None:
        return None, None
    path = weights_file(request.weights)
    tensors, theirs = read_tensors(path), labels_of_weights(path)
    tensors = number_outputs(network, tensors, path, theirs, labels, allow_mismatch=request.allow_mismatch)
    fit = fit_weights(network, tensors)
    check_fit(fit, path, name, allow_mismatch=request.allow_mismatch)
    return InitialWeights(file=path.name, sha256=sha256(path), tensors=len(fit.values), labels=theirs), fit


def _seen_before(
    request: TrainRequest, plan: Plan, records: Sequence[CaseRecord], validation: Sequence[str]
) -> int:
    """How many of the subjects held back here the run trained on that `--weights` comes from; a warning where there are any."""
    folder = weights_file(request.weights).parent if request.weights is not None else None
    if folder is None or not (folder / RUN_FILE).is_file():
        return 0
    source = read_run(folder)
    same = same_scans(records)
    owners = {record.case_id: same.get(record.subject, record.subject) for record in records}
    trained = {owners.get(case_id) for case_id in source.training_cases}
    held_back = {owners[case_id] for case_id in validation}
    seen = sorted(held_back & trained) if source.plan.dataset == plan.dataset else []
    if seen:
        logger.warning(
            "--weights %s: was trained on %d of the %d subjects that %s holds back (%s): their scores will be too good, and no model is "
            "chosen by them",
            request.weights,
            len(seen),
            len(held_back),
            request.selection,
            listing(seen),
        )
    return len(seen)


def select(request: TrainRequest, records: Sequence[CaseRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Case ids to train on and to validate on; a scan under two names is on one side."""
    splits, same = read_splits(request.preprocessed), same_scans(records)
    if request.selection.startswith("fold"):
        check_same_scans(splits, same, request.preprocessed)
    training, validation = select_cases(request.selection, records, splits, seed=0, same=same)
    if not training:
        raise InputError(f"{request.selection}: no case is left to train on")
    if request.selection.startswith("fold"):
        for line in left_out({request.selection: (training, validation)}, records):
            logger.warning("%s", line)
    return training, validation


def warn_of_gaps(
    selection: str,
    training: tuple[str, ...],
    validation: tuple[str, ...],
    records: Sequence[CaseRecord],
    plan: Plan,
) -> None:
    """Names in the log the labels that no training case, or no validation case, has."""
    names = {value: name for name, value in plan.preprocessing.labels.items() if value}
    present = {record.case_id: {names[value] for value in record.label_values if value} for record in records}
    for line in label_gaps(names.values(), {selection: (training, validation)}, present):
        logger.warning("%s", line)


def _raw_cases(dataset: Dataset, case_ids: tuple[str, ...]) -> tuple[Case, ...]:
    """The raw cases that the run is validated on at its end."""
    there = {case.case_id: case for case in dataset.training_cases()}
    missing = [case_id for case_id in case_ids if case_id not in there]
    if missing:
        raise InputError(
            f"{dataset.folder}: {len(missing)} of the {len(case_ids)} validation cases are not there any more ({', '.join(missing[:5])}); "
            "put them back, or run utseg_plan_and_preprocess again"
        )
    return tuple(there[case_id] for case_id in case_ids)


def check_same_everywhere(run: Run) -> None:
    """Raises InputError where the processes of a run do not see the same plan, data and settings."""
    own = {"git_revision", "started", "versions", "device"}
    seen = run.world.gathered(sha256_json(run.record.model_dump(mode="json", exclude=own)))
    differing = [str(rank) for rank, checksum in enumerate(seen) if checksum != seen[0]]
    if differing:
        raise run.world.for_all(
            InputError(
                f"{run.request.plan_folder}: rank {', '.join(differing)} sees another plan, other data or settings than rank 0; give all "
                "processes the same command and the same preprocessed folder"
            )
        )


def check_same_run(recorded: RunRecord, wanted: RunRecord, request: TrainRequest) -> None:
    """Raises InputError naming every key in which the run that was started differs from the one that is asked for.

    The timetable (epochs, validation) is the recorded one, which `--max-time` may have set; to ask for another one is a difference.
    """
    free = set(MAY_DIFFER)
    free |= {key for key in TIMETABLE if not (key == "epochs" and request.epochs)}
    if "validate_every" in request.settings:
        free.remove("recipe.validate_every")
    before, now = (dict(_flat(record.model_dump(mode="json"))) for record in (recorded, wanted))
    differing = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]
    if differing:
        listed = ", ".join(_difference(key, before.get(key), now.get(key)) for key in differing[:8])
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise InputError(
            f"{request.output}: cannot resume, the run was started otherwise: {listed}{more}; "
            "repeat the first command with --resume, or start again with --overwrite"
        )


def _difference(key: str, before: Any, now: Any) -> str:
    long = isinstance(before, list) or max(len(str(before)), len(str(now))) > 60
    return key if long else f"{key} ({before} then, {now} now)"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differing_versions(recorded: RunRecord, wanted: RunRecord) -> list[str]:
    """What may keep a resumed run from ending bit-identically: versions, threads, device, in words."""
    before = {PROCESSES: "1", **recorded.versions, "device": recorded.device}
    now = wanted.versions | {"device": wanted.device}
    return [
        f"{key} {before.get(key)} then, {now.get(key)} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def versions(world: World) -> dict[str, str]:
    """Versions of what computes, and the number of threads and processes, on which the last bits of a sum depend."""
    return {
        "utseg": utseg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "torch_threads": str(torch.get_num_threads()),
        PROCESSES: str(world.size),
    }


def git_revision() -> str:
    """The commit of this package's source where it runs from a git checkout of its own, `+changed` if edited since; else empty."""
    package = Path(utseg.__file__).resolve().parent

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, timeout=20, check=False
        )

    try:
        top = git("rev-parse", "--show-toplevel")
        if top.returncode or Path(top.stdout.strip()) != package.parent:
            return ""
        revision = git("rev-parse", "HEAD").stdout.strip()
        changed = git("diff", "--quiet", "HEAD", "--", "utseg", "trainers", "planners").returncode
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return revision + ("+changed" if revision and changed else "")
