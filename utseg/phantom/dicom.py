"""`write_dicom_study`: a cine as a scanner would export it, among the other series of an examination, to test and to demonstrate on.

The patient is made up, and said to be a phantom in every file. Files lie in a folder a series, called as on a CD, without an ending.
"""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.volumes import measures_of
from utseg.files import write_bytes, write_text
from utseg.phantom.enhanced import frame_content, item, make_enhanced
from utseg.phantom.examination import Examination, PhantomSettings, Subject, render

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Layout = Literal["slices", "stack", "enhanced"]
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TRUTH_FILE = "truth.csv"
DATE, TIME = "20240517", "101500"
MODELS = {
    "Siemens": ("SIEMENS", "MAGNETOM Phantom"),
    "Philips": ("Philips Medical Systems", "Ingenia Phantom"),
    "GE": ("GE MEDICAL SYSTEMS", "SIGNA Phantom"),
    "Canon": ("CANON_MEC", "Vantage Phantom"),
}


@dataclass(frozen=True)
class Patient:
    """A made-up patient, with all that must not leave a hospital."""

    name: str = "Mustermann^Erika"
    patient_id: str = "PID-4711-0815"
    birth_date: str = "19610417"
    sex: str = "F"
    height_m: float = 1.68
    weight_kg: float = 64.5
    accession: str = "ACC-20240517-77"


def write_dicom_study(
    folder: Path,
    image_TZYX: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    vendor: str = "Siemens",
    patient: Patient | None = None,
    rr_ms: float = 900.0,
    thickness_mm: float = 8.0,
    layout: Layout = "slices",
    extras: bool = True,
    study: str = "1",
    syntax: str = "1.2.840.10008.1.2.1",
) -> list[Path]:
    """Writes a study below `folder`; returns the files of the cine, of a frame after the other within each slice.

    image_TZYX: integers that 16 bits hold; affine: voxel (x, y, z) to RAS mm, where x counts columns and y rows. layout: a series a slice,
    one for the stack, or one enhanced multi-frame object. Trigger times differ by slice, as heart beats do. extras: a localiser, a
    long axis, flow with its phase images, late enhancement on the slices of the cine, and a file that is no DICOM. study: makes its UIDs.
    syntax: UID of a transfer syntax that pydicom encodes.
    """
    writer = _Writer(folder, vendor, patient or Patient(), rr_ms, thickness_mm, study, syntax)
    lps = RAS_TO_LPS @ affine
    frames, slices = image_TZYX.shape[:2]
    times = np.arange(frames) * rr_ms / frames
    if layout == "enhanced":
        paths = [writer.write_enhanced(3, "cine sa enhanced", image_TZYX, lps, times)]
    else:
        paths = []
        for z in range(slices):
            series = 3 + z if layout == "slices" else 3
            per_slice = times * (1 + 0.01 * (z % 3))
            images = image_TZYX[:, z]
            first = 1 if layout == "slices" else 1 + z * frames
            paths += writer.write_series(series, "cine sa", images, lps, z, per_slice, first=first)
    if extras:
        _write_extras(writer, image_TZYX, lps, times)
    return paths


def _write_extras(
    writer: "_Writer", image_TZYX: NDArray[Any], lps: NDArray[np.float64], times: NDArray[Any]
) -> None:
    """What else an examination holds."""
    still, middle = image_TZYX[:1], image_TZYX.shape[1] // 2
    for number, turned in enumerate(([0, 1, 2], [0, 2, 1], [1, 2, 0])):
        plane = np.eye(4)
        plane[:3, :3] = np.eye(3)[:, turned] * 2.0
        plane[:3, 3] = -50
        writer.write_series(
            1, "localizer", still[:, middle], plane, 0, times[:1], first=number + 1, gated=False
        )
    long_axis = lps.copy()
    long_axis[:3, 1] = lps[:3, 2] / np.linalg.norm(lps[:3, 2]) * np.linalg.norm(lps[:3, 1])
    long_axis[:3, 2] = lps[:3, 1]
    writer.write_series(2, "cine 4ch", image_TZYX[:, middle], long_axis, 0, times)
    transversal = np.diag([*np.linalg.norm(lps[:3, :2], axis=0), 8.0, 1.0])
    flow = image_TZYX[:, 0, ::-1]
    writer.write_series(90, "flow ao", flow, transversal, 0, times)
    writer.write_series(91, "flow ao_P", flow, transversal, 0, times, kind="P")
    for z in range(image_TZYX.shape[1]):
        writer.write_series(95, "LGE sa", still[:, z], lps, z, times[:1], first=z + 1, inversion_ms=300.0)
    write_text(writer.folder / "README.TXT", "exported by nobody")


def write_examination(folder: Path, settings: PhantomSettings, subject: Subject) -> None:
    """Renders one subject of a cohort and writes its study below `folder`/CODE."""
    drawn = Examination(settings, subject)
    image_TZYX, _ = render(settings, drawn)
    person = drawn.person
    patient = Patient(
        name=f"Mustermann^{subject.code}",
        patient_id=subject.code,
        sex=person["Sex"],
        height_m=float(person["Height"]) / 100,
        weight_kg=float(person["Weight"]),
        accession=f"ACC-{subject.code}",
    )
    shutil.rmtree(folder / subject.code, ignore_errors=True)  # of a run that was ended before it was whole
    write_dicom_study(
        folder / subject.code,
        image_TZYX,
        drawn.affine,
        vendor=drawn.vendor.name,
        patient=patient,
        rr_ms=1000 * drawn.heart_beat_s,
        thickness_mm=drawn.scene.grid.thickness_mm,
        study=str(settings.seed),
    )


def truth(drawn: Examination) -> dict[str, Any]:
    """What the hearts' formulas say of a subject, whatever slices and pixels show of it: volumes in ml, EF in %, mass in g."""
    heart = drawn.scene.heart
    sides = {
        "LV": (heart.lv_edv_ml, heart.lv_ejection_fraction),
        "RV": (heart.rv_edv_ml, heart.rv_ejection_fraction),
    }
    values = {
        f"{key.lower()}": value
        for side, (edv_ml, share) in sides.items()
        for key, value in measures_of(side, edv_ml, edv_ml * (1 - share)).items()
    }
    values |= {key.lower(): value for key, value in measures_of("MYO", heart.myocardium_ml, 0.0).items()}
    named = {"patient_id": drawn.subject.code, "vendor": drawn.vendor.name, "ed": drawn.ed, "es": drawn.es}
    return named | {key: f"{value:.2f}" for key, value in values.items()}


class _Writer:
    """Writes the series of one study."""

    def __init__(
        self,
        folder: Path,
        vendor: str,
        patient: Patient,
        rr_ms: float,
        thickness_mm: float,
        study: str,
        syntax: str,
    ) -> None:
        self.folder, self._patient, self._rr_ms, self._thickness_mm = folder, patient, rr_ms, thickness_mm
        self._maker, self._study, self._syntax = MODELS[vendor], f"{patient.patient_id}/{study}", syntax
        self._written: dict[int, int] = {}

    def write_series(
        self,
        number: int,
        description: str,
        images_TYX: NDArray[Any],
        lps: NDArray[np.float64],
        place: int,
        times_ms: NDArray[Any],
        *,
        first: int = 1,
        kind: str = "M",
        gated: bool = True,
        inversion_ms: float | None = None,
    ) -> list[Path]:
        """Images of the slice `place`, one file a frame; `lps` takes (column, row, slice) to mm."""
        paths = []
        dataset = self._dataset(number, description, "1.2.840.10008.5.1.4.1.1.4", kind)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = _place(lps, place)
        dataset.PixelSpacing = _spacing(lps)
        for offset, (image, time_ms) in enumerate(zip(images_TYX, times_ms, strict=True)):
            dataset.InstanceNumber = first + offset
            dataset.SOPInstanceUID = self._uid(number, first + offset)
            dataset.SliceThickness, dataset.SpacingBetweenSlices = _decimals(
                [self._thickness_mm, np.linalg.norm(lps[:3, 2])]
            )
            if not gated:
                dataset.ScanOptions = ""
            else:
                (dataset.TriggerTime,), dataset.NominalInterval = _decimals([time_ms]), round(self._rr_ms)
                dataset.CardiacNumberOfImages = len(images_TYX)
            if inversion_ms is not None:
                dataset.ScanningSequence, dataset.InversionTime = ["GR", "IR"], inversion_ms
            paths.append(self._save(dataset, image[None]))
        return paths

    def write_enhanced(
        self,
        number: int,
        description: str,
        image_TZYX: NDArray[Any],
        lps: NDArray[np.float64],
        times_ms: NDArray[Any],
    ) -> Path:
        """All frames in one enhanced MR object, slice by slice."""
        dataset = self._dataset(number, description, "1.2.840.10008.5.1.4.1.1.4.1", "M")
        dataset.InstanceNumber, dataset.SOPInstanceUID = 1, self._uid(number, 1)
        frames, slices = image_TZYX.shape[:2]
        measures = {"PixelSpacing": _spacing(lps), "SliceThickness": _decimals([self._thickness_mm])[0]}
        when = DATE + TIME
        make_enhanced(dataset, {"PixelMeasuresSequence": measures}, when, self._uid(number, "dimensions"))
        groups = []
        for place in range(slices):
            position, orientation = _place(lps, place)
            for phase in range(frames):
                heart = {
                    "NominalCardiacTriggerDelayTime": float(times_ms[phase]),
                    "RRIntervalTimeNominal": self._rr_ms,
                }
                values: dict[str, dict[str, Any]] = {
                    "FrameContentSequence": frame_content(place, phase, when, self._rr_ms),
                    "PlanePositionSequence": {"ImagePositionPatient": position},
                    "PlaneOrientationSequence": {"ImageOrientationPatient": orientation},
                    "CardiacSynchronizationSequence": heart,
                }
                groups.append(item(values))
        dataset.PerFrameFunctionalGroupsSequence = groups
        dataset.NumberOfFrames = frames * slices
        return self._save(dataset, image_TZYX.swapaxes(0, 1).reshape(-1, *image_TZYX.shape[2:]))

    def _uid(self, *words: object) -> str:
        from pydicom.uid import generate_uid

        # With a separator: joined without, series 9 with image 11 would have the UID of series 91 with image 1.
        return str(generate_uid(entropy_srcs=["/".join(("utseg phantom", self._study, *map(str, words)))]))

    def _dataset(self, series: int, description: str, sop_class: str, kind: str) -> "Dataset":
        patient = self._patient
        values = {
            "ImageType": ["ORIGINAL", "PRIMARY", kind, "RETRO"],
            "SOPClassUID": sop_class,
            **{f"{what}Date": DATE for what in ("Study", "Series", "Acquisition", "Content")},
            **{f"{what}Time": TIME for what in ("Study", "Series", "Acquisition", "Content")},
            "AccessionNumber": patient.accession,
            "Modality": "MR",
            "Manufacturer": self._maker[0],
            "ReferringPhysicianName": "",
            "SeriesDescription": f"{description} {patient.name.split('^')[0]}",  # some type names in here
            "ManufacturerModelName": self._maker[1],
            "PatientName": patient.name,
            "PatientID": patient.patient_id,
            "PatientBirthDate": patient.birth_date,
            "PatientSex": patient.sex,
            "PatientSize": patient.height_m,
            "PatientWeight": patient.weight_kg,
            "PatientComments": "synthetic: a phantom, no patient",
            "ScanningSequence": "GR",
            "SequenceVariant": "SK",
            "ScanOptions": "CG",
            "MRAcquisitionType": "2D",
            "RepetitionTime": "3.2",
            "EchoTime": "1.5",
            "EchoTrainLength": "1",
            "MagneticFieldStrength": "1.5",
            "PatientPosition": "HFS",
            "BodyPartExamined": "HEART",
            "DeviceSerialNumber": "0",
            "SoftwareVersions": "phantom",
            "StudyInstanceUID": self._uid(),
            "SeriesInstanceUID": self._uid(series),
            "StudyID": "1",
            "SeriesNumber": series,
            "FrameOfReferenceUID": self._uid("frame of reference"),
            "PositionReferenceIndicator": "",
        }
        return item(values)

    def _save(self, dataset: "Dataset", values_NYX: NDArray[Any]) -> Path:
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian

        syntax = UID(self._syntax)
        signed = values_NYX.dtype.kind == "i"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = values_NYX.shape[1:]
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, int(signed)
        order = ">" if not syntax.is_little_endian else "<"
        dataset["PixelData"] = _element(values_NYX.astype(f"{order}{'i' if signed else 'u'}2").tobytes())
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed else syntax
        if syntax.is_compressed and not syntax.is_deflated:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        series = int(dataset.SeriesNumber)
        self._written[series] = self._written.get(series, 0) + 1
        path = self.folder / "DICOM" / f"S{series:05d}" / f"I{self._written[series]:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        write_bytes(path, written.getvalue())
        return path


def _element(data: bytes) -> Any:
    from pydicom.dataelem import DataElement

    return DataElement(0x7FE00010, "OW", data)


def _decimals(values: Any) -> list[str]:
    """Numbers as a header writes them: at most 16 characters."""
    return [f"{float(value):.10g}"[:16] for value in values]


def _place(lps: NDArray[np.float64], place: int) -> tuple[list[str], list[str]]:
    """Position and orientation of a slice."""
    row, column = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    return _decimals(lps[:3, 3] + place * lps[:3, 2]), _decimals([*row, *column])


def _spacing(lps: NDArray[np.float64]) -> list[str]:
    return _decimals([np.linalg.norm(lps[:3, 1]), np.linalg.norm(lps[:3, 0])])
