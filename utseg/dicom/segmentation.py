"""DICOM Segmentation of a cine: one object, a frame for each source frame and structure, which refers to the frame it was made from.

highdicom makes the object's head and its segments; it knows no time (its frames are told apart by place alone), so that the frames are
laid out here: by segment, slice and, for more than one phase, time (Temporal Position Index, counted from 1 over the whole cine).
What is empty is left out, but each source frame that was segmented has at least one frame.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code

import utseg
from utseg.cardiac.structures import find_structures
from utseg.dicom.codes import ANATOMY, LONG, SEGMENTS, own_code
from utseg.dicom.derived import (
    MAKER,
    RESEARCH,
    as_the_source_says,
    content_key,
    decimal,
    derived_uid,
    frame_reference,
    referenced_series,
    series_keywords,
    slice_distance_mm,
    slice_position,
    source_header,
    write_object,
)
from utseg.dicom.reading import Unreadable, damage_named
from utseg.dicom.sources import CineSources, SourceFrame
from utseg.errors import InputError
from utseg.figures.colours import label_colours
from utseg.label_map import Labels, has_regions, inside, inside_any, painted, structures

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
SEGMENTATION = Code("113076", "DCM", "Segmentation")  # CID 7203
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202
BY_SEGMENT = ("ReferencedSegmentNumber", "SegmentIdentificationSequence")
BY_PLACE = ("ImagePositionPatient", "PlanePositionSequence")
BY_TIME = ("TemporalPositionIndex", "FrameContentSequence")


@dataclass(frozen=True)
class _Plane:
    """A frame of the object: the structure that it shows, its place in the cine (all counted from 0), and its source."""

    segment: int
    slice: int
    time: int
    source: SourceFrame


def write_segmentation(
    mask_TZYX: NDArray[np.uint8],
    labels: Labels,
    sources: CineSources,
    path: Path,
    *,
    models: Sequence[str] = (),
    phase: int | None = None,
) -> Path:
    """Writes the masks of a whole cine, or of one phase of it (counted from 0), into the study of their source.

    mask_TZYX: in the voxel order of the cine's file. models: what made them, by name.
    Raises InputError where the mask has not the cine's size, shows something where no source frame is known, or where the source's files
    have gone.
    """
    _check(mask_TZYX, sources, phase)
    times = range(len(mask_TZYX)) if phase is None else [phase]
    planes = list(_planes(mask_TZYX, labels, sources, times))
    pixels = _packed(mask_TZYX, labels, planes)
    places = [(plane.segment, plane.slice, plane.time) for plane in planes]
    key = content_key(sources, places, hashlib.sha256(pixels).hexdigest(), list(labels.items()), [*models])
    with as_the_source_says():
        dataset = _head(labels, sources, models, key, phase)
        what = "whole cine" if phase is None else f"frame {phase + 1} of {len(mask_TZYX)}"
        dataset.SeriesDescription = f"{MAKER} segmentation, {what}, {RESEARCH}"
        dataset.SegmentsOverlap = "YES" if has_regions(labels) else "NO"
        _lay_out(dataset, planes, sources, key, timed=phase is None)
        dataset.PixelData = pixels
        return write_object(dataset, path)


def read_segmentation(path: Path, sources: CineSources, labels: Labels) -> NDArray[np.uint8]:
    """The mask (T, Z, Y, X) of an object of ours, by the source frames that its frames refer to; 0 where it has none.

    labels: how the mask numbers its labels; regions paint as they do in a mask, so that of their values the painted ones come back.
    Raises InputError where the file is no segmentation, its segments are not these labels, or it refers to other frames.
    """
    try:
        with damage_named():
            dataset = dcmread(path)
            names = [segment.SegmentDescription for segment in dataset.SegmentSequence]
            planes_NYX = _planes_of(dataset)
            found = [_place(item) for item in dataset.PerFrameFunctionalGroupsSequence]
    except Unreadable as error:
        raise InputError(f"{path}: is not a DICOM Segmentation of ours that can be read: {error}") from None
    own = structures(labels)
    if names != list(own):
        raise InputError(f"{path}: holds {names}; expected the labels {list(own)}")
    places = {
        (frame.sop_instance_uid, frame.number): (time, index)
        for time, row in enumerate(sources.frames)
        for index, frame in enumerate(row)
        if frame
    }
    rows, columns = sources.rows_columns
    mask_TZYX = np.zeros((len(sources.frames), len(sources.frames[0]), rows, columns), np.uint8)
    # By segment, which is the order in which regions paint.
    for (number, source), plane_YX in sorted(zip(found, planes_NYX, strict=True), key=lambda one: one[0][0]):
        place = places.get(source)
        if place is None or plane_YX.shape != (rows, columns):
            raise InputError(f"{path}: refers to frames that {sources.cine} was not made from")
        mask_TZYX[place][plane_YX] = painted(own[names[number - 1]])
    return mask_TZYX


def _place(item: Dataset) -> tuple[int, tuple[str, int | None]]:
    """Of a frame by its functional groups: its segment's number, and its source's UID and frame number."""
    source = item.DerivationImageSequence[0].SourceImageSequence[0]
    number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return number, (source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))


def _planes_of(dataset: Dataset) -> NDArray[np.bool_]:
    """All frames (N, Y, X). Bits run on from frame to frame."""
    shape = int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns
    bits = np.frombuffer(dataset.PixelData, np.uint8)
    if 8 * len(bits) < math.prod(shape):
        raise Unreadable(f"{len(bits)} bytes of pixels, expected {math.ceil(math.prod(shape) / 8)}")
    return np.unpackbits(bits, count=math.prod(shape), bitorder="little").reshape(shape).astype(bool)


def _check(mask_TZYX: NDArray[np.uint8], sources: CineSources, phase: int | None) -> None:
    size = len(sources.frames), len(sources.frames[0]), *sources.rows_columns
    if mask_TZYX.shape != size:
        found = " × ".join(map(str, mask_TZYX.shape))
        expected = " × ".join(map(str, size))
        raise InputError(f"{sources.cine}: the mask has {found} voxels (t, z, y, x); its cine has {expected}")
    if phase is not None and phase not in range(size[0]):
        raise InputError(f"{sources.cine}: has no frame {phase}; expected 0 … {size[0] - 1}")


def _planes(
    mask_TZYX: NDArray[np.uint8], labels: Labels, sources: CineSources, times: Sequence[int]
) -> Iterator[_Plane]:
    """By segment, slice and time: all that show something, and the first segment's where a source frame has nothing else."""
    own = list(structures(labels).values())
    for segment, value in enumerate(own):
        for index in range(mask_TZYX.shape[1]):
            for time in times:
                label_YX, source = mask_TZYX[time, index], sources.frames[time][index]
                shows = bool(inside(label_YX, value).any())
                if shows and source is None:
                    raise InputError(
                        f"{sources.cine}: the mask shows {list(structures(labels))[segment]} in frame {time}, slice {index}, "
                        "which no DICOM frame is known of; make the mask from the imported cine"
                    )
                if source and (shows or (segment == 0 and not inside_any(label_YX, own).any())):
                    yield _Plane(segment, index, time, source)


def _packed(mask_TZYX: NDArray[np.uint8], labels: Labels, planes: Sequence[_Plane]) -> bytes:
    """The frames in bits, which run on from frame to frame: eight frames are whole bytes, and no more are held unpacked."""
    own = list(structures(labels).values())
    chunks = []
    for first in range(0, len(planes), 8):
        some = planes[first : first + 8]
        bits = np.stack([inside(mask_TZYX[plane.time, plane.slice], own[plane.segment]) for plane in some])
        chunks.append(np.packbits(bits, bitorder="little").tobytes())
    packed = b"".join(chunks)
    return packed + b"\0" * (len(packed) % 2)


def _head(
    labels: Labels, sources: CineSources, models: Sequence[str], key: str, phase: int | None
) -> Segmentation:
    """The object without its frames: patient, study, who made it, segments, how pixels lie."""
    header = source_header(sources)
    return Segmentation(
        source_images=[header],
        pixel_array=np.zeros((1, header.Rows, header.Columns), np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=_segments(labels, sources, models),
        omit_empty_frames=False,
        content_label="RESEARCH",
        content_description=f"Made by {MAKER}, {RESEARCH}",
        **series_keywords("segmentation", key, phase),
    )


def _segments(labels: Labels, sources: CineSources, models: Sequence[str]) -> list[SegmentDescription]:
    """One for each label, in the order of `structures`; its description is the label's own name."""
    roles = {name: role for role, name in find_structures(labels).names.items()}
    colours = label_colours(labels)
    algorithm = AlgorithmIdentificationSequence(
        MAKER,
        ARTIFICIAL_INTELLIGENCE,
        utseg.__version__,
        parameters={"models": ", ".join(models) or "not known"},
    )
    found = []
    for number, name in enumerate(structures(labels), 1):
        private = name[:LONG], own_code(name, name)
        words, code = SEGMENTS.get(roles.get(name, ""), private)
        segment = SegmentDescription(
            segment_number=number,
            segment_label=words,
            segmented_property_category=ANATOMY,
            segmented_property_type=code,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=derived_uid("segment", sources.study_instance_uid, sources.cine, name),
            tracking_id=f"{sources.cine} {words}"[:LONG],
            display_color=CIELabColor.from_rgb(*bytes.fromhex(colours[name].removeprefix("#"))),
        )
        segment.SegmentDescription = name
        found.append(segment)
    return found


def _lay_out(
    dataset: Segmentation, planes: Sequence[_Plane], sources: CineSources, key: str, *, timed: bool
) -> None:
    """Gives the object its frames, and the order that they stand in."""
    organization = Dataset()
    organization.DimensionOrganizationUID = derived_uid("dimensions", key)
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = [
        _dimension(organization.DimensionOrganizationUID, *pair)
        for pair in (BY_SEGMENT, BY_PLACE, BY_TIME)[: 3 if timed else 2]
    ]
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = decimal(slice_distance_mm(sources))
    positions = [slice_position(sources, index) for index in range(len(sources.frames[0]))]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame(plane, positions[plane.slice], timed) for plane in planes
    ]
    dataset.NumberOfFrames = len(planes)
    dataset.ReferencedSeriesSequence = referenced_series(sources, [plane.source for plane in planes])


def _dimension(organization: str, pointer: str, group: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer = tag_for_keyword(pointer)
    item.FunctionalGroupPointer = tag_for_keyword(group)
    item.DimensionDescriptionLabel = pointer
    return item


def _frame(plane: _Plane, position: Sequence[float], timed: bool) -> Dataset:
    """The functional groups of one frame."""
    content, place, segment, derivation = (Dataset() for _ in range(4))
    content.DimensionIndexValues = [plane.segment + 1, plane.slice + 1, *([plane.time + 1] if timed else [])]
    content.TemporalPositionIndex = plane.time + 1
    place.ImagePositionPatient = list(position)
    segment.ReferencedSegmentNumber = plane.segment + 1
    source = frame_reference(plane.source)
    source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(SOURCE_IMAGE)]
    source.SpatialLocationsPreserved = "YES"
    derivation.DerivationCodeSequence = [CodedConcept.from_code(SEGMENTATION)]
    derivation.SourceImageSequence = [source]
    item = Dataset()
    item.FrameContentSequence = [content]
    item.PlanePositionSequence = [place]
    item.SegmentIdentificationSequence = [segment]
    item.DerivationImageSequence = [derivation]
    return item
