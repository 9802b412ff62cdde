"""`sources.json` of a scores folder: from which files its scores came, so that a report can show what was scored.

Folders are written as seen from the scores folder where they lie below one folder with it, else in full. Checksums of reference and
prediction tell whether they are still the files that were scored. Images are not needed to score; where they are is written if it is known.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from utseg.case import Case
from utseg.errors import InputError
from utseg.files import seen_from, sha256
from utseg.home import planner_words
from utseg.label_map import Labels, LabelValue
from utseg.settings import Settings, read_model
from utseg.training.record import RUN_FILE, read_run

SOURCES_FILE = "sources.json"


class CaseSource(Settings):
    """The files of one case: images (one a channel, or none where they are not known), reference, prediction; `frame` of a cine."""

    images: tuple[str, ...]
    reference: str
    frame: int | None
    prediction: str
    reference_sha256: str
    prediction_sha256: str


class Sources(Settings):
    """The content of `sources.json`. `labels` maps names to values; `cases` is keyed by case id.

    `reference_labels`, `mask_labels`: those of references and predictions, which may be numbered otherwise.
    """

    format: Literal["utseg-sources-1"] = "utseg-sources-1"
    labels: dict[str, LabelValue]
    reference_labels: dict[str, LabelValue]
    mask_labels: dict[str, LabelValue]
    cases: dict[str, CaseSource]


def sources_of(
    pairs: Iterable[tuple[Case, Path]],
    labels: Labels,
    folder: Path,
    reference_labels: Labels,
    mask_labels: Labels,
) -> str:
    """The text of `sources.json` in that folder, for cases and their predictions' files."""
    checksums: dict[Path, str] = {}

    def checksum(path: Path) -> str:
        if path not in checksums:  # the frames of a cine have one file
            checksums[path] = sha256(path)
        return checksums[path]

    cases = {}
    for case, prediction in pairs:
        assert case.label is not None, "only labelled cases are scored"
        cases[case.case_id] = CaseSource(
            images=tuple(seen_from(folder, image) for image in case.images),
            reference=seen_from(folder, case.label),
            frame=case.frame,
            prediction=seen_from(folder, prediction),
            reference_sha256=checksum(case.label),
            prediction_sha256=checksum(prediction),
        )
    sources = Sources(
        labels=dict(labels),
        reference_labels=dict(reference_labels),
        mask_labels=dict(mask_labels),
        cases=cases,
    )
    return sources.model_dump_json(indent=1) + "\n"


def read_sources(folder: Path) -> Sources:
    """Reads `sources.json`; its paths are as written, to be joined to the folder. Raises SettingError where it is not one."""
    return read_model(Sources, folder / SOURCES_FILE)


def check_references(cases: Iterable[Case], validation: Path) -> None:
    """Raises InputError where a label is another than when a fold's validation was scored: the fold was trained on others too.

    Folders that hold no validation of a run, or one that was never scored, are not checked.
    """
    if not (validation.absolute().parent / RUN_FILE).is_file() or not (validation / SOURCES_FILE).is_file():
        return
    known = read_sources(validation).cases
    for case in cases:
        if (
            case.case_id in known
            and case.label is not None
            and sha256(case.label) != known[case.case_id].reference_sha256
        ):
            record = read_run(validation.absolute().parent)
            raise InputError(
                f"{case.label}: changed since {validation.absolute().parent} was trained and validated; run utseg_plan_and_preprocess "
                f"-d {record.plan.dataset} {' '.join(planner_words(record.plan.folder_name))}, and train again with --overwrite"
            )
