"""What has become of a study's runs so far, written after each of them."""

import logging

from utseg.evaluate.tables import number
from utseg.study.jobs import ID_DIGITS, finished_outcome, read_outcome
from utseg.study.record import (
    ALL,
    MEAN_LABEL,
    SEEN,
    UNSEEN,
    Role,
    StudyDataset,
    StudyRecord,
    StudyRun,
    write_study,
)
from utseg.study.resolve import ResolvedRun, ResolvedStudy, StudyRequest
from utseg.study.subjects import labelled
from utseg.study.tables import Tables

logger = logging.getLogger("utseg")


class StudyProgress:
    """The record of a study that is running. `done`: distinct runs that had finished before, or have finished or failed since."""

    def __init__(self, study: ResolvedStudy, request: StudyRequest) -> None:
        self._study = study
        self._request = request
        self._tables = Tables(request.output, study.plan.by)
        self.record = study_record(study, request)
        self.done = len({run.id for run in self.record.runs if run.state == "finished"})

    def write(self) -> None:
        """Writes `study.json` and, once a run has finished, the tables."""
        self.record = study_record(self._study, self._request)
        write_study(self.record, self._request.output)
        if finished := [run for run in self.record.runs if run.state == "finished"]:
            self._tables.write(finished)

    def ended(self, run: ResolvedRun) -> None:
        """Writes what is known now, and logs what became of the run."""
        self.write()
        self.done += 1
        entry = next(one for one in self.record.runs if one.id == run.checksum[:ID_DIGITS])
        count = f"[{self.done}/{len(self._study.distinct)}]"
        if entry.state == "failed":
            logger.warning("%s %s: failed: %s", count, entry.run, entry.error)
            return
        dice = {
            row["tested_on"]: row["dice"]
            for row in self._tables.of(entry)
            if row["group"] == ALL and row["label"] == MEAN_LABEL and row["dice"] is not None
        }
        scores = [f"{kind} {number(dice[kind], 3)}" for kind in (SEEN, UNSEEN) if kind in dice]
        logger.info("%s %s: mean Dice %s", count, entry.run, ", ".join(scores) or "undefined")


def study_record(study: ResolvedStudy, request: StudyRequest) -> StudyRecord:
    """What is known of a study and all its runs now."""
    plan = study.plan
    tested = plan.definition.test.datasets or (plan.trained,)
    datasets = {}
    for name, dataset in plan.datasets.items():
        roles: dict[Role, bool] = {"train": name == plan.trained, "test": name in tested}
        cases = labelled(dataset)
        datasets[name] = StudyDataset(
            cases=len(cases),
            subjects=len({case.subject for case in cases}),
            role=tuple(role for role, has in roles.items() if has),
            folder=str(dataset.folder.absolute()),
        )
    return StudyRecord(
        name=plan.definition.name,
        question=plan.definition.question,
        by=plan.by,
        definition=plan.definition.model_dump(mode="json"),
        datasets=datasets,
        labels=dict(plan.dataset.labels),
        max_time_s=request.max_time_s,
        slot_s=study.slot_s,
        runs=tuple(_study_run(run, study) for run in study.runs),
    )


def _study_run(run: ResolvedRun, study: ResolvedStudy) -> StudyRun:
    planned, by = run.planned, study.plan.by
    outcome = read_outcome(run.folder, run.checksum)
    if outcome is not None and outcome.state == "finished":
        outcome = finished_outcome(run.folder, run.checksum)  # None where its model or scores are gone
    return StudyRun(
        run=planned.name,
        id=run.checksum[:ID_DIGITS],
        folder=str(run.folder),
        network=planned.network,
        plan=planned.planner,
        seed=planned.seed,
        fold=planned.trained_on.fold,
        dataset=study.plan.trained,
        trained_on=planned.trained_on.name,
        variant=planned.variant,
        part=planned.part,
        settings=dict(planned.settings),
        seen=tuple(
            sorted({value for case in planned.trained_on.cases if (value := case.groups.get(by, ""))})
        ),
        subjects=planned.subjects,
        **(outcome.model_dump(exclude={"format", "checksum"}) if outcome else {}),
    )
