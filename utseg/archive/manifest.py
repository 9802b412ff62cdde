"""`manifest.json` of a model archive: origin, terms of use, members, scores, and size and SHA-256 of every other file.

What is in an archive follows from its members alone. Nothing is read or written here.
"""

import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from utseg.home import split_plan_name
from utseg.label_map import LabelValue
from utseg.rawdata.names import name_problem
from utseg.selection.record import BEST_FILE
from utseg.settings import Settings
from utseg.training.record import RUN_FILE, SUMMARY_FILE, VALIDATION_FOLDER, WEIGHTS_FILE

FORMAT: Literal["utseg-model-1"] = "utseg-model-1"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
SUMMARY = f"{VALIDATION_FOLDER}/{SUMMARY_FILE}"
# control characters but tab and line feed, changes of direction, half characters: a terminal would obey them
UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def text_problem(text: str) -> str | None:
    """What keeps a text from being shown, or None."""
    found = UNSHOWABLE.search(text)
    return f"the character {found[0]!a}" if found else None


def _plain_name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(problem)
    return name


def _run_name(name: str) -> str:
    parts = name.split("/")
    if len(parts) != 3 or split_plan_name(parts[0])[0] == parts[0] or any(map(name_problem, parts)):
        raise ValueError("expected PLAN_2d/MODEL/FOLD or PLAN_2.5d/MODEL/FOLD, each a plain name")
    return name


Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, StringConstraints(max_length=20_000)]


class Terms(Settings):
    """What the makers of a model say about it; empty where they said nothing."""

    licence: Text = ""
    citation: Text = ""
    contact: Text = ""
    description: Text = ""


class Cohort(Settings):
    """How many were trained or validated on. `groups` counts the subjects of each value of a column; empty where only cases are known."""

    cases: Count
    subjects: Count | None = None
    groups: dict[str, dict[str, Count]] = Field(default_factory=dict)


class SummaryPart(Settings):
    """What a model card shows of a `summary.json`; the other keys are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Statistics(SummaryPart):
    """One metric over `n` subjects, each with the mean of its cases; the other counts are of cases. None where nothing is defined."""

    n: Count
    cases: Count
    undefined: Count
    mean: float | None
    sd: float | None
    median: float | None
    interval95: tuple[float, float] | None


class LabelScores(SummaryPart):
    """The scores of one label. `empty` counts the cases in which prediction, reference or both lack it."""

    dice: Statistics
    hd95_mm: Statistics | None = None
    assd_mm: Statistics | None = None
    difference_ml: Statistics | None = None
    empty: dict[Literal["both_empty", "prediction_empty", "reference_empty"], Count]


class GroupScores(SummaryPart):
    """The scores of a group of cases, by the label's name."""

    cases: Count
    subjects: Count
    mean_dice: float | None
    labels: dict[str, LabelScores]


class Scores(SummaryPart):
    """Part of a `summary.json`: over all cases, and by column and value."""

    format: Literal["utseg-summary-1"] = "utseg-summary-1"
    unit: Literal["subjects"] = "subjects"
    all: GroupScores
    groups: dict[str, dict[str, GroupScores]]


class ScoreTable(Settings):
    """Scores over the held-back subjects of these runs (PLAN_2d/MODEL/FOLD); each subject was scored by a run that did not train on it."""

    runs: tuple[str, ...]
    scores: Scores


class Member(Settings):
    """One run: PLAN_2d/MODEL/FOLD, and what it was trained on. `finished`: its training came to its end."""

    name: Annotated[str, AfterValidator(_run_name)]
    training: Cohort
    validation: Cohort
    finished: bool


class FileRecord(Settings):
    """Size in bytes and SHA-256 of a file in the archive."""

    size: Count
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Settings):
    """The content of `manifest.json`. `with_case_ids` says whether the run records name the cases that were trained on.

    `has_best`: the archive has the best.json that chose these members, which says what is done to their masks.
    """

    format: Literal["utseg-model-1"] = FORMAT
    utseg_version: str
    dataset: Annotated[str, AfterValidator(_plain_name)]
    labels: dict[str, LabelValue]
    channel_names: tuple[str, ...]
    terms: Terms
    with_case_ids: bool
    has_best: bool = False
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=100)]
    scores: tuple[ScoreTable, ...]
    files: dict[str, FileRecord]

    @property
    def models(self) -> list[str]:
        """PLAN_2d/MODEL of all members, each once."""
        return list(dict.fromkeys(member.name.rpartition("/")[0] for member in self.members))

    @property
    def expected_files(self) -> set[str]:
        """All files that the archive has besides the manifest."""
        expected = {CARD_FILE, BEST_FILE} if self.has_best else {CARD_FILE}
        for member in self.members:
            expected |= {f"{member.name}/{RUN_FILE}", f"{member.name}/{WEIGHTS_FILE}"}
            expected |= {f"{member.name}/{SUMMARY}"} if member.finished else set()
        return expected


def as_json(value: Settings) -> bytes:
    """How JSON is written in an archive."""
    text = json.dumps(value.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()
