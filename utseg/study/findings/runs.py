"""What a study's models cost, and the proof that nobody was trained on and tested.

The proof is made again here, from the lists in `study.json` and the scores themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utseg.errors import CaseErrors
from utseg.evaluate.tables import mean_of
from utseg.study.findings.data import StudyData
from utseg.study.record import CASES_FILE, STUDY_FILE, StudyRun


@dataclass(frozen=True)
class ModelCost:
    """A model's first run (its parameters and GMAC), statistics of its Dice, and means over its runs of times and memory."""

    model: str
    run: StudyRun
    dice: Mapping[str, Any]
    training_seconds: float | None
    seconds_a_case: float | None
    memory_gb: float | None


def check_subjects(data: StudyData) -> None:
    """Raises CaseErrors with a line for each run that was tested, or scored, on whom it was trained or validated on."""
    problems = []
    for run in data.record.runs:
        training, validation = set(run.subjects.training), set(run.subjects.validation)
        tested = set(run.subjects.testing.get(run.dataset, ()))
        if shared := (training & validation) | ((training | validation) & tested):
            problems.append(
                f"{data.folder / STUDY_FILE}: run {run.run!r}: subject {min(shared)} is in two of training, validation and testing; "
                "its scores say nothing about unseen scans"
            )
    for tested_C, run in zip(data.tested, data.runs, strict=True):
        scored = (data.cases[c] for c in np.flatnonzero(tested_C))
        unnamed = (case for case in scored if case.subject not in run.subjects.testing.get(case.dataset, ()))
        if case := next(unnamed, None):
            problems.append(
                f"{data.folder / CASES_FILE}: run {run.run!r}: case {case.case} of subject {case.subject} was scored, "
                f"but {STUDY_FILE} does not name this subject for testing; run utseg_study again"
            )
    if problems:
        raise CaseErrors(problems)


def on_unseen(data: StudyData) -> bool:
    """Whether one number of a model is taken over unseen groups: else it is over everything that was tested."""
    return bool(data.record.by) and bool(data.side(saw=False).any())


def costs(data: StudyData) -> tuple[list[ModelCost], bool]:
    """Each model's Dice beside what it costs; and whether all are of the same cases.

    Of the training sets, seeds and folds that all models have.
    """
    shared = {run.id for run in data.shared_runs}
    chosen = [[run for run in data.runs_of(model) if run.id in shared] for model in data.models]
    sides = [data.side(runs, saw=False if on_unseen(data) else None) for runs in chosen]
    same = data.averaged(sides).subject_count > 0
    found = [
        _cost(data, model, data.statistics(side, beside=sides if same else ()))
        for model, side in zip(data.models, sides, strict=True)
    ]
    return found, same


def _cost(data: StudyData, model: str, dice: Mapping[str, Any]) -> ModelCost:
    runs: Sequence[StudyRun] = data.runs_of(model)
    testing = [run.testing_seconds for run in runs if run.testing_seconds is not None]
    cases = int(data.side(runs).sum())
    return ModelCost(
        model,
        runs[0],
        dice,
        mean_of(run.training_seconds for run in runs),
        sum(testing) / cases if testing and cases else None,
        mean_of(run.peak_memory_gb for run in runs),
    )
