"""Preprocessed slices on disk: `PLAN_2d/slices/CASE/ZZZ.npz`; beside them `case.json` with their checksums and what is needed to invert.

A case's folder appears whole or not at all. Every read is checked: the archive's CRC covers each array, `case.json` each file. Nothing is
resampled or decided here.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import ArtefactError, InputError
from utseg.files import DAMAGED_ARRAYS, atomic_folder, sha256, sha256_json, write_text
from utseg.fingerprint.model import CaseFingerprint, of_images
from utseg.home import planner_words
from utseg.labels import IGNORED_CLASS
from utseg.planning.plan import Preprocessing
from utseg.preprocess.case import CaseProperties, PreprocessedCase
from utseg.rawdata.geometry import Geometry
from utseg.settings import Settings, read_model

SLICES = "slices"
CASE_FILE = "case.json"
# Raise it when preprocessing gives other values than before: what was made earlier is then made again.
PREPROCESSING_VERSION = 2


class SliceRecord(Settings):
    """One slice: its file's name, the classes in it (background included, ascending; none where all is ignored), the file's SHA-256."""

    file: str
    labels: tuple[int, ...]
    sha256: str


class CaseRecord(Settings):
    """A preprocessed case. `input_checksums` maps the raw files, images first and the label last, to SHA-256, `stamps` to size and time.

    `voxels_sha256`: as in the fingerprint. `settings_sha256` covers what of the plan made the slices.
    """

    format: Literal["utseg-case-1"] = "utseg-case-1"
    case_id: str
    subject: str
    phase: str
    groups: dict[str, str]
    frame: int | None
    input_checksums: dict[str, str]
    stamps: dict[str, tuple[int, int]]
    voxels_sha256: tuple[str, ...]
    settings_sha256: str
    properties: CaseProperties
    slices: tuple[SliceRecord, ...]

    @property
    def scans(self) -> tuple[str, ...]:
        """Checksums that only the same scan has too, as those of a `CaseFingerprint`."""
        return (*self.voxels_sha256, *of_images(self.input_checksums))

    @property
    def slice_distance_mm(self) -> float:
        """From slice to slice, as in the scan."""
        return Geometry.from_json(self.properties.geometry).spacing_zyx_mm[0]

    @property
    def classes(self) -> set[int]:
        """The classes that its slices show."""
        return {value for each in self.slices for value in each.labels}


def preprocessing_sha256(preprocessing: Preprocessing) -> str:
    """Checksum of what determines the slices."""
    return sha256_json([PREPROCESSING_VERSION, preprocessing.model_dump(mode="json")])


def data_sha256(records: Sequence[CaseRecord]) -> str:
    """Checksum of all slices of these cases, whatever their order."""
    return sha256_json({record.case_id: [each.sha256 for each in record.slices] for record in records})


@dataclass(frozen=True)
class SliceStore:
    """The slices of one plan. `plan_folder` is `preprocessed/NAME/PLAN_2d`. Holds no open file, so that it may be sent to workers."""

    plan_folder: Path

    @property
    def folder(self) -> Path:
        """Where the cases' folders are."""
        return self.plan_folder / SLICES

    def case_ids(self) -> tuple[str, ...]:
        """The preprocessed cases, sorted; empty where there is none."""
        return tuple(sorted(file.parent.name for file in self.folder.glob(f"[!.]*/{CASE_FILE}")))

    def case_record(self, case_id: str) -> CaseRecord:
        """What is known of a case. A damaged or missing record raises ArtefactError."""
        file = self.folder / case_id / CASE_FILE
        try:
            record = read_model(CaseRecord, file)
        except (InputError, ArtefactError) as error:
            raise ArtefactError(f"{error}; {self.advice}") from None
        if record.case_id != case_id:
            raise ArtefactError(f"{file}: is the record of case {record.case_id}; {self.advice}")
        return record

    def read_slice(self, case_id: str, z: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """image (C, H, W) float32, label (H, W) uint8. A damaged or missing file raises ArtefactError naming it and what mends it."""
        return self._read(self.folder / case_id / slice_name(z))

    def read_case(self, record: CaseRecord) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """All slices of a case: image (C, Z, Y, X) float32, label (Z, Y, X) uint8."""
        pairs = [self._read(self.folder / record.case_id / each.file) for each in record.slices]
        images, labels = zip(*pairs, strict=True)
        return np.stack(images, axis=1), np.stack(labels)

    def write_case(
        self,
        preprocessed: PreprocessedCase,
        case: Case,
        source: CaseFingerprint,
        settings_sha256: str,
    ) -> CaseRecord:
        """Writes a labelled case, all of it or nothing; an older version is replaced. A failing disk raises UtsegError."""
        label_ZYX = preprocessed.label_ZYX
        if label_ZYX is None:
            raise ValueError(f"case {case.case_id}: a case without label is not kept as slices")
        slices = []
        with atomic_folder(self.folder / case.case_id) as folder:
            for z, label_YX in enumerate(label_ZYX):
                data = _packed(preprocessed.image_CZYX[:, z], label_YX)
                (folder / slice_name(z)).write_bytes(data)
                present = tuple(int(value) for value in np.unique(label_YX) if value != IGNORED_CLASS)
                slices.append(
                    SliceRecord(file=slice_name(z), labels=present, sha256=hashlib.sha256(data).hexdigest())
                )
            record = CaseRecord(
                case_id=case.case_id,
                subject=case.subject,
                phase=case.phase,
                groups=dict(case.groups),
                frame=case.frame,
                input_checksums=source.checksums,
                stamps=source.stamps,
                voxels_sha256=source.voxels_sha256,
                settings_sha256=settings_sha256,
                properties=preprocessed.properties,
                slices=tuple(slices),
            )
            (folder / CASE_FILE).write_text(_as_text(record), encoding="utf-8")
        return record

    def is_complete(self, case: Case, source: CaseFingerprint, settings_sha256: str) -> bool:
        """Whether the case's slices are there, undamaged, and made from this input with these settings.

        Subject, phase, groups and stamps, which the slices do not depend on, are brought up to date in the record.
        """
        try:
            record = self.case_record(case.case_id)
        except ArtefactError:
            return False
        if (record.input_checksums, record.frame, record.settings_sha256) != (
            source.checksums,
            case.frame,
            settings_sha256,
        ):
            return False
        folder = self.folder / case.case_id
        if any(
            not (folder / each.file).is_file() or sha256(folder / each.file) != each.sha256
            for each in record.slices
        ):
            return False
        current = record.model_copy(
            update={
                "subject": case.subject,
                "phase": case.phase,
                "groups": dict(case.groups),
                "stamps": source.stamps,
                "voxels_sha256": source.voxels_sha256,
            }
        )
        if current != record:
            write_text(folder / CASE_FILE, _as_text(current))
        return True

    def require_made_with(
        self, preprocessing: Preprocessing, records: Sequence[CaseRecord], advice: str | None = None
    ) -> None:
        """Raises ArtefactError where slices were made with another preprocessing than the plan's. advice: else to make them anew."""
        wanted = preprocessing_sha256(preprocessing)
        other = [record.case_id for record in records if record.settings_sha256 != wanted]
        if other:
            raise ArtefactError(
                f"{self.folder}: the slices of {len(other)} cases ({', '.join(other[:3])}, …) were made with other settings than "
                f"preprocessing has in the plan; {advice or self.advice}"
            )

    def _read(self, file: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        try:
            with zipfile.ZipFile(file) as archive:
                image, label = _array(archive, "image"), _array(archive, "label")
            if image.dtype != np.float32 or label.dtype != np.uint8 or image.shape[1:] != label.shape:
                raise ValueError(f"unexpected {image.dtype} {image.shape} and {label.dtype} {label.shape}")
        except FileNotFoundError:
            raise ArtefactError(f"{file}: this slice is missing; {self.advice}") from None
        except DAMAGED_ARRAYS as error:
            raise ArtefactError(f"{file}: this slice is damaged ({error}); {self.advice}") from None
        return image, label

    @property
    def advice(self) -> str:
        """The command that makes slices anew."""
        words = " ".join(planner_words(self.plan_folder.name))
        return f"fix it with: utseg_plan_and_preprocess -d {self.plan_folder.absolute().parent.name} {words}"


def slice_name(z: int) -> str:
    """File name of a slice."""
    return f"{z:03d}.npz"


def _packed(image_CYX: NDArray[np.float32], label_YX: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, image=np.ascontiguousarray(image_CYX), label=label_YX)
    return buffer.getvalue()


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """The CRC is checked over the whole member before any of it is interpreted."""
    content = io.BytesIO(archive.read(f"{name}.npy"))
    return np.asarray(np.lib.format.read_array(content, allow_pickle=False))


def _as_text(record: CaseRecord) -> str:
    return record.model_dump_json(indent=1) + "\n"
