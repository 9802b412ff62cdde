"""Load a study's scores into arrays, and average them over runs, labels and subjects in one way.

A `Side` says which scores count, by run and case: "the runs that saw the vendor", "UNet, trained on A, tested on B". Everything that a
report says of scores is a mean over a side, or a difference of two, made by `averaged`: over runs first, then over labels; a structure
counts where its score is defined in all runs of all sides. Axes of arrays: R runs, C cases, L labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.evaluate.compare import counted_in_test
from utseg.evaluate.metrics import EMPTIES, METRIC, Row, metrics_for
from utseg.evaluate.records import METRIC_KEYS, read_metrics
from utseg.evaluate.subjects import mean_defined, statistics
from utseg.study.record import (
    CASES_COLUMNS_FIRST,
    CASES_FILE,
    MEAN_LABEL,
    SEEN,
    UNSEEN,
    StudyRecord,
    StudyRun,
    read_study,
)

Side = NDArray[np.bool_]
"""(R, C): which scores count."""
Floats = NDArray[np.float64]
STATUSES = tuple(EMPTIES.values())
DEFAULT = "default"


@dataclass(frozen=True)
class TestedCase:
    """A case that was scored: its dataset and subject, and the column of the matrix that it is in."""

    dataset: str
    case: str
    subject: str
    tested_on: str


@dataclass(frozen=True)
class Averages:
    """`values` (sides, cases), NaN where undefined, for all sides alike; `subjects` (cases,); `cases`: their indices in the study."""

    values: Floats
    subjects: NDArray[np.str_]
    cases: NDArray[np.intp]

    @property
    def subject_count(self) -> int:
        """How many subjects have a defined value."""
        return len(np.unique(self.subjects[~np.isnan(self.values[0])]))


def _training_of(run: StudyRun) -> tuple[object, ...]:
    return run.dataset, run.trained_on, run.seed, run.fold


@dataclass(frozen=True)
class StudyData:
    """A study folder as read. `runs` are those with scores, each once; `record.runs` are all, some of them the same run in two parts.

    `values`: by metric (R, C, L), NaN where undefined. `tested` (R, C): which cases a run was scored on. `status` (R, C, L): 1 missed,
    2 extra, 3 neither, else 0. `saw` (R, C): 1 the case's group was among the training subjects, 0 it was not, −1 not known.
    """

    folder: Path
    record: StudyRecord
    runs: tuple[StudyRun, ...]
    cases: tuple[TestedCase, ...]
    labels: tuple[str, ...]
    values: Mapping[str, Floats]
    tested: Side
    status: NDArray[np.int8]
    saw: NDArray[np.int8]

    @cached_property
    def subjects(self) -> NDArray[np.str_]:
        """(C,): the subject of each case; subjects of other datasets are others."""
        return np.array([f"{case.dataset}/{case.subject}" for case in self.cases], dtype=np.str_)

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """(C,): the value of the study's `by` column that each case was tested on."""
        return np.array([case.tested_on for case in self.cases], dtype=np.str_)

    @cached_property
    def tested_on(self) -> tuple[str, ...]:
        """The columns of the matrix: the groups, sorted."""
        return tuple(sorted(set(self.groups.tolist())))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the report shows and the study has."""
        return tuple(name for name in metrics_for("study") if name in self.values)

    @property
    def labels_and_mean(self) -> list[str]:
        """The mean over labels, then each label; only the mean where there is one label."""
        return [MEAN_LABEL, *self.labels] if len(self.labels) > 1 else [MEAN_LABEL]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The names of the models: what differs between runs but training set, seed and fold."""
        return tuple(dict.fromkeys(self.model_of(run) for run in self.runs))

    def model_of(self, run: StudyRun) -> str:
        """Network, and plan and variant where the study has several. What is the same run in several parts is the default."""
        return self._names[run.id]

    @cached_property
    def _names(self) -> dict[str, str]:
        several_plans = len({run.plan for run in self.record.runs}) > 1
        several_variants = len({(run.part, run.variant) for run in self.record.runs}) > 1
        names: dict[str, str] = {}
        for run in self.record.runs:
            parts = [run.network]
            if several_plans:
                parts.append(run.plan)
            if several_variants:
                variant = f"{run.part}: {run.variant}" if run.part else run.variant
                parts.append(variant if run.variant and not self.is_default(run) else DEFAULT)
            names.setdefault(run.id, " · ".join(parts))
        return names

    def is_default(self, run: StudyRun) -> bool:
        """Whether a run is as the study has it, no variant's settings or network on top."""
        networks = self.record.definition.get("networks")
        settings = self.record.definition.get("settings") or {}
        return run.settings == settings and (not networks or run.network in networks)

    def side(
        self,
        runs: Sequence[StudyRun] | None = None,
        *,
        saw: bool | None = None,
        tested_on: str | None = None,
    ) -> Side:
        """The scores of these runs; `saw`: only those of cases whose group the run saw, or did not see; `tested_on`: only that group."""
        ids = {run.id for run in (self.runs if runs is None else runs)}
        chosen: Side = self.tested & np.array([run.id in ids for run in self.runs], dtype=bool)[:, None]
        if saw is not None:
            chosen = chosen & (self.saw == int(saw))
        if tested_on is not None:
            chosen = chosen & (self.groups == tested_on)
        return chosen

    def runs_of(self, model: str, trained_on: str | None = None) -> list[StudyRun]:
        """The runs of one model, or of one of its training sets."""
        return [
            run for run in self.runs if self.model_of(run) == model and trained_on in (None, run.trained_on)
        ]

    @cached_property
    def training_sets(self) -> list[tuple[str, str]]:
        """Model and training set of all runs, models together, in their order."""
        found = dict.fromkeys((self.model_of(run), run.trained_on) for run in self.runs)
        return sorted(found, key=lambda pair: self.models.index(pair[0]))

    @cached_property
    def shared_runs(self) -> tuple[StudyRun, ...]:
        """The runs whose training set, seed and fold every model has, so that models stand side by side; all runs where there are none."""
        have: dict[tuple[object, ...], set[str]] = {}
        for run in self.runs:
            have.setdefault(_training_of(run), set()).add(self.model_of(run))
        shared = tuple(run for run in self.runs if len(have[_training_of(run)]) == len(self.models))
        return shared or self.runs

    def averaged(
        self, sides: Sequence[Side], metric: str = "dice", label: str = MEAN_LABEL, *, tested: bool = False
    ) -> Averages:
        """Each side's scores of the cases that all sides have; `tested`: with what empty structures count as in a test (`compare.py`)."""
        rows = np.flatnonzero(np.any([side.any(axis=1) for side in sides], axis=0))
        cases = np.flatnonzero(np.all([side.any(axis=0) for side in sides], axis=0))
        values = self.values[metric][np.ix_(rows, cases)]
        chosen = [side[np.ix_(rows, cases)] for side in sides]
        counts = np.any(chosen, axis=0)[..., None]
        if tested:
            status = np.where(counts, self.status[np.ix_(rows, cases)], 0)
            values = counted_in_test(values, (status == 1) | (status == 2), status == 3, METRIC[metric])
        defined_CL = ~(np.isnan(values) & counts).any(axis=0)
        filled = np.nan_to_num(values)
        means = []
        for side in chosen:
            mean_CL = np.einsum("rc,rcl->cl", side.astype(float), filled) / side.sum(axis=0)[:, None]
            mean_CL = np.where(defined_CL, mean_CL, np.nan)
            is_mean = label == MEAN_LABEL
            means.append(mean_defined(mean_CL, 1) if is_mean else mean_CL[:, self.labels.index(label)])
        return Averages(np.array(means), self.subjects[cases], cases)

    def statistics(
        self, side: Side, metric: str = "dice", label: str = MEAN_LABEL, *, beside: Sequence[Side] = ()
    ) -> dict[str, Any]:
        """Statistics of a side's scores over subjects (`utseg.evaluate.subjects`), of the cases that those `beside` have too."""
        found = self.averaged([side, *beside], metric, label)
        return statistics(found.values[0], found.subjects)

    def empties(self, side: Side, label: str = MEAN_LABEL) -> tuple[int, int, int]:
        """How many structures of a side are missed, extra, and in neither; of the mean over labels the sums over them."""
        status = self.status if label == MEAN_LABEL else self.status[:, :, [self.labels.index(label)]]
        counts = np.bincount((status * side[..., None]).ravel(), minlength=len(EMPTIES) + 1)
        return int(counts[1]), int(counts[2]), int(counts[3])

    def comparable(
        self,
        a: Sequence[StudyRun],
        b: Sequence[StudyRun],
        same: Callable[[StudyRun], tuple[object, ...]] = _training_of,
    ) -> tuple[Side, Side]:
        """The sides of two sets of runs, of each only those that the other has with the `same` training set, seed and fold."""
        shared = {same(run) for run in a} & {same(run) for run in b}
        first, second = ([run for run in runs if same(run) in shared] for runs in (a, b))
        return self.side(first), self.side(second)


def read_study_data(folder: Path) -> StudyData:
    """Reads `study.json` and `cases.csv`. Raises UtsegError naming the file that is missing or damaged."""
    record = read_study(folder)
    path = folder / CASES_FILE
    rows = read_metrics(path, CASES_COLUMNS_FIRST) if path.is_file() else []
    id_of = {run.run: run.id for run in record.runs}
    scored: dict[str, list[Row]] = {}
    for line, row in enumerate(rows, start=2):
        if row["run"] not in id_of:
            raise InputError(
                f"{path}: line {line}: run {row['run']!r} is not in study.json; run utseg_study again"
            )
        scored.setdefault(id_of[row["run"]], []).append(row)
    runs = tuple(run for run in each_run(record) if run.id in scored)
    return _arrays(folder, record, runs, scored)


def each_run(record: StudyRecord) -> list[StudyRun]:
    """Each run once, under its first name."""
    runs: dict[str, StudyRun] = {}
    for run in record.runs:
        runs.setdefault(run.id, run)
    return list(runs.values())


def _arrays(
    folder: Path, record: StudyRecord, runs: tuple[StudyRun, ...], scored: Mapping[str, Sequence[Row]]
) -> StudyData:
    rows = [(r, row) for r, run in enumerate(runs) for row in scored[run.id]]
    cases = {
        (row["dataset"], row["case"]): TestedCase(
            row["dataset"], row["case"], row["subject"], row["tested_on"]
        )
        for _, row in rows
    }
    names = {row["label_name"] for _, row in rows}
    labels = [*(name for name in record.labels if name in names), *sorted(names - set(record.labels))]
    shape = len(runs), len(cases), len(labels)
    values = {metric: np.full(shape, np.nan) for metric in METRIC_KEYS if rows and metric in rows[0][1]}
    tested, status = np.zeros(shape[:2], bool), np.zeros(shape, np.int8)
    saw = np.full(shape[:2], -1, np.int8)
    case_index = {key: index for index, key in enumerate(cases)}
    for r, row in rows:
        c, label = case_index[row["dataset"], row["case"]], labels.index(row["label_name"])
        tested[r, c] = True
        saw[r, c] = {SEEN: 1, UNSEEN: 0}.get(row["seen"], -1)
        if row["status"] in STATUSES:
            status[r, c, label] = 1 + STATUSES.index(row["status"])
        for metric, scores in values.items():
            scores[r, c, label] = row[metric]
    return StudyData(folder, record, runs, tuple(cases.values()), tuple(labels), values, tested, status, saw)
