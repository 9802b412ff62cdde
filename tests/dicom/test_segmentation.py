import logging
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_sources import NAME, STUDY, made_sources

from utseg.dicom.segmentation import read_segmentation, write_segmentation
from utseg.dicom.sources import CineSources
from utseg.errors import InputError

LABELS = {"background": 0, "LV": 3, "MYO": 2, "RV": 7}
SHAPE = 3, 2, 5, 7  # a frame of 35 bits: bytes run across frames
NUMBERS = np.array([0, 0, 1, 2, 0, 0, 0, 3], np.uint8)  # the segment of each value


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> CineSources:
    return made_sources(tmp_path_factory.mktemp("classic"), SHAPE)


@pytest.fixture(scope="module")
def random_mask() -> np.ndarray:
    return np.random.default_rng(5).choice(np.array([0, 2, 3, 7], np.uint8), SHAPE)


def every_uid(sources: CineSources) -> list[str]:
    return [frame.sop_instance_uid for row in sources.frames for frame in row]


sparse_masks = st.tuples(
    arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 2, 3, 7])),
    arrays(bool, SHAPE[:2]),
    st.sets(st.sampled_from([2, 3, 7])),
).map(lambda drawn: drawn[0] * drawn[1][..., None, None] * ~np.isin(drawn[0], [*drawn[2]]))


@settings(max_examples=3, phases=[Phase.generate])
@given(mask_TZYX=sparse_masks, phase=st.sampled_from(range(SHAPE[0])))
def test_masks_come_back_voxel_for_voxel_with_empty_frames_and_structures(
    sources: CineSources, tmp_path_factory: pytest.TempPathFactory, mask_TZYX: np.ndarray, phase: int
) -> None:
    folder = tmp_path_factory.mktemp("seg")
    cine = write_segmentation(mask_TZYX, LABELS, sources, folder / "cine.dcm")
    one = write_segmentation(mask_TZYX, LABELS, sources, folder / "one.dcm", phase=phase)

    assert np.array_equal(read_segmentation(cine, sources, LABELS), mask_TZYX)
    by_highdicom = highdicom.seg.segread(cine).get_pixels_by_source_instance(
        every_uid(sources), combine_segments=True
    )
    assert np.array_equal(by_highdicom.reshape(SHAPE), NUMBERS[mask_TZYX])

    assert np.array_equal(read_segmentation(one, sources, LABELS)[phase], mask_TZYX[phase])
    volume = highdicom.seg.segread(one).get_volume(combine_segments=True)  # from the other end of the stack
    assert np.array_equal(volume.array[::-1], NUMBERS[mask_TZYX[phase]])
    ijk_to_lps = np.array(sources.ijk_to_lps)
    for i, j, k in ((0, 0, 0), (6, 4, 1)):
        found = volume.affine @ (SHAPE[1] - 1 - k, j, i, 1)
        assert np.abs(found - ijk_to_lps @ (i, j, k, 1)).max() < 1e-3


def test_regions_overlap_and_come_back_as_they_paint(sources: CineSources, tmp_path: Path) -> None:
    """The whole heart, in it the left ventricle with its muscle, and in that the blood."""
    labels = {"background": 0, "heart": (1, 2, 3), "left": (2, 3), "blood": (3,)}
    mask_TZYX = np.random.default_rng(6).integers(0, 4, SHAPE, np.uint8)
    path = write_segmentation(mask_TZYX, labels, sources, tmp_path / "seg.dcm")

    assert np.array_equal(read_segmentation(path, sources, labels), mask_TZYX)
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    by_highdicom = highdicom.seg.segread(path).get_pixels_by_source_instance(every_uid(sources))
    for index, values in enumerate(([1, 2, 3], [2, 3], [3])):
        assert np.array_equal(by_highdicom[..., index].reshape(SHAPE), np.isin(mask_TZYX, values))


def test_frames_of_multi_frame_objects_are_referred_to_by_number(
    tmp_path: Path, random_mask: np.ndarray
) -> None:
    sources = made_sources(tmp_path, SHAPE, multi_frame=True)
    path = write_segmentation(random_mask, LABELS, sources, tmp_path / "seg.dcm")

    assert np.array_equal(read_segmentation(path, sources, LABELS), random_mask)
    found = highdicom.seg.segread(path).get_pixels_by_source_frame(
        "2.25.20", range(1, SHAPE[0] * SHAPE[1] + 1), combine_segments=True
    )
    assert np.array_equal(found.reshape(SHAPE), NUMBERS[random_mask])


def test_the_object_says_what_it_is_whose_and_where_each_frame_is_from(
    sources: CineSources, tmp_path: Path, random_mask: np.ndarray
) -> None:
    path = write_segmentation(
        random_mask, LABELS, sources, tmp_path / "seg.dcm", models=["ACDC/2d/UNet/fold0"]
    )
    seg = pydicom.dcmread(path)

    assert (seg.PatientName, seg.PatientID, seg.StudyInstanceUID) == (NAME, "P-4711", STUDY)
    assert "research" in seg.SeriesDescription and seg.ContentLabel == "RESEARCH"
    segments = {
        segment.SegmentDescription: (segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence[0])
        for segment in seg.SegmentSequence
    }
    assert {name: (label, code.CodeValue) for name, (label, code) in segments.items()} == {
        "LV": ("LV blood pool", "87878005"),
        "MYO": ("LV myocardium", "49848007"),
        "RV": ("RV blood pool", "53085002"),
    }
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert "ACDC/2d/UNet/fold0" in algorithm.AlgorithmParameters
    assert len(seg.ReferencedSeriesSequence) == SHAPE[1]
    for item in seg.PerFrameFunctionalGroupsSequence:
        _, place, time = item.FrameContentSequence[0].DimensionIndexValues
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == f"2.25.30.{place}.{time}"
        assert item.FrameContentSequence[0].TemporalPositionIndex == time


def test_the_same_masks_make_the_same_object_and_others_another(
    sources: CineSources, tmp_path: Path, random_mask: np.ndarray
) -> None:
    def uids(mask: np.ndarray, **options: object) -> tuple[str, str]:
        seg = pydicom.dcmread(write_segmentation(mask, LABELS, sources, tmp_path / "seg.dcm", **options))
        return seg.SOPInstanceUID, seg.SeriesInstanceUID

    made = [
        uids(random_mask),
        uids(random_mask),
        uids(random_mask, phase=1),
        uids(random_mask * (random_mask != 7)),
    ]
    assert made[0] == made[1]
    assert len({uid for pair in made for uid in pair}) == 6


def test_sloppy_headers_are_taken_and_nothing_says_the_name(
    tmp_path: Path,
    random_mask: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pydicom.config.disable_value_validation():
        sources = made_sources(
            tmp_path,
            SHAPE,
            PatientName="onlyone",
            PatientSex="female",
            PatientBirthDate="1970",
            FrameOfReferenceUID="",
        )
    path = write_segmentation(random_mask, LABELS, sources, tmp_path / "seg.dcm")

    seg = pydicom.dcmread(path)
    assert (seg.PatientName, seg.PatientSex, seg.PatientBirthDate) == ("onlyone", "", "")
    assert seg.FrameOfReferenceUID
    assert "onlyone" not in caplog.text + "".join(str(warning.message) for warning in recwarn)


def test_wrong_input_is_one_line(sources: CineSources, tmp_path: Path, random_mask: np.ndarray) -> None:
    path = tmp_path / "seg.dcm"
    gone = sources.model_copy(update={"root": str(tmp_path)})
    first = [[None, *sources.frames[0][1:]], *sources.frames[1:]]
    holed = sources.model_copy(update={"frames": first})
    (tmp_path / "0_0.dcm").write_bytes((Path(sources.root) / "1_1.dcm").read_bytes())
    for cine, mask, options, words in [
        (sources, random_mask[:, :1], {}, "the mask has 3 × 1 × 5 × 7 voxels"),
        (sources, random_mask, {"phase": 3}, "has no frame 3; expected 0 … 2"),
        (holed, np.full_like(random_mask, 3), {}, "shows LV in frame 0, slice 0"),
        (gone, random_mask, {}, "is another DICOM object now"),
    ]:
        with pytest.raises(InputError, match=words):
            write_segmentation(mask, LABELS, cine, path, **options)
    (tmp_path / "0_0.dcm").unlink()
    with pytest.raises(
        InputError,
        match=r"file of frame 0, slice 0 of S001 \(sources/S001.json names it\) could not be read .*; put the DICOM",
    ):
        write_segmentation(random_mask, LABELS, gone, path)
    assert not path.exists()

    write_segmentation(random_mask, LABELS, sources, path)
    with pytest.raises(InputError, match="expected the labels"):
        read_segmentation(path, sources, {"LV": 1})
    for damaged in (path.read_bytes()[:-8], b"no"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a DICOM Segmentation"):
            read_segmentation(path, sources, LABELS)
