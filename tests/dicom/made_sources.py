"""DICOM headers, without pixels, of a made-up cine, and the record of which frame each of its voxels is from."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from utseg.dicom.sources import CineSources, SourceFrame

NAME = "Grünwald^Äneas"
STUDY = "2.25.1"


def made_sources(
    folder: Path, shape: tuple[int, int, int, int], *, multi_frame: bool = False, **values: object
) -> CineSources:
    """A cine of (frames, slices, rows, columns): a series a slice, or one multi-frame object. values: elements of each header."""
    times, slices, rows, columns = shape
    frames: list[list[SourceFrame | None]] = []
    for time in range(times):
        frames.append([])
        for index in range(slices):
            name = "all.dcm" if multi_frame else f"{index}_{time}.dcm"
            uid = "2.25.20" if multi_frame else f"2.25.30.{index + 1}.{time + 1}"
            series = "2.25.10" if multi_frame else f"2.25.10.{index + 1}"
            if not (folder / name).exists():
                _write_header(folder / name, uid, series, multi_frame, values)
            frames[-1].append(
                SourceFrame(
                    file=name,
                    sop_class_uid=EnhancedMRImageStorage if multi_frame else MRImageStorage,
                    sop_instance_uid=uid,
                    number=time * slices + index + 1 if multi_frame else None,
                )
            )
    turn = np.array([[0.8, 0.0, -0.6], [0.36, 0.8, 0.48], [0.48, -0.6, 0.64]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * (1.25, 1.5, 9.0)
    matrix[:3, 3] = -120.5, 33.25, 7.125
    return CineSources(
        cine="S001",
        root=str(folder),
        study_instance_uid=STUDY,
        series_instance_uids=["2.25.10"] if multi_frame else [f"2.25.10.{z + 1}" for z in range(slices)],
        frames=frames,
        rows_columns=(rows, columns),
        ijk_to_lps=matrix.tolist(),
        trigger_times_ms=[[40.0 * time] * slices for time in range(times)],
    )


def _write_header(path: Path, uid: str, series: str, multi_frame: bool, values: dict[str, object]) -> None:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = EnhancedMRImageStorage if multi_frame else MRImageStorage
    header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID = uid, series, STUDY
    header.PatientName, header.PatientID, header.StudyDate = NAME, "P-4711", "20240229"
    header.FrameOfReferenceUID = "2.25.40"
    if multi_frame:
        measures, groups = Dataset(), Dataset()
        measures.SliceThickness = "8"
        groups.PixelMeasuresSequence = [measures]
        header.SharedFunctionalGroupsSequence = [groups]
    else:
        header.SliceThickness = "8"
    for keyword, value in values.items():
        setattr(header, keyword, value)
    header.save_as(path, enforce_file_format=True)
