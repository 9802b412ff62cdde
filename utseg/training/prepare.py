"""What comes before the first iteration: everything a request names is read and checked, and becomes the run's record.

Only reading happens here, so that a wrong word, setting, file or selection is refused before a folder is made.
"""

import logging
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import utseg
from utseg.augment.loader import Batch, list_slices, training_batches
from utseg.case import Case, Dataset
from utseg.compute.pool import available_cores
from utseg.compute.threads import Threads
from utseg.device import resolve_device
from utseg.errors import ArtefactError, InputError, SettingError, UsageError, listing
from utseg.files import sha256, sha256_json
from utseg.fingerprint.same_scan import same_scans
from utseg.home import is_fold
from utseg.label_map import values_of
from utseg.labels import class_numbers
from utseg.networks.layers.sizes import margins
from utseg.networks.network import SegmentationNetwork
from utseg.planning.plan import HISTOGRAMS, Plan, read_plan
from utseg.planning.task import planned_task
from utseg.preprocess.slices import CaseRecord, SliceStore, data_sha256
from utseg.preprocess.splits import check_same_scans, label_gaps, left_out, read_splits, select_cases
from utseg.preprocess.stale import check_current
from utseg.rawdata import open_dataset
from utseg.settings import validate
from utseg.training.memory import checked_memory
from utseg.training.processes import Processes
from utseg.training.recipe import Recipe, apply_settings
from utseg.training.record import RUN_FILE, InitialWeights, RunRecord, read_run
from utseg.training.request import TrainRequest
from utseg.training.step import pinned, resolved_amp
from utseg.training.weights import (
    Fit,
    check_fit,
    fit_weights,
    match_inputs,
    match_outputs,
    read_tensors,
    weights_file,
)

logger = logging.getLogger("utseg")
GPU_LOADER_WORKERS = 6
PROCESSES = "processes"


@dataclass(frozen=True)
class Run:
    """A run as it will be, or is: its record, the recipe in it as a value, and its data.

    `training` and `validation` are the records of its preprocessed cases, `raw_validation` the raw cases of the latter. `fit` is what
    `--weights` gives the network to start from. `loop_limit_s` bounds the seconds of the loop in a new run with `--max-time`. `device` is
    this process's; `threads` gives each iteration its number of them.
    """

    request: TrainRequest
    record: RunRecord
    recipe: Recipe
    store: SliceStore
    training: tuple[CaseRecord, ...]
    validation: tuple[CaseRecord, ...]
    raw_validation: tuple[Case, ...]
    device: torch.device
    processes: Processes
    threads: Threads
    fit: Fit | None = None
    loop_limit_s: float | None = None

    @property
    def plan(self) -> Plan:
        """The plan with `--set` applied."""
        return self.record.plan

    @property
    def iterations(self) -> int:
        """Length of the schedule as the run began."""
        return self.record.planned_epochs * self.record.iterations_per_epoch

    def batches(self, first: int, count: int) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of some of the run's iterations."""
        workers = self.request.workers
        if workers is None:
            cores = available_cores() // self.processes.local_size
            workers = 0 if self.device.type == "cpu" else min(GPU_LOADER_WORKERS, max(1, cores - 1))
        return training_batches(
            self.store,
            self.training,
            self.plan,
            seed=self.record.seed,
            first_iteration=first,
            iterations=count,
            workers=workers,
            rows=self.processes.rows(self.plan.batch_size),
            finish=pinned if self.device.type == "cuda" else None,
        )


def prepare(request: TrainRequest, recipe: Recipe, processes: Processes) -> Run:
    """Reads what the request names. Raises UtsegError where something is missing, wrong or does not fit together."""
    device = processes.device(resolve_device(request.device))
    network, plan, recipe = _planned(request, recipe, device, processes)
    initial, fit, source = read_initial(request, network, plan)
    store, records, training, validation = _sliced(request, plan)
    if request.patience and not validation:
        raise UsageError(
            f"--patience: {request.selection} holds no subject back, so there is no validation Dice to wait for; leave it out"
        )
    chosen = tuple(record.case_id for record in (*training, *validation))
    dataset = _current_dataset(request, plan, records, chosen)
    if initial and source:
        initial = initial.model_copy(update={"saw": _seen_before(source, request, plan, records, validation)})
    if HISTOGRAMS not in request.settings:
        plan = with_partners(plan, training)
    record = RunRecord(
        model=request.model,
        plan=plan,
        recipe=recipe.model_dump(mode="json"),
        initial_weights=initial,
        selection=request.selection,
        training_cases=chosen[: len(training)],
        validation_cases=chosen[len(training) :],
        training_scans=tuple(sorted({scan for case in training for scan in case.scans})),
        epochs=request.epochs or plan.epochs,
        iterations_per_epoch=plan.iterations_per_epoch,
        patience=request.patience,
        seed=request.seed,
        device=str(device) if processes.size == 1 else device.type,
        compiled=request.compile,
        data_sha256=data_sha256([*training, *validation]),
        versions=versions(processes),
        git_revision=git_revision(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    raw = _raw_cases(dataset, record.validation_cases)
    # Processes of one run would have to agree, a GPU leaves its CPU little to do, and compiled steps are compiled anew for each number.
    adapts = device.type == "cpu" and processes.size == 1 and not request.compile
    threads = Threads("training", adapts=adapts)
    return Run(request, record, recipe, store, training, validation, raw, device, processes, threads, fit)


def _planned(
    request: TrainRequest, recipe: Recipe, device: torch.device, processes: Processes
) -> tuple[SegmentationNetwork, Plan, Recipe]:
    """The network without memory, the plan for it and the recipe, as asked for, or as recorded where a run is validated."""
    if request.validate:
        recorded, recipe = read_recorded(request.output)
        plan = planned = recorded.plan
    else:
        planned = read_plan(request.plan_folder)
        recipe, plan = apply_settings(recipe, planned, request.settings)
        recipe = recipe.model_copy(update={"amp": resolved_amp(recipe.amp, device)})
    network = planned_task(plan).build("meta")
    check_outputs(network, recipe, plan.patch_size)
    may_not_fit = request.fit or plan.network_name != planned.network_name or device.type == "cuda"
    if may_not_fit and not request.validate:
        plan = checked_memory(plan, recipe, device, processes=processes.size, fit=request.fit)
    if request.compile and processes.size > 1:
        raise UsageError("--compile: trains in one process only; leave it out, or torchrun")
    processes.rows(plan.batch_size)  # refused at once where it cannot be shared out
    return network, plan, recipe


def _sliced(
    request: TrainRequest, plan: Plan
) -> tuple[SliceStore, list[CaseRecord], tuple[CaseRecord, ...], tuple[CaseRecord, ...]]:
    """The slices, the records of all of their cases, and those to train and to validate on."""
    store = SliceStore(request.plan_folder)
    records = [store.case_record(case_id) for case_id in store.case_ids()]
    if not records:
        raise ArtefactError(
            f"{request.plan_folder}: no preprocessed slice is there; run utseg_plan_and_preprocess"
        )
    store.require_made_with(plan.preprocessing, records, _advice(request, plan))
    return store, records, *choose_cases(request, records, plan)


def _current_dataset(
    request: TrainRequest, plan: Plan, records: Sequence[CaseRecord], chosen: Sequence[str]
) -> Dataset:
    """The raw dataset, which is still the one that the slices of the chosen cases were made of."""
    dataset = open_dataset(request.raw)
    for remark in check_current(dataset, plan, records, chosen, _advice(request, plan)):
        if _is_whole(request, plan):
            logger.warning("%s: %s", request.raw, remark)
    return dataset


def _is_whole(request: TrainRequest, plan: Plan) -> bool:
    """Whether the slices are of a dataset, not of a study's choice of its cases."""
    return request.preprocessed.name == plan.dataset


def _advice(request: TrainRequest, plan: Plan) -> str:
    """What can be done where the slices or the raw data are others than the plan says."""
    advice = SliceStore(request.plan_folder).advice if _is_whole(request, plan) else "run the study again"
    if not request.validate:
        return advice
    return f"{request.output} was trained on what was there then: put that back, or {advice}, then train again with --overwrite"


def read_recorded(folder: Path) -> tuple[RunRecord, Recipe]:
    """The record of a run that was started, and the recipe in it."""
    record = read_run(folder)
    return record, validate(Recipe, record.recipe, str(folder / RUN_FILE))


def check_outputs(network: SegmentationNetwork, recipe: Recipe, patch_size: tuple[int, int]) -> None:
    """Raises SettingError where deep supervision does not fit the network's outputs, or theirs sizes the patch's (y, x)."""
    outputs, weights = len(network.heads), recipe.loss.deep_supervision_weights
    if outputs > len(weights):
        raise SettingError(
            f"loss.deep_supervision_weights: {len(weights)} weights for the {outputs} outputs that network {recipe.network_name} has; "
            "give one for each, or --set network.aux_loss=false"
        )
    padded = any(any(margins(*sides)) for sides in zip(patch_size, network.multiple, strict=True))
    if padded and outputs > 1 and recipe.loss.auxiliary_size == "own":
        raise SettingError(
            f"loss.auxiliary_size=own: a patch_size of {patch_size} is padded for network {recipe.network_name}; expected multiples of "
            f"{network.multiple}, each at least twice; set such a patch_size, or loss.auxiliary_size=full"
        )


def read_initial(
    request: TrainRequest, network: SegmentationNetwork, plan: Plan
) -> tuple[InitialWeights | None, Fit | None, RunRecord | None]:
    """What `--weights` names, checked against the network, its inputs and outputs those of the plan; and the run that it is of.

    No run where the file lies in no run's folder.
    """
    if request.weights is None:
        return None, None, None
    path = weights_file(request.weights)
    source = read_run(path.parent) if (path.parent / RUN_FILE).is_file() else None
    tensors, allowed = read_tensors(path), request.allow_mismatch
    theirs = source.plan if source else None
    ours, labels = plan.preprocessing.labels, theirs.preprocessing.labels if theirs else None
    inputs = match_inputs(theirs, plan, path, allow_mismatch=allowed)
    outputs = match_outputs(network.class_axes(), tensors.keys(), labels, ours, path, allow_mismatch=allowed)
    fit = fit_weights(network, tensors, [entries for entries in (inputs, outputs) if entries])
    check_fit(fit, path, plan.network_name, allow_mismatch=allowed)
    initial = InitialWeights(
        file=path.name,
        sha256=sha256(path),
        tensors=len(fit.values),
        labels=labels,
        scans=tuple(sorted(source.seen_scans)) if source else (),
    )
    return initial, fit, source


def _seen_before(
    source: RunRecord,
    request: TrainRequest,
    plan: Plan,
    records: Sequence[CaseRecord],
    validation: Sequence[CaseRecord],
) -> int:
    """How many of the subjects held back here the run trained on that `--weights` comes from; a warning where there are any.

    Those count too that trained the weights which that run began from.
    """
    names = set(source.training_cases) if source.plan.dataset == plan.dataset else set()
    scans = source.seen_scans
    same = same_scans(records)
    owners = {record.case_id: same.get(record.subject, record.subject) for record in records}
    held_back = {owners[case.case_id] for case in validation}
    trained = {
        owners[record.case_id]
        for record in records
        if record.case_id in names or scans.intersection(record.scans)
    }
    seen = sorted(held_back & trained)
    if seen:
        logger.warning(
            f"--weights {request.weights}: was trained on {len(seen)} of the {len(held_back)} subjects that {request.selection} holds back "
            f"({listing(seen)}): their scores will be too good, and no model is chosen by them"
        )
    return len(seen)


def choose_cases(
    request: TrainRequest, records: Sequence[CaseRecord], plan: Plan
) -> tuple[tuple[CaseRecord, ...], tuple[CaseRecord, ...]]:
    """The cases to train on and to validate on; a scan under two names is on one side. The log names labels that either side lacks."""
    selection, of_splits = request.selection, is_fold(request.selection)
    splits, same = read_splits(request.preprocessed), same_scans(records)
    if of_splits:
        check_same_scans(splits, same, request.preprocessed)
    chosen = select_cases(selection, records, splits, seed=0, same=same)
    if not chosen[0]:
        raise InputError(f"{selection}: no case is left to train on")
    numbers = {name: set(values_of(own)) for name, own in class_numbers(plan.preprocessing.labels).items()}
    present = {
        record.case_id: {name for name, own in numbers.items() if own & record.classes} for record in records
    }
    gaps = label_gaps(numbers, {selection: chosen}, present)
    for line in [*(left_out({selection: chosen}, records) if of_splits else ()), *gaps]:
        logger.warning("%s", line)
    by_id = {record.case_id: record for record in records}
    training, validation = (tuple(by_id[case_id] for case_id in side) for side in chosen)
    return training, validation


def with_partners(plan: Plan, training: Sequence[CaseRecord]) -> Plan:
    """The plan; where all slices to train on are of one subject, and no other can lend its histograms, with these left as they are."""
    if not plan.augmentation.needs_partners or len({ref.subject for ref in list_slices(training, plan)}) > 1:
        return plan
    had = plan.augmentation.histogram_probability
    reason = f"0: all slices to train on are of one subject, so no other lends its histograms; the plan had {had:g}"
    logger.info("%s is %s", HISTOGRAMS, reason)
    augmentation = plan.augmentation.model_copy(update={"histogram_probability": 0.0})
    return plan.model_copy(
        update={"augmentation": augmentation, "reasons": {**plan.reasons, HISTOGRAMS: reason}}
    )


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
    """Raises InputError where the processes of a run do not see the same plan, data and settings. In which precision, rank 0 says."""
    differs = dict.fromkeys(("git_revision", "started", "versions", "device"), True)
    record = run.record.model_dump(mode="json", exclude={**differs, "recipe": {"amp"}})
    seen = run.processes.gather(sha256_json(record))
    differing = [str(rank) for rank, checksum in enumerate(seen) if checksum != seen[0]]
    if differing:
        raise run.processes.for_all(
            InputError(
                f"{run.request.plan_folder}: rank {', '.join(differing)} sees another plan, other data or settings than rank 0; give all "
                "processes the same command and the same preprocessed folder"
            )
        )


def versions(processes: Processes) -> dict[str, str]:
    """Versions of what computes, and the largest number of threads, and that of processes: on them the last bits of a sum depend."""
    return {
        "utseg": utseg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "torch_threads": str(torch.get_num_threads()),
        PROCESSES: str(processes.size),
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
