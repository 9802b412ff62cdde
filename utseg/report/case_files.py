"""Where the image, the reference and the predictions of each case are, for the pictures: by `sources.json`.

Images are where the references' are, in the raw dataset, or where `prediction.json` says. Only files that are still those that were scored
count. What is not there any more is left out with the reason; nothing is read here but checksums.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.errors import UtsegError, number_of
from utseg.evaluate.sources import SOURCES_FILE, CaseSource
from utseg.files import sha256
from utseg.home import Home
from utseg.label_map import Labels
from utseg.predict.record import recorded_image
from utseg.rawdata import open_dataset
from utseg.report.entries import Entry, Scores

NO_IMAGE = "the image is not there; name its raw dataset with -d"
NO_SOURCES = f"{SOURCES_FILE} does not say which files were scored; score again with utseg_evaluate"


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case, with the frame of a cine (else None). `predictions` has one for each entry that has the case, by its name.

    `reference_labels`, `prediction_labels` (by entry): how the files number their labels, where that is on record.
    """

    case_id: str
    image: Path
    image_frame: int | None
    reference: Path
    reference_frame: int | None
    predictions: dict[str, Path]
    reference_labels: Labels | None = None
    prediction_labels: dict[str, Labels] = field(default_factory=dict)


def find_case_files(
    entries: Sequence[Entry], home: Home, dataset: Dataset | None
) -> tuple[dict[str, CaseFiles], list[str]]:
    """The files of all cases that can be shown, by case, and one line for each reason why others cannot.

    dataset: the raw dataset where images are looked for first; else those in `home` by the name that runs and predictions give.
    """
    found: dict[str, CaseFiles] = {}
    missing: Counter[str] = Counter()
    raw = {case.case_id: case for case in dataset.cases} if dataset else {}
    datasets: dict[str, Mapping[str, Case]] = {}
    for entry in entries:
        for scores in entry.scores:
            cases = dict(raw)
            for name in _dataset_names(entry, scores) if dataset is None else ():
                if name not in datasets:
                    datasets[name] = _cases(home.raw / name, name)
                cases |= datasets[name]
            for case_id in dict.fromkeys(str(row["case"]) for row in scores.rows):
                files: CaseFiles | str = NO_SOURCES
                if scores.sources and (source := scores.sources.cases.get(case_id)):
                    known = cases.get(case_id)
                    files = _of_case(
                        case_id, entry.name, scores, source, known, raw_first=dataset is not None
                    )
                if isinstance(files, str):
                    missing[f"{files} ({entry.name})"] += 1
                    continue
                of_case = found.setdefault(case_id, files)
                of_case.predictions.update(files.predictions)
                of_case.prediction_labels.update(files.prediction_labels)
    return found, [
        f"{number_of(count, 'case')} without pictures: {reason}" for reason, count in missing.items()
    ]


def unlike_references(entries: Sequence[Entry]) -> list[str]:
    """A line where models were scored against other files under one name, so that their scores cannot be compared."""
    references: dict[str, set[str]] = {}
    for scores in (scores for entry in entries for scores in entry.scores):
        for case_id in {str(row["case"]) for row in scores.rows}:
            if scores.sources and (source := scores.sources.cases.get(case_id)):
                references.setdefault(case_id, set()).add(source.reference_sha256)
    unlike = sum(len(checksums) > 1 for checksums in references.values())
    if not unlike:
        return []
    return [f"{number_of(unlike, 'case')}: the models were scored against different references."]


def _of_case(
    case_id: str, model: str, scores: Scores, source: CaseSource, case: Case | None, *, raw_first: bool
) -> CaseFiles | str:
    """The case's files, with the model's prediction; or why there is no picture."""
    folder, sources = scores.folder, scores.sources
    assert sources is not None, "the source is one of these"
    reference, prediction = folder / source.reference, folder / source.prediction
    for path, checksum, what in (
        (reference, source.reference_sha256, "reference"),
        (prediction, source.prediction_sha256, "prediction"),
    ):
        if not path.is_file():
            return f"the {what} is not where it was scored"
        if sha256(path) != checksum:
            return f"the {what} has changed since it was scored"
    for image, frame in _images(case_id, scores, source, case, raw_first=raw_first):
        if image.is_file():
            masks, labels = {model: prediction}, sources.reference_labels
            numbering: dict[str, Labels] = {model: sources.mask_labels}
            return CaseFiles(case_id, image, frame, reference, source.frame, masks, labels, numbering)
    return NO_IMAGE


def _images(
    case_id: str, scores: Scores, source: CaseSource, case: Case | None, *, raw_first: bool
) -> Iterator[tuple[Path, int | None]]:
    """Where the image may be, and which frame: with the reference, in the raw dataset, or where it was predicted from."""
    scored = [(scores.folder / image, source.frame) for image in source.images[:1]]
    raw = [(image, case.frame) for image in case.images[:1]] if case is not None else []
    yield from (*raw, *scored) if raw_first else (*scored, *raw)
    entry = scores.prediction.cases.get(case_id) if scores.prediction else None
    masks = (scores.folder / source.prediction).parent
    if entry is not None and (image := recorded_image(masks, entry)) is not None:
        yield image, entry.frame


def _dataset_names(entry: Entry, scores: Scores) -> list[str]:
    names = [run.record.plan.dataset for run in entry.runs]
    if scores.prediction:
        names += [use.name.split("/")[0] for use in scores.prediction.models]
    return [name for name in dict.fromkeys(names) if name and Path(name).name == name and name != ".."]


def _cases(folder: Path, name: str) -> Mapping[str, Case]:
    """The cases of a raw dataset; none where it is not there or cannot be opened, for then there are just no pictures."""
    try:
        return {case.case_id: case for case in open_dataset(folder, name).cases}
    except UtsegError:
        return {}
