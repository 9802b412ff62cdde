"""`utseg_measure --dicom`: from a DICOM folder by way of its masks back into the archive."""

import shutil
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from dicom_studies import errors_in

from utseg.commands.measure import main as measure
from utseg.dicom.importing import import_dicom
from utseg.dicom.segmentation import read_segmentation, write_segmentation
from utseg.dicom.sources import read_sources
from utseg.measure.record import read_measures
from utseg.phantom.dicom import Patient, write_dicom_study

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
FRAMES, SLICES, ROWS, COLUMNS = 6, 4, 44, 50
TYPED = ["--labels", "RV=1", "MYO=2", "LV=3"]


def hearts(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Masks (T, Z, Y, X) of a beating heart; its outermost slice is empty at ES."""
    y, x = np.mgrid[: shape[2], : shape[3]]
    mask_TZYX = np.zeros(shape, np.uint8)
    for time in range(shape[0]):
        radius = 7 + 2 * np.cos(2 * np.pi * time / shape[0])
        for z in range(shape[1] - (time == shape[0] // 2)):
            distance = np.hypot(y - shape[2] / 2, x - shape[3] / 2 - z)
            mask_TZYX[time, z][np.hypot(y - shape[2] / 2, x - shape[3] / 2 + 14) < radius - 1] = 1
            mask_TZYX[time, z][distance < radius + 4] = 2
            mask_TZYX[time, z][distance < radius] = 3
    return mask_TZYX


def masks_like(image: Path, folder: Path) -> np.ndarray:
    cine = nibabel.load(image)
    mask_TZYX = hearts(cine.shape[::-1])
    folder.mkdir()
    nibabel.save(
        nibabel.Nifti1Image(mask_TZYX.T, cine.affine, cine.header, dtype=np.uint8), folder / image.name
    )
    return mask_TZYX


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with dicom/, images/, masks/ and measures/ of one made-up patient, and the masks."""
    folder = tmp_path_factory.mktemp("walk")
    affine = np.array([[-1.2, 0.3, 2, 60], [0.2, -1.3, 1, 40], [0.1, 0.2, 9, -30], [0, 0, 0, 1.0]])
    directions = np.linalg.qr(affine[:3, :3])[0]
    affine[:3, :3] = directions * (1.25, 1.25, 10) * np.sign(np.linalg.det(directions))
    image = np.random.default_rng(0).integers(0, 900, (FRAMES, SLICES, ROWS, COLUMNS), dtype=np.int16)
    write_dicom_study(folder / "dicom", image, affine, extras=False)
    import_dicom(folder / "dicom", folder / "images", workers=1)
    mask_TZYX = masks_like(folder / "images" / "S001.nii.gz", folder / "masks")
    assert measure(arguments(folder)) == 0
    return folder, mask_TZYX


def arguments(folder: Path, images: str = "images") -> list[str]:
    places = {"-i": "masks", "-o": "measures", "--images": images}
    return [
        *(word for flag, name in places.items() for word in (flag, str(folder / name))),
        *TYPED,
        "--dicom",
        "--no-pictures",
        "--quiet",
    ]


def test_masks_of_ed_and_es_come_back_and_the_report_says_the_measures(
    walked: tuple[Path, np.ndarray],
) -> None:
    folder, mask_TZYX = walked
    sources = read_sources(folder / "images", "S001")
    for name, time in (("ed", 0), ("es", 3)):
        found = read_segmentation(folder / f"measures/dicom/S001_{name}_seg.dcm", sources, LABELS)
        assert np.array_equal(found[time], mask_TZYX[time])

    (cine,) = read_measures(folder / "measures").cines
    report = highdicom.sr.srread(folder / "measures/dicom/S001_sr.dcm")
    groups = report.content.get_image_measurement_groups()
    said = {
        (group.finding_sites[0].value.meaning, measurement.name.meaning): measurement
        for group in groups
        for measurement in group.get_measurements()
    }
    for column, site, name, unit in [
        ("lv_edv_ml", "Left ventricle", "Left Ventricular ED Volume", "ml"),
        ("lv_ef_percent", "Left ventricle", "Left ventricular ejection fraction by MR", "%"),
        ("lv_mass_g", "Left ventricle", "Left Ventricle Mass", "g"),
        ("rv_sv_ml", "Right ventricle", "RV Stroke Volume", "ml"),
        ("cardiac_output_l_min", "Heart", "Cardiac Output", "l/min"),
        ("lv_edvi_ml_m2", "Left ventricle", "LV end-diastolic volume by body surface", "ml/m2"),
    ]:
        digits = 2 if unit == "l/min" else 1
        assert said[site, name].value == pytest.approx(round(cine.values[column], digits), rel=1e-9)
        assert said[site, name].unit.value == unit
    assert said["Heart", "Frame of end systole, counted from 1"].value == 4
    es_images = {frame.sop_instance_uid for frame in sources.frames[3] if frame}
    referred = said["Left ventricle", "Left Ventricular ES Volume"].referenced_images
    assert {image.referenced_sop_instance_uid for image in referred} == es_images
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    doubts = [each.value.meaning for group in groups for each in group.get_qualitative_evaluations()]
    checks = [flag for flag in cine.flags if flag.severity == "check"]
    assert doubts == [*dict.fromkeys(flag.name for flag in checks)]
    texts = [item.TextValue for item in groups[-1][0].ContentSequence if item.ValueType == "TEXT"]
    assert [f"To be checked before use: {flag.words}" for flag in checks] == [*filter(is_check, texts)]


def is_check(text: str) -> bool:
    return text.startswith("To be checked")


def test_all_objects_stand_in_the_study_of_the_source_as_research(walked: tuple[Path, np.ndarray]) -> None:
    folder, _ = walked
    sources = read_sources(folder / "images", "S001")
    paths = sorted((folder / "measures/dicom").iterdir())
    assert [path.name for path in paths] == [
        "S001_ed_seg.dcm",
        "S001_es_seg.dcm",
        "S001_sc.dcm",
        "S001_sr.dcm",
    ]
    for path in paths:
        found = pydicom.dcmread(path)
        assert found.StudyInstanceUID == sources.study_instance_uid
        assert (found.PatientID, found.PatientName) == (Patient().patient_id, Patient().name)
        assert "research only" in found.SeriesDescription
    numbers = [int(pydicom.dcmread(path).SeriesNumber) for path in paths]
    assert len({*numbers, 9001}) == 5
    figure = pydicom.dcmread(folder / "measures/dicom/S001_sc.dcm").pixel_array
    assert figure.shape[2] == 3 and len(np.unique(figure.reshape(-1, 3), axis=0)) > 100


def test_dciodvfy_finds_no_error(walked: tuple[Path, np.ndarray]) -> None:
    folder, mask_TZYX = walked
    sources = read_sources(folder / "images", "S001")
    write_segmentation(mask_TZYX, LABELS, sources, folder / "measures/dicom/S001_seg.dcm")
    found = {path.name: errors_in(path) for path in sorted((folder / "measures/dicom").iterdir())}
    assert len(found) == 5
    assert found == {name: [] for name in found}


def test_what_is_made_from_a_real_series_has_no_error(shared: Path, tmp_path: Path) -> None:
    import_dicom(shared / "data/dicom/bivme-patient1", tmp_path / "images", workers=1)
    mask_TZYX = masks_like(tmp_path / "images/S001.nii.gz", tmp_path / "masks")
    assert measure(arguments(tmp_path)) == 0
    sources = read_sources(tmp_path / "images", "S001")
    cine = write_segmentation(mask_TZYX, LABELS, sources, tmp_path / "measures/dicom/S001_seg.dcm")
    assert np.array_equal(read_segmentation(cine, sources, LABELS), mask_TZYX)
    found = {path.name: errors_in(path) for path in sorted((tmp_path / "measures/dicom").iterdir())}
    assert len(found) == 5
    assert found == {name: [] for name in found}


def test_objects_of_an_earlier_run_go_and_sources_of_another_patient_are_refused(
    walked: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = walked
    for name in ("dicom", "masks"):
        shutil.copytree(folder / name, tmp_path / name)
    import_dicom(tmp_path / "dicom", tmp_path / "images", workers=1)
    written = tmp_path / "measures/dicom"
    written.mkdir(parents=True)
    for name in ("S009_sr.dcm", "S001_sc.dcm", "S009_seg.dcm"):
        (written / name).touch()
    path = sorted((tmp_path / "dicom").rglob("I*"))[-1]
    dataset = pydicom.dcmread(path)
    dataset.PatientID = "other"
    dataset.save_as(path)
    assert measure(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "the files of S001 are of 2 patients now" in error
    assert [path.name for path in written.iterdir()] == ["S009_seg.dcm"]
    dataset.PatientID, dataset.SeriesInstanceUID = Patient().patient_id, "1.2.3"
    dataset.save_as(path)
    assert measure(arguments(tmp_path)) == 1
    assert "is of another study or series now" in capsys.readouterr().err
    assert not (written / "S001_sr.dcm").exists()


def test_a_cine_that_was_not_made_from_dicom_is_one_line_and_is_measured(
    walked: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = walked
    shutil.copytree(folder / "masks", tmp_path / "masks")
    (tmp_path / "plain").mkdir()
    shutil.copy(folder / "images/S001.nii.gz", tmp_path / "plain")
    assert measure(arguments(tmp_path, "plain")) == 1
    assert "cine S001: nothing says that it was made from DICOM" in capsys.readouterr().err
    assert read_measures(tmp_path / "measures").cines
    assert not (tmp_path / "measures/dicom").exists()
