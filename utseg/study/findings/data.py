"""What a study found, ready to be compared: the scores of all runs as arrays, and the one way in which runs are averaged.

A `Side` says which scores count, by run and case: "the runs that saw the vendor", "UNet, trained on A, tested on B". Everything that the
report says about scores is a mean over a side, or a difference of two, made by `averaged`: over runs first, then over labels; a structure
counts where its score is defined in all runs of all sides. Axes of arrays: R runs, C cases, L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.evaluate.compare import counted_in_test
from utseg.evaluate.metrics import EMPTIES, METRIC, SHOWN, Row
from utseg.evaluate.records import METRICS, group_columns_of, read_metrics
from utseg.evaluate.subjects import mean_defined
from utseg.study.images import read_images
from utseg.study.record import (
    CASES_COLUMNS_FIRST,
    CASES_FILE,
    IMAGES_FILE,
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
FINISHED = "finished"
DEFAULT = "default"


@dataclass(frozen=True)
class TestedCase:
    """A case that was scored: of which dataset, whose heart, in which column of the matrix, and its group columns (phase among them)."""

    dataset: str
    case: str
    subject: str
    tested_on: str
    groups: Mapping[str, str]


@dataclass(frozen=True)
class StudyData:
    """A study folder as read. `runs` are those with scores, each once; `record.runs` are all, some of them the same run in two parts.

    `values`: by metric (R, C, L), NaN where undefined. `tested` (R, C): which cases a run was scored on. `status` (R, C, L): place in
    EMPTIES plus one, else 0. `saw` (R, C): 1 the case's group was among the training subjects, 0 it was not, −1 not known.
    """

    folder: Path
    record: StudyRecord
    runs: tuple[StudyRun, ...]
    cases: tuple[TestedCase, ...]
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    values: Mapping[str, Floats]
    tested: Side
    status: NDArray[np.int8]
    saw: NDArray[np.int8]

    @cached_property
    def subjects(self) -> NDArray[np.str_]:
        """(C,): whose heart each case is; subjects of other datasets are others."""
        return np.array([f"{case.dataset}/{case.subject}" for case in self.cases], dtype=np.str_)

    @cached_property
    def tested_on(self) -> tuple[str, ...]:
        """The columns of the matrix: each value of the study's `by` column, in their order."""
        return tuple(dict.fromkeys(sorted(case.tested_on for case in self.cases)))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the report shows and the study has."""
        return tuple(name for name in SHOWN if name in self.values)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The names of the models: what differs between runs but training set, seed and fold."""
        return tuple(dict.fromkeys(self.model_of(run) for run in self.runs))

    def model_of(self, run: StudyRun) -> str:
        """Network, and plan and variant where the study has several. What is the same run in several parts is the default."""
        return self._names[run.id]

    @cached_property
    def _names(self) -> dict[str, str]:
        several_plans = len({own.plan for own in self.record.runs}) > 1
        several_variants = len({(own.part, own.variant) for own in self.record.runs}) > 1
        names: dict[str, str] = {}
        for run in self.record.runs:
            parts = [run.network]
            parts += [run.plan] if several_plans else []
            parts += [self._variant_of(run)] if several_variants else []
            names.setdefault(run.id, " · ".join(parts))
        return names

    def _variant_of(self, run: StudyRun) -> str:
        if self.is_default(run) or not run.variant:
            return DEFAULT
        return f"{run.part}: {run.variant}" if run.part else run.variant

    def is_default(self, run: StudyRun) -> bool:
        """Whether a run is as the study has it, no variant's settings or network on top."""
        return run.settings == self.default_settings and run.network in self.default_networks

    @cached_property
    def default_settings(self) -> Mapping[str, object]:
        """The settings that the study gives all runs."""
        return dict(self.record.definition.get("settings") or {})

    @cached_property
    def default_networks(self) -> frozenset[str]:
        """The networks of the study, those of single variants left out; all where the study's file does not say."""
        return frozenset(self.record.definition.get("networks") or {run.network for run in self.record.runs})

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
            chosen = chosen & np.array([case.tested_on == tested_on for case in self.cases], dtype=bool)
        return chosen

    def runs_of(self, model: str) -> list[StudyRun]:
        """The runs of one model."""
        return [run for run in self.runs if self.model_of(run) == model]

    @cached_property
    def shared_runs(self) -> tuple[StudyRun, ...]:
        """The runs whose training set, seed and fold every model has, so that models stand side by side; all runs where there are none."""
        have: dict[tuple[object, ...], set[str]] = {}
        for run in self.runs:
            have.setdefault(_key(run), set()).add(self.model_of(run))
        shared = tuple(run for run in self.runs if len(have[_key(run)]) == len(self.models))
        return shared or self.runs

    def averaged(
        self, sides: Sequence[Side], metric: str = "dice", label: str = MEAN_LABEL, *, tested: bool = False
    ) -> "Averages":
        """Each side's scores of the cases that all sides have; `tested`: with what empty structures count as in a test (`compare.py`)."""
        rows = np.flatnonzero(np.any([side.any(axis=1) for side in sides], axis=0))
        there = np.flatnonzero(np.all([side.any(axis=0) for side in sides], axis=0))
        values = self.values[metric][np.ix_(rows, there)]
        own = [side[np.ix_(rows, there)] for side in sides]
        if tested:
            status = np.where(np.any(own, axis=0)[..., None], self.status[np.ix_(rows, there)], 0)
            values = counted_in_test(values, (status == 1) | (status == 2), status == 3, METRIC[metric])
        defined = ~(np.isnan(values) & np.any(own, axis=0)[..., None]).any(axis=0)
        filled = np.nan_to_num(values)
        means = []
        for side in own:
            by_label = np.einsum("rc,rcl->cl", side.astype(float), filled) / side.sum(axis=0)[:, None]
            means.append(self._over_labels(by_label, defined, label))
        return Averages(np.array(means), self.subjects[there], there)

    def _over_labels(self, by_label_CL: Floats, defined_CL: NDArray[np.bool_], label: str) -> Floats:
        if label != MEAN_LABEL:
            place = self.labels.index(label)
            return np.where(defined_CL[:, place], by_label_CL[:, place], np.nan)
        return mean_defined(np.where(defined_CL, by_label_CL, np.nan), 1)

    def empties(self, side: Side, label: str = MEAN_LABEL) -> tuple[int, int, int]:
        """How many structures of a side are missed, extra, and in neither; of the mean over labels the sums over them."""
        own = self.status if label == MEAN_LABEL else self.status[:, :, [self.labels.index(label)]]
        counts = np.bincount((own * side[..., None]).ravel(), minlength=len(EMPTIES) + 1)
        return int(counts[1]), int(counts[2]), int(counts[3])


@dataclass(frozen=True)
class Averages:
    """`values` (sides, cases), NaN where undefined; `subjects` (cases,); `places`: where the cases are among those of the study."""

    values: Floats
    subjects: NDArray[np.str_]
    places: NDArray[np.intp]

    @property
    def subject_count(self) -> int:
        """How many subjects have a defined value on all sides."""
        defined = ~np.isnan(self.values).any(axis=0)
        return len(np.unique(self.subjects[defined]))


def _key(run: StudyRun) -> tuple[object, ...]:
    return run.dataset, run.trained_on, run.seed, run.fold


def comparable(data: StudyData, a: Sequence[StudyRun], b: Sequence[StudyRun]) -> tuple[Side, Side]:
    """The sides of two sets of runs, of each only those that the other has with the same training set, seed and fold."""
    shared = {_key(run) for run in a} & {_key(run) for run in b}
    first, second = ([run for run in runs if _key(run) in shared] for runs in (a, b))
    return data.side(first), data.side(second)


def read_study_data(folder: Path) -> StudyData:
    """Reads `study.json` and `cases.csv`. Raises UtsegError naming the file that is missing or damaged."""
    record = read_study(folder)
    path = folder / CASES_FILE
    rows = read_metrics(path, CASES_COLUMNS_FIRST) if path.is_file() else []
    by_id: dict[str, StudyRun] = {}
    for run in record.runs:
        by_id.setdefault(run.id, run)
    id_of = {run.run: run.id for run in record.runs}
    scored: dict[str, list[Row]] = {}
    for line, row in enumerate(rows, start=2):
        if row["run"] not in id_of:
            raise InputError(
                f"{path}: line {line}: run {row['run']!r} is not in study.json; run utseg_study again"
            )
        scored.setdefault(id_of[row["run"]], []).append(row)
    runs = tuple(run for run in by_id.values() if run.id in scored)
    return _arrays(folder, record, runs, scored)


def read_image_rows(folder: Path) -> list[dict[str, object]]:
    """The rows of `images.csv`; none where it is not there."""
    path = folder / IMAGES_FILE
    return read_images(path) if path.is_file() else []


def _arrays(
    folder: Path,
    record: StudyRecord,
    runs: tuple[StudyRun, ...],
    scored: Mapping[str, Sequence[Row]],
) -> StudyData:
    every = [row for run in runs for row in scored[run.id]]
    columns = group_columns_of(every[0]) if every else ()
    cases = {(row["dataset"], row["case"]): _case(row, columns) for row in every}
    names = {row["label_name"] for row in every}
    labels = [*(name for name in record.labels if name in names), *sorted(names - set(record.labels))]
    metrics = [metric for metric in METRICS if every and metric in every[0]]
    shape = len(runs), len(cases), len(labels)
    values = {metric: np.full(shape, np.nan) for metric in metrics}
    tested, status = np.zeros(shape[:2], bool), np.zeros(shape, np.int8)
    saw = np.full(shape[:2], -1, np.int8)
    place_of_case = {key: place for place, key in enumerate(cases)}
    place_of_label = {name: place for place, name in enumerate(labels)}
    for r, run in enumerate(runs):
        for row in scored[run.id]:
            c, label = place_of_case[row["dataset"], row["case"]], place_of_label[row["label_name"]]
            tested[r, c] = True
            saw[r, c] = {SEEN: 1, UNSEEN: 0}.get(row["seen"], -1)
            if row["status"] in STATUSES:
                status[r, c, label] = 1 + STATUSES.index(row["status"])
            for metric in metrics:
                values[metric][r, c, label] = row[metric]
    return StudyData(
        *(folder, record, runs, tuple(cases.values()), tuple(labels), columns, values, tested, status, saw)
    )


def _case(row: Row, columns: Sequence[str]) -> TestedCase:
    groups = {column: row[column] for column in columns if row.get(column)}
    return TestedCase(row["dataset"], row["case"], row["subject"], row["tested_on"], groups)
