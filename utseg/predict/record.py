"""`prediction.json`: which models made the masks of a folder, from which files, with checksums of everything. It is what `--resume` trusts.

A mask is kept only when its input, the models and the mask itself are what the record says. Nothing is predicted here.
"""

import logging
import platform
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from utseg.case import Case
from utseg.device import Precision
from utseg.errors import UtsegError, listing
from utseg.files import sha256, write_text
from utseg.inference.views import TestTimeAugmentation
from utseg.label_map import Labels, LabelValue
from utseg.planning.plan import StepSize
from utseg.postprocess import Postprocessing
from utseg.quality import QUALITY_FILE, CaseQuality, write_table
from utseg.settings import Settings, read_model
from utseg.training.record import Checkpoint

logger = logging.getLogger("utseg")
PREDICTION_FILE = "prediction.json"
ENTROPY_FOLDER = "entropy"


class ModelUse(Settings):
    """One member: DATASET/PLAN_2d/MODEL/FOLD, its network, SHA-256 of its weights' file and of its plan, and how it was used.

    `checkpoint`: which weights of the run these are.
    `focus`, `step_size`: where its windows were, as in a `Plan`. `precision`: what it computed in.
    `share`: its part of the mean, where saved probabilities were joined; None where all members counted the same in one prediction.
    """

    name: str
    network: str
    weights_sha256: str
    plan_sha256: str
    checkpoint: Checkpoint = "final"
    focus: bool = False
    step_size: StepSize = 0.5
    precision: Precision = "float32"
    share: float | None = None


class PredictedCase(Settings):
    """What one mask came from: SHA-256 of each input file by name, the frame (None: the whole file), and of each file written.

    `images`: where its image was, a file a channel, as seen from the folder of the masks where both lie below one folder, else in full.

    `quality`: how far the mask can be trusted; None where it was not assessed. `scans`: checksums of the image's voxels, frame after frame.
    `trained_by`: the models that trained on this very scan, under whatever name. `threads`: the first batch of windows (from 1, over all
    plans and frames) of each number of them, on which the last bits of probabilities depend.
    """

    images: tuple[str, ...] = ()
    inputs: dict[str, str]
    frame: int | None
    frames: int
    files: dict[str, str]
    warnings: tuple[str, ...] = ()
    quality: CaseQuality | None = None
    scans: tuple[str, ...] = ()
    trained_by: tuple[str, ...] = ()
    threads: tuple[tuple[int, int], ...] = ()


class PredictionRecord(Settings):
    """The content of `prediction.json`. `labels` maps names to the values in the masks; `cases` is keyed by case id.

    `test_time_augmentation`: the views of all models together; each has of them what its plan trained with. `postprocessing` was done to
    the masks, not to saved probabilities. `model_paths`: the folders or archives that the models were named by; empty where they were
    chosen among a dataset's results. `failed`: of the record of a part, the cases that could not be predicted.
    """

    format: Literal["utseg-prediction-1"] = "utseg-prediction-1"
    models: tuple[ModelUse, ...]
    model_paths: tuple[str, ...] = ()
    labels: dict[str, LabelValue]
    channel_names: tuple[str, ...]
    test_time_augmentation: TestTimeAugmentation
    postprocessing: Postprocessing = Postprocessing()
    versions: dict[str, str]
    device: str
    cases: dict[str, PredictedCase]
    failed: tuple[str, ...] | None = None

    def same_provenance(self, other: "PredictionRecord") -> bool:
        """Whether both describe masks by the same models, used in the same way, wherever it ran."""
        keys = ("models", "labels", "channel_names", "test_time_augmentation", "postprocessing")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def differs_in_precision_only(self, other: "PredictionRecord") -> bool:
        """Whether both would describe masks by the same models, used in the same way, had they computed in one precision."""

        def in_float32(record: PredictionRecord) -> PredictionRecord:
            models = tuple(use.model_copy(update={"precision": "float32"}) for use in record.models)
            return record.model_copy(update={"models": models})

        return self.precisions != other.precisions and in_float32(self).same_provenance(in_float32(other))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What each model computed in."""
        return tuple(use.precision for use in self.models)


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of Python and of what made the masks."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def write_record(record: PredictionRecord, folder: Path, name: str = PREDICTION_FILE) -> None:
    """Writes `prediction.json`, or the record of a part, into the folder of the masks."""
    left_out = {"failed"} if record.failed is None else None
    write_text(folder / name, record.model_dump_json(indent=2, exclude=left_out) + "\n")


def write_quality(cases: Mapping[str, PredictedCase], labels: Labels, folder: Path) -> None:
    """Writes `quality.csv` about all cases of a folder."""
    write_table({case_id: entry.quality for case_id, entry in cases.items()}, labels, folder)


def forget_quality(kept: Mapping[str, PredictedCase], labels: Labels, folder: Path) -> None:
    """Leaves those of `kept` only in a `quality.csv`: what it says of masks that are to be replaced must not outlive them, if killed."""
    if (folder / QUALITY_FILE).is_file():
        write_quality(kept, labels, folder)


def report_quality(
    cases: Mapping[str, PredictedCase], labels: Labels, wanted: Collection[str], folder: Path
) -> None:
    """Writes `quality.csv` about all cases of a folder; the log names those of `wanted` that should be looked at."""
    write_quality(cases, labels, folder)
    report_flagged(cases, wanted, folder)


def report_flagged(cases: Mapping[str, PredictedCase], wanted: Collection[str], folder: Path) -> None:
    """Names in the log those of `wanted` that should be looked at."""
    found = {case_id: cases[case_id].quality for case_id in sorted(wanted) if case_id in cases}
    judged = {case_id: quality for case_id, quality in found.items() if quality}
    flagged = [case_id for case_id, quality in judged.items() if quality.flagged]
    if flagged:
        text = "%d of %d cases should be looked at: %s (%s says why)"
        logger.warning(text, len(flagged), len(judged), listing(flagged), folder / QUALITY_FILE)


def seen_in_training(cases: Mapping[str, PredictedCase], wanted: Collection[str]) -> str | None:
    """A line that names those of `wanted` that a model trained on; None where there is none."""
    seen = [case_id for case_id in sorted(wanted) if case_id in cases and cases[case_id].trained_by]
    if not seen:
        return None
    models = sorted({model for case_id in seen for model in cases[case_id].trained_by})
    return (
        f"{len(seen)} of {len(wanted)} cases are scans that a model was trained on: {listing(seen)} ({listing(models)}); "
        "their scores are of what was seen"
    )


def read_record(folder: Path, name: str = PREDICTION_FILE) -> PredictionRecord | None:
    """The record of an earlier run, None where there is none or it is not readable, which the log says."""
    if not (folder / name).is_file():
        return None
    try:
        return read_model(PredictionRecord, folder / name)
    except UtsegError as error:
        logger.warning("%s; what it lists cannot be kept", error)
        return None


def predicted_cases(folder: Path) -> Mapping[str, PredictedCase]:
    """What `prediction.json` says of the masks in a folder; nothing where there is none of ours."""
    try:
        return read_model(PredictionRecord, folder / PREDICTION_FILE).cases
    except UtsegError:
        return {}


def recorded_image(masks: Path, entry: PredictedCase) -> Path | None:
    """The image of a mask, its first channel; None where nothing says where it was, it is not there any more, or is another by now."""
    path = masks / entry.images[0] if entry.images else None
    if path is None or not path.is_file() or entry.inputs.get(path.name) != sha256(path):
        return None
    return path


def input_checksums(case: Case) -> dict[str, str]:
    """SHA-256 of the files that its image is read from, by file name, images first."""
    return {path.name: sha256(path) for path in case.image_files}


def is_kept(
    case: Case,
    record: Mapping[str, PredictedCase],
    folder: Path,
    needed: Collection[str],
    with_entropy: bool = False,
) -> bool:
    """Whether the case's files are all there and whole, and were made from the files that the case has now.

    needed: names, or ends of names, of what has to be there, as in ("CASE.nii.gz", ".npz"). Files are in the folder itself, or in
    `entropy/`.
    """
    entry = record.get(case.case_id)
    if entry is None or entry.frame != case.frame:
        return False
    if not all(any(name.endswith(suffix) for name in entry.files) for suffix in needed):
        return False
    if with_entropy and not any(name.startswith(f"{ENTROPY_FOLDER}/") for name in entry.files):
        return False
    for name, checksum in entry.files.items():
        path = folder / name
        inside = name in (path.name, f"{ENTROPY_FOLDER}/{path.name}")
        if not inside or not path.is_file() or sha256(path) != checksum:
            return False
    return all(path.is_file() for path in case.image_files) and entry.inputs == input_checksums(case)
