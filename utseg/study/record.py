"""What a study leaves in its folder: `study.json`, and the columns of `cases.csv` and `results.csv`. Reports read nothing else.

`study.json` names every run with the subjects it was trained, validated and tested on. Nothing is computed here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from utseg.errors import ArtefactError
from utseg.evaluate.metrics import EMPTIES, metrics_for
from utseg.evaluate.records import METRIC_KEYS, case_columns
from utseg.files import write_text
from utseg.label_map import LabelValue
from utseg.settings import AnyValues, Settings, read_model

STUDY_FILE = "study.json"
DEFINITION_FILE = "study.toml"
CASES_FILE = "cases.csv"
RESULTS_FILE = "results.csv"
IMAGES_FILE = "images.csv"

State = Literal["waiting", "finished", "failed"]
Role = Literal["train", "test"]
SEEN, UNSEEN, ALL = "seen", "unseen", "all"
MEAN_LABEL = "mean"
RUN_COLUMNS = ("run", "network", "plan", "variant", "part", "seed", "fold", "trained_on")
CASES_COLUMNS_FIRST = (*RUN_COLUMNS, "dataset", "tested_on", "seen")
"""The first columns of `cases.csv`; those of `metrics.csv` follow (case, subject, group columns, label, label_name, metrics, status)."""
MAIN = metrics_for("interval")
MEANS = tuple(metric for metric in METRIC_KEYS if metric not in MAIN)
"""The metrics of which `results.csv` has the mean only; of the others it has deviation and interval, too."""
RESULTS_COLUMNS = (
    *("run", "network", "parameters", "gmac", "trained_on", "tested_on", "group", "label", "n", "cases"),
    *(f"{metric}{end}" for metric in MAIN for end in ("", "_sd", "_low", "_high")),
    *MEANS,
    *EMPTIES,
    *("plan", "variant", "part", "seed", "fold", "seen", "training_seconds"),
)


class Subjects(Settings):
    """Who a run was trained, validated and tested on, by the names of the subjects. `training` and `validation` are of its dataset."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    testing: dict[str, tuple[str, ...]]


class StudyRun(Settings):
    """One run of a study. Runs that are the same training (as the planned variant in two parts) share `id` and `folder`.

    `id`: the first twelve digits of the checksum of all that determines the run; `folder`: where it is, in full.
    `seen`: the values that the study's `by` column has among training and validation subjects. `part`, `variant`: empty where
    none is named.
    `state` "waiting": not begun, or stopped. Figures are None where the run has not come so far; `gmac` is of one patch, 10⁹.
    """

    run: str
    id: str
    folder: str
    network: str
    plan: str
    seed: int
    fold: int
    dataset: str
    trained_on: str
    variant: str
    part: str
    settings: AnyValues
    seen: tuple[str, ...]
    subjects: Subjects
    state: State = "waiting"
    error: str | None = None
    parameters: int | None = None
    gmac: float | None = None
    iterations: int | None = None
    training_seconds: float | None = None
    testing_seconds: float | None = None
    peak_memory_gb: float | None = None


class StudyDataset(Settings):
    """How many labelled cases and subjects a dataset has, what it serves for, and where it is, in full."""

    cases: int
    subjects: int
    role: tuple[Role, ...]
    folder: str


class StudyRecord(Settings):
    """The content of `study.json`. `by`: the column that tells seen from unseen. `labels`: the training dataset's.

    `max_time_s`, `slot_s`: the seconds that the whole study and each run were given, None where epochs were.
    """

    format: Literal["utseg-study-1"] = "utseg-study-1"
    name: str
    question: str
    by: str
    definition: AnyValues
    datasets: dict[str, StudyDataset]
    labels: dict[str, LabelValue]
    max_time_s: float | None = None
    slot_s: float | None = None
    runs: tuple[StudyRun, ...]


def cases_columns(groups: Sequence[str]) -> list[str]:
    """The columns of `cases.csv` for these group columns (phase among them where it is known)."""
    return [*CASES_COLUMNS_FIRST, *case_columns(groups)]


def write_study(record: StudyRecord, folder: Path) -> None:
    """Writes `study.json` into the study's folder."""
    write_text(folder / STUDY_FILE, record.model_dump_json(indent=1) + "\n")


def read_study(folder: Path) -> StudyRecord:
    """Reads `study.json` from the study's folder. Raises ArtefactError where there is none, SettingError where it is not one."""
    if not (folder / STUDY_FILE).is_file():
        raise ArtefactError(f"{folder}: no study is there ({STUDY_FILE} not found); run utseg_study first")
    return read_model(StudyRecord, folder / STUDY_FILE)
