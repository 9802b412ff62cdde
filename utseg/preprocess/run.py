"""Preprocesses a dataset's training cases in parallel. Finished, undamaged cases of unchanged input are kept.

One bad case does not stop the others. A disk that fails does: the remaining cases would only fail too.
"""

import logging
import shutil
import uuid
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.compute.pool import run_each
from utseg.errors import CaseErrors, InputError
from utseg.fingerprint import CaseFingerprint, Fingerprint
from utseg.planning.plan import Plan, Preprocessing
from utseg.preprocess.slices import SliceStore, preprocessing_sha256
from utseg.progress import progress

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class Counts:
    """Cases whose slices were kept, were made, and were removed because the dataset has them no longer."""

    kept: int
    made: int
    removed: int


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    plan_folder: Path,
    fingerprint: Fingerprint,
    executor: Executor,
    workers: int | None = None,
) -> Counts:
    """Makes the slices of every training case that the fingerprint has measured.

    Raises CaseErrors, after the other cases have finished, with a line for each problem of a bad case; and UtsegError at once where
    slices cannot be written.
    """
    store = SliceStore(plan_folder)
    sources = {measured.case_id: measured for measured in fingerprint.cases}
    settings = preprocessing_sha256(plan.preprocessing)
    tasks = [(case, sources[case.case_id]) for case in dataset.training_cases()]
    removed = _remove_others(store, {case.case_id for case, _ in tasks})
    make = partial(_preprocess, store, plan.preprocessing, settings)
    kept = made = 0
    problems: list[str] = []
    with progress(f"preprocessing {dataset.name}", len(tasks)) as advance:
        for outcome in run_each(make, tasks, executor, name=lambda task: task[0].case_id, workers=workers):
            if outcome.error is not None and not isinstance(outcome.error, InputError):
                raise outcome.error
            if outcome.error is not None:
                problems += outcome.error.lines()
            elif outcome.result:
                made += 1
            else:
                kept += 1
            advance()
    if problems:
        raise CaseErrors(sorted(problems))
    return Counts(kept, made, removed)


def _preprocess(
    store: SliceStore, preprocessing: Preprocessing, settings_sha256: str, task: tuple[Case, CaseFingerprint]
) -> bool:
    """Whether the case was made; otherwise it was kept."""
    case, source = task
    if store.is_complete(case, source, settings_sha256):
        return False
    from utseg.preprocess.case import preprocess_case
    from utseg.rawdata.gate import read_case

    preprocessed = preprocess_case(read_case(case, preprocessing.labels), preprocessing)
    store.write_case(preprocessed, case, source, settings_sha256)
    return True


def _remove_others(store: SliceStore, case_ids: set[str]) -> int:
    """Removes cases that are not in the dataset any more; each is gone at once, its files after."""
    others = [case_id for case_id in store.case_ids() if case_id not in case_ids]
    for case_id in others:
        leaving = store.folder / f".tmp-{uuid.uuid4().hex[:12]}-{case_id}"
        (store.folder / case_id).rename(leaving)
        shutil.rmtree(leaving)
        logger.info("removed the slices of case %s, which the dataset does not have any more", case_id)
    return len(others)
