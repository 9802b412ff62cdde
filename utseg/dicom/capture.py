"""A figure as a DICOM Secondary Capture, in the study of the cine that it shows."""

import hashlib
from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from utseg.dicom.derived import (
    as_the_source_says,
    content_key,
    series_keywords,
    source_header,
    write_object,
)
from utseg.dicom.sources import CineSources


def write_capture(figure_YXC: NDArray[np.uint8], sources: CineSources, path: Path) -> Path:
    """Writes an RGB picture (H, W, 3), which must not show who the patient is. Raises InputError where the source's files have gone."""
    key = content_key(sources, figure_YXC.shape, hashlib.sha256(figure_YXC.tobytes()).hexdigest())
    with as_the_source_says():
        capture = SCImage.from_ref_dataset(
            source_header(sources),
            pixel_array=np.ascontiguousarray(figure_YXC),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **series_keywords("figure", key),
        )
        capture.PatientOrientation = (
            None  # of a sheet with a chart there is none, though highdicom asks for it
        )
        capture.ConversionType = "WSD"
        capture.BodyPartExamined = "HEART"
        capture.BurnedInAnnotation = "NO"
        return write_object(capture, path)
