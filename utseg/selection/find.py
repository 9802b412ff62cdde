"""From the finished folds of a dataset to `best.json`: check, score, choose, postprocess, augment, write.

Only out-of-fold predictions are scored, each by a model that has not seen the subject.
"""

import logging
import platform
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.case import Dataset
from utseg.compute.pool import InlineExecutor, process_pool
from utseg.device import resolve_device
from utseg.errors import InputError, Interrupted, explained_by, listing
from utseg.evaluate.sources import check_references
from utseg.evaluate.subjects import Floats, bootstrap_interval, mean_defined, statistics, subject_scores
from utseg.files import folder_lock, remove_leftovers, require_writable
from utseg.fingerprint.same_scan import in_words
from utseg.label_map import structures
from utseg.predict.record import input_checksums
from utseg.preprocess.slices import CaseRecord, SliceStore
from utseg.preprocess.splits import SPLITS_FILE, read_splits
from utseg.preprocess.stale import check_current
from utseg.rawdata import open_dataset
from utseg.selection.augmentations import AugmentedMasks, measure_augmentation
from utseg.selection.choose import Candidate, Choice, choose
from utseg.selection.leakage import check_leakage, one_subject_a_scan
from utseg.selection.masks import (
    SELECTION_FOLDER,
    CandidateMasks,
    Selection,
    make_pairs,
    mask_file,
    pair_folder,
    validation_masks,
)
from utseg.selection.models import Comparable, SelectionRequest, TrainedModel, comparable_cases, find_models
from utseg.selection.record import Best, BestMember, Compared, write_best
from utseg.selection.scores import label_means, mask_pairs, read_cut, score_all
from utseg.selection.trials import RULE_IN_WORDS, choose_postprocessing
from utseg.training.record import VALIDATION_FOLDER

logger = logging.getLogger("utseg")
INLINE = 8
"""Up to so many cases are scored and joined in this process: starting others would take longer."""


def find_best_configuration(request: SelectionRequest) -> Best:
    """Compares all models and pairs, chooses one and its postprocessing, writes `best.json` and returns its content.

    Raises InputError where nothing can be compared or a subject leaks, ArtefactError where a validation is not that of the weights,
    UsageError for an unknown device, UtsegError where another run selects for this dataset, Interrupted on Ctrl-C and SIGTERM.
    """
    device = resolve_device(request.device)  # a wrong one is refused before anything is read
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
    cases, selection = comparable.all_cases, request.results / SELECTION_FOLDER
    require_writable(selection)
    pool = nullcontext(InlineExecutor()) if len(cases) <= INLINE else process_pool(request.workers)
    with folder_lock(selection), pool as executor:
        remove_leftovers(selection)
        try:
            inputs = {case.case_id: input_checksums(case) for case in cases}
            work = Selection(request, comparable, inputs, executor, device)
            best, chosen = _best(work, _candidates(work, trained))
            subjects = {case.subject for case in cases} - set(best.compared.undefined)
            masks = AugmentedMasks(work, chosen, best.postprocessing)
            measured = measure_augmentation(masks, subjects, request.tta_subjects)
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


def _candidates(work: Selection, trained: Sequence[TrainedModel]) -> list[CandidateMasks]:
    """All candidates with their out-of-fold masks; those of pairs are made here."""
    by_fold = work.comparable.cases
    found = []
    for model in trained:
        folds = ((model.folds[fold], cases) for fold, cases in by_fold.items())
        masks = [mask for run, cases in folds for mask in validation_masks(run, cases, work.inputs)]
        found.append(CandidateMasks(model.name, (model,), tuple(masks), tuple(model.folds.values())))
    pairs = list(combinations(trained, 2)) if work.request.pairs else []
    if pairs:
        make_pairs(pairs, work)
    for pair in pairs:
        folders = ((pair_folder(work.folder, pair, fold), cases) for fold, cases in by_fold.items())
        masks = [mask_file(folder, case) for folder, cases in folders for case in cases]
        both = [fold for fold in pair[0].folds if fold in pair[1].folds]  # so that each model counts the same
        runs = tuple(model.folds[fold] for model in pair for fold in both)
        found.append(CandidateMasks(f"{pair[0].name} + {pair[1].name}", pair, tuple(masks), runs))
    return found


def _best(work: Selection, every: Sequence[CandidateMasks]) -> tuple[Best, CandidateMasks]:
    """The choice and its postprocessing, and the candidate that was chosen."""
    request, cases, references = work.request, work.cases, work.comparable.labels
    subjects_C = np.array([case.subject for case in cases])
    labels = every[0].labels
    pairs = [pair for one in every for pair in mask_pairs(cases, one.masks, labels, references)]
    dice_NCL = np.split(score_all(pairs, work.executor, request.workers), len(every))
    choice, undefined = _choose(every, dice_NCL, subjects_C, list(structures(labels)))
    chosen = next(one for one in every if one.name == choice.chosen.name)
    volumes = [read_cut(pair) for pair in mask_pairs(cases, chosen.masks, chosen.labels, references)]
    rules = choose_postprocessing(volumes, chosen.labels)
    after = statistics(mean_defined(rules.dice_CL, 1), subjects_C)
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
        labels=chosen.labels,
        postprocessing=rules.postprocessing,
        compared=_compared(work.comparable, undefined),
        candidates=choice.candidates,
        postprocessing_rule=RULE_IN_WORDS,
        postprocessing_tried=rules.trials,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("utseg", "torch", "numpy", "scipy")},
    )
    return best, chosen


def _choose(
    every: Sequence[CandidateMasks],
    dice_NCL: Sequence[Floats],
    subjects_C: NDArray[np.str_],
    names: Sequence[str],
) -> tuple[Choice, tuple[str, ...]]:
    """The choice, and the subjects that are left out as some candidate has no score of them."""
    subjects_S = np.unique(subjects_C)
    values_NS = np.stack([subject_scores(dice_CL, subjects_C) for dice_CL in dice_NCL])
    defined_S = ~np.isnan(values_NS).any(0)
    if not defined_S.any():
        raise InputError(
            f"no score is defined for the {len(subjects_S)} subjects compared: neither references nor predictions show a label"
        )
    compared_S = subjects_S[defined_S]
    candidates = [
        Candidate(
            name=one.name,
            models=tuple(model.name for model in one.models),
            members=len(one.runs),
            gmac=sum(run.gmac for run in one.runs),
            mean_dice=float(values_S.mean()),
            interval95=bootstrap_interval(values_S, compared_S),
            labels=dict(zip(names, label_means(dice_CL, subjects_C), strict=True)),
            undefined=int(np.isnan(dice_CL).sum()),
        )
        for one, dice_CL, values_S in zip(every, dice_NCL, values_NS[:, defined_S], strict=True)
    ]
    choice = choose([*zip(candidates, values_NS[:, defined_S], strict=True)], compared_S)
    return choice, tuple(map(str, subjects_S[~defined_S]))


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
