"""From the finished folds of a dataset to `best.json`: guard, score, choose, postprocess, augment, write.

Only out-of-fold predictions are looked at, each by a model that has not seen the subject. What is done at each step is in the other files
of this room.
"""

import logging
import platform
import shlex
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utseg.case import Dataset
from utseg.compute.pool import InlineExecutor, process_pool
from utseg.errors import InputError, Interrupted, explained_by, listing
from utseg.evaluate.sources import check_references
from utseg.evaluate.subjects import Floats, mean_defined, statistics, subject_scores
from utseg.files import folder_lock, remove_leftovers, require_writable
from utseg.fingerprint.same_scan import in_words
from utseg.labels import structures
from utseg.predict.stages import MASK_SUFFIX
from utseg.preprocess.slices import CaseRecord, SliceStore
from utseg.preprocess.splits import SPLITS_FILE, read_splits
from utseg.preprocess.stale import check_current
from utseg.rawdata import open_dataset
from utseg.selection.augmentations import (
    DEFAULT_SUBJECTS,
    Chosen,
    MeasuredAugmentation,
    measure_augmentation,
)
from utseg.selection.choose import Candidate, Choice, Standing, choose
from utseg.selection.cost import gmac_of_slice
from utseg.selection.gain import label_means
from utseg.selection.leakage import check_leakage, one_subject_a_scan
from utseg.selection.masks import InputChecksums, validation_masks
from utseg.selection.models import Comparable, FoldRun, TrainedModel, comparable_cases, find_models
from utseg.selection.pairs import PairOfModels, make_pairs, pair_folder
from utseg.selection.record import Against, Best, BestMember, CandidateRecord, Compared, write_best
from utseg.selection.scores import mask_pairs, read_cut, score_all
from utseg.selection.trials import RULE_IN_WORDS, OutOfFoldMask, choose_postprocessing
from utseg.training.record import VALIDATION_FOLDER

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("utseg")
SELECTION_FOLDER = "selection"
INLINE = 8
"""Up to so many cases are scored and joined in this process: starting others would take longer."""


@dataclass(frozen=True)
class SelectionRequest:
    """`raw`, `preprocessed` and `results` are the dataset's folders. `planners`, `models`: these only; all where empty.

    `pairs`: whether pairs of models are tried too. `tta_subjects`: on how many at most test-time augmentation is measured.
    `options`: words that `utseg_predict` needs to find the dataset.
    """

    dataset: str
    raw: Path
    preprocessed: Path
    results: Path
    planners: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pairs: bool = True
    tta_subjects: int = DEFAULT_SUBJECTS
    device: str = "auto"
    workers: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class CandidateMasks:
    """A candidate with the out-of-fold mask of every case, in the order of the cases, and the runs that would predict."""

    name: str
    models: tuple[TrainedModel, ...]
    masks: tuple[Path, ...]
    runs: tuple[FoldRun, ...]


@dataclass(frozen=True)
class _Work:
    """What all steps of a selection need."""

    request: SelectionRequest
    comparable: Comparable
    selection: Path
    executor: Executor
    inputs: InputChecksums = field(default_factory=InputChecksums)

    @property
    def device(self) -> "torch.device":
        """What predicts."""
        from utseg.device import resolve_device

        return resolve_device(self.request.device)


def find_best_configuration(request: SelectionRequest) -> Best:
    """Compares all models and pairs, chooses one and its postprocessing, writes `best.json` and returns its content.

    Raises InputError where nothing can be compared or a subject leaks, ArtefactError where a validation is not that of the weights,
    UsageError for an unknown device, UtsegError where another run selects for this dataset, Interrupted on Ctrl-C and SIGTERM.
    """
    dataset = open_dataset(request.raw, request.dataset)
    trained = find_models(request.results, request.planners, request.models)
    has_splits = (request.preprocessed / SPLITS_FILE).is_file()
    splits = read_splits(request.preprocessed) if has_splits else None
    with explained_by(dataset.warnings):
        check_leakage(trained, dataset, splits)
        for run in (run for model in trained for run in model.folds.values()):
            check_references(dataset.cases, run.folder / VALIDATION_FOLDER)
        _require_current(trained, dataset, request.preprocessed)
        dataset, same = one_subject_a_scan(trained, dataset)
        if same:
            logger.warning(
                "the same scan is there under several names, which count as one subject: %s", in_words(same)
            )
        comparable = comparable_cases(trained, dataset)
    _say_what_is_compared(trained, comparable)
    selection = request.results / SELECTION_FOLDER
    require_writable(selection)
    with folder_lock(selection), _executor(len(comparable.all_cases), request.workers) as executor:
        remove_leftovers(selection)
        try:
            work = _Work(request, comparable, selection, executor)
            best, chosen = _best(work, _entries(work, trained))
            measured = _measured(work, best, chosen)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"interrupted; run the command again to go on: masks that are in {selection} are kept"
            ) from None
    best = best.model_copy(update={"augmentation": measured})
    write_best(best, request.results)
    return best


def _require_current(trained: Sequence[TrainedModel], dataset: Dataset, preprocessed: Path) -> None:
    """Raises ArtefactError where raw data of a run's cases changed since the slices of its plan were made, as far as slices are there."""
    known: dict[str, list[CaseRecord]] = {}
    for run in (run for model in trained for run in model.folds.values()):
        plan_folder = run.folder.parts[-3]
        store = SliceStore(preprocessed / plan_folder)
        if plan_folder not in known:
            known[plan_folder] = [store.case_record(case_id) for case_id in store.case_ids()]
        if records := known[plan_folder]:
            there = {record.case_id for record in records}
            used = there & {*run.record.training_cases, *run.record.validation_cases}
            advice = f"{store.advice}, and where images or labels are others, train again with --overwrite"
            check_current(dataset, run.record.plan, records, used, advice)


def _executor(cases: int, workers: int | None) -> AbstractContextManager[Executor]:
    return nullcontext(InlineExecutor()) if cases <= INLINE else process_pool(workers)


def _say_what_is_compared(trained: Sequence[TrainedModel], comparable: Comparable) -> None:
    names = {case.subject for case in comparable.all_cases}
    logger.info(
        "comparing %s on the %d subjects that all held back (%s)",
        ", ".join(model.name for model in trained),
        len(names),
        ", ".join(comparable.cases),
    )
    for model, lacking in comparable.lacking.items():
        logger.warning(
            "%d subjects are left out of the comparison, as %s has no out-of-fold prediction of them: %s; train its other folds, or leave "
            "it out with -m and -pl",
            len(lacking),
            model,
            listing(list(lacking)),
        )


def _entries(work: _Work, trained: Sequence[TrainedModel]) -> list[CandidateMasks]:
    """All candidates with their out-of-fold masks; those of pairs are made here."""
    by_fold = work.comparable.cases
    entries = [
        CandidateMasks(
            model.name,
            (model,),
            tuple(
                mask
                for fold, cases in by_fold.items()
                for mask in validation_masks(model.folds[fold], cases, work.inputs)
            ),
            tuple(model.folds.values()),
        )
        for model in trained
    ]
    pairs: list[PairOfModels] = list(combinations(trained, 2)) if work.request.pairs else []
    if pairs:
        make_pairs(
            *(pairs, by_fold, work.selection, work.inputs),
            device=work.device,
            executor=work.executor,
            workers=work.request.workers,
        )
    for pair in pairs:
        masks = (
            pair_folder(work.selection, pair, fold) / f"{case.case_id}{MASK_SUFFIX}"
            for fold, of_fold in by_fold.items()
            for case in of_fold
        )
        both = [fold for fold in pair[0].folds if fold in pair[1].folds]  # so that each model counts the same
        runs = tuple(model.folds[fold] for model in pair for fold in both)
        entries.append(CandidateMasks(f"{pair[0].name} + {pair[1].name}", pair, tuple(masks), runs))
    return entries


def _best(work: _Work, entries: Sequence[CandidateMasks]) -> tuple[Best, CandidateMasks]:
    """The choice and its postprocessing, and the candidate that was chosen."""
    request, comparable = work.request, work.comparable
    cases = comparable.all_cases
    subjects_C = np.array([case.subject for case in cases])
    labels = entries[0].runs[0].record.plan.preprocessing.labels
    pairs = [pair for entry in entries for pair in mask_pairs(cases, entry.masks, labels, comparable.labels)]
    dice_ECL = np.split(score_all(pairs, work.executor, request.workers), len(entries))
    choice, undefined = _choose(entries, dice_ECL, subjects_C)
    chosen = next(entry for entry in entries if entry.name == choice.chosen.candidate.name)
    own_labels = chosen.runs[0].record.plan.preprocessing.labels
    volumes = [
        OutOfFoldMask(pair.case.subject, *read_cut(pair))
        for pair in mask_pairs(cases, chosen.masks, own_labels, comparable.labels)
    ]
    rules = choose_postprocessing(volumes, own_labels)
    after = statistics(mean_defined(rules.dice_CL, 1), subjects_C)
    by_name = {entry.name: dice_CL for entry, dice_CL in zip(entries, dice_ECL, strict=True)}
    words = ["utseg_predict", "-i", "INPUT", "-o", "OUTPUT", "-d", request.dataset, *request.options]
    best = Best(
        dataset=request.dataset,
        chosen=chosen.name,
        why=choice.why,
        command=shlex.join(words),
        mean_dice=after["mean"],
        interval95=after["interval95"],
        tie=choice.tie,
        members=tuple(BestMember(run=run.name, weights_sha256=run.weights_sha256) for run in chosen.runs),
        labels=own_labels,
        postprocessing=rules.postprocessing,
        compared=_compared(comparable, undefined),
        candidates=tuple(
            _recorded(standing, by_name[standing.candidate.name], subjects_C, list(structures(labels)))
            for standing in choice.standings
        ),
        postprocessing_rule=RULE_IN_WORDS,
        postprocessing_tried=rules.trials,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("utseg", "torch", "numpy", "scipy")},
    )
    return best, chosen


def _measured(work: _Work, best: Best, chosen: CandidateMasks) -> MeasuredAugmentation | None:
    """What test-time augmentation gains for what was chosen."""
    if not work.request.tta_subjects:
        return None
    cases = work.comparable.all_cases
    subjects = {case.subject for case in cases} - set(best.compared.undefined)
    masks = {case.case_id: mask for case, mask in zip(cases, chosen.masks, strict=True)}
    candidate = Chosen(
        chosen.models,
        work.comparable.cases,
        masks,
        best.postprocessing,
        best.labels,
        work.comparable.labels,
        work.selection,
    )
    return measure_augmentation(
        candidate,
        sorted(subjects),
        work.request.tta_subjects,
        work.inputs,
        device=work.device,
        workers=work.request.workers,
    )


def _choose(
    entries: Sequence[CandidateMasks], dice_ECL: Sequence[Floats], subjects_C: NDArray[np.str_]
) -> tuple[Choice, tuple[str, ...]]:
    """The choice, and the subjects that are left out as some candidate has no score of them."""
    subjects_S = np.unique(subjects_C)
    values_ES = np.stack([subject_scores(dice_CL, subjects_C) for dice_CL in dice_ECL])
    defined_S = ~np.isnan(values_ES).any(0)
    if not defined_S.any():
        raise InputError(
            f"no score is defined for the {len(subjects_S)} subjects compared: neither references nor predictions show a label"
        )
    candidates = [
        Candidate(
            entry.name,
            tuple(model.name for model in entry.models),
            len(entry.runs),
            sum(gmac_of_slice(run.record) for run in entry.runs),
            values_S[defined_S],
        )
        for entry, values_S in zip(entries, values_ES, strict=True)
    ]
    return choose(candidates, subjects_S[defined_S]), tuple(map(str, subjects_S[~defined_S]))


def _compared(comparable: Comparable, undefined: tuple[str, ...]) -> Compared:
    folds = {
        fold: tuple(sorted({case.subject for case in cases})) for fold, cases in comparable.cases.items()
    }
    return Compared(
        subjects=sum(map(len, folds.values())) - len(undefined),
        cases=len(comparable.all_cases),
        folds=folds,
        lacking=dict(comparable.lacking),
        undefined=undefined,
    )


def _recorded(
    standing: Standing, dice_CL: Floats, subjects_C: NDArray[np.str_], names: Sequence[str]
) -> CandidateRecord:
    candidate, against = standing.candidate, standing.against_best
    facts = ("difference", "interval95", "p", "subjects")
    return CandidateRecord(
        name=candidate.name,
        models=candidate.models,
        members=candidate.members,
        gmac=candidate.gmac,
        mean_dice=standing.mean,
        interval95=standing.interval95,
        labels=dict(zip(names, label_means(dice_CL, subjects_C), strict=True)),
        undefined=int(np.isnan(dice_CL).sum()),
        against_best=None if against is None else Against(**{fact: against[fact] for fact in facts}),
        tied=standing.tied,
    )
