"""`utseg_import_dicom` on folders as scanners, archives and CDs write them: the voxels, where they lie, and what was left out."""

import shutil
import stat

import numpy as np
import pydicom
import pytest
from dicom_studies import (
    assert_same,
    cine,
    edit,
    errors_in,
    jpeg_2000,
    jpeg_lossless,
    recode,
    short_axis,
    translation,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from utseg.dicom import importing
from utseg.errors import InputError, UtsegError
from utseg.phantom.dicom import Patient, write_dicom_study

PATIENT = Patient()
SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "big-endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
}


def test_an_examination_becomes_one_cine_and_a_reason_for_every_other_series(study, imported, tmp_path):
    folder, _ = study(extras=True)
    result = imported(folder, "--codes", tmp_path / "codes.csv")
    assert result.code == 0, result.err
    assert_same(result, cine(), short_axis())
    (row,) = result.rows()
    expected = {
        "cine": "S001", "subject": "S001", "vendor": "Siemens", "model": "MAGNETOM Phantom", "field_strength_t": "1.5", "rows": "12",
        "columns": "10", "slices": "4", "frames": "5", "spacing_x_mm": "1.4", "spacing_y_mm": "1.4", "slice_distance_mm": "10.0",
        "slice_thickness_mm": "8.0", "heart_rate_bpm": "66.67", "rr_interval_ms": "900.0", "height_m": "1.68", "weight_kg": "64.5",
        "sex": "F", "age_years": "63", "series_description": "cine sa …",
    }  # fmt: skip
    assert row == expected
    reasons = {description.split()[0] + description.split()[1]: why for description, why in result.reasons()}
    assert "no cine" in reasons["localizer…"] and "no cine" in reasons["LGEsa"]
    assert "no stack" in reasons["cine4ch"] and "no stack" in reasons["flowao"]
    assert "phase or velocity" in reasons["flowao_P"]
    sources = result.sources()
    for t, z in ((0, 0), (4, 3), (2, 1)):
        dataset = pydicom.dcmread(f"{sources.root}/{sources.frames[t][z].file}")
        np.testing.assert_array_equal(dataset.pixel_array, result.image()[0][t, z])
        assert dataset.SOPInstanceUID == sources.frames[t][z].sop_instance_uid
        assert float(dataset.TriggerTime) == sources.trigger_times_ms[t][z]
    assert (tmp_path / "codes.csv").read_text() == f"subject,patient_id\nS001,{PATIENT.patient_id}\n"
    assert stat.S_IMODE((tmp_path / "codes.csv").stat().st_mode) == 0o600


def test_nothing_that_is_written_or_said_names_the_patient(study, imported):
    folder, _ = study(extras=True)
    result = imported(folder)
    texts = [result.out, result.err] + [
        path.read_bytes().decode("latin-1") for path in result.folder.rglob("*") if path.is_file()
    ]
    for secret in (
        "Mustermann",
        "Erika",
        PATIENT.patient_id,
        PATIENT.birth_date,
        PATIENT.accession,
        "20240517",
    ):
        assert not any(secret.casefold() in text.casefold() for text in texts), secret


def test_what_was_typed_and_what_folders_are_called_goes_no_further(study, imported, tmp_path):
    """Names in other letters and without accents, dates, numbers of examinations; a damaged file, and one whose pixels cannot be read."""
    where = tmp_path / "in" / "MUELLER_Li"
    _, files = study(cine(frames=2, slices=2), name="in/MUELLER_Li/a")
    _, others = study(cine(frames=2, slices=2), name="in/MUELLER_Li/b", patient=Patient(patient_id="Z"))
    for number, path in enumerate(files):

        def change(dataset, number=number):
            dataset.SpecificCharacterSet = "ISO_IR 192"
            dataset.PatientName = "Krämer^Li^Q=山田^Li"
            dataset.SeriesDescription = (
                f"sax_Li KRAMER Krämer 山田 q 17.04.1961 2024-05-17 A20240517 {number}"
            )

        edit(path, change)
    edit(others[0], lambda dataset: setattr(dataset, "PixelData", b"00"))
    (where / "a" / "DICOM" / "broken").write_bytes(files[0].read_bytes()[:300])
    result = imported(tmp_path / "in")
    assert (
        result.code == 1 and "error: S002: series 3, image 1: 2 bytes of pixels; expected 240" in result.err
    )
    assert "1 file left out, damaged (first: file 5 of 9 by path: its SOPInstanceUID is missing" in result.err
    (row,) = result.rows()
    assert row["series_description"] == "sax_… … … … … … … A… 0"
    texts = [result.out, result.err, *(path.read_text() for path in result.folder.glob("*.csv"))]
    assert not any("MUELLER" in text or "Li" in text for text in texts)


@pytest.mark.parametrize("layout", ["stack", "enhanced"])
def test_one_series_or_one_object_for_the_stack(study, imported, layout):
    folder, files = study(layout=layout, vendor="Philips")
    result = imported(folder)
    assert_same(result, cine(), short_axis())
    assert errors_in(files[0]) == []
    numbers = {frame.number for row in result.sources().frames for frame in row}
    assert numbers == ({None} if layout == "stack" else set(range(1, 21)))


@pytest.mark.parametrize("name", [*SYNTAXES, "JPEG 2000", "JPEG lossless"])
def test_transfer_syntaxes(study, imported, name):
    image = cine(frames=4, slices=3)
    folder, (path, *_) = study(image, layout="enhanced", syntax=SYNTAXES.get(name, "1.2.840.10008.1.2.1"))
    if name == "JPEG 2000":
        edit(path, lambda dataset: recode(dataset, JPEG2000Lossless, jpeg_2000))
    elif name == "JPEG lossless":
        edit(path, lambda dataset: recode(dataset, JPEGLosslessSV1, jpeg_lossless))
    result = imported(folder)
    assert result.code == 0, result.err
    assert_same(result, image, short_axis())


def test_values_are_the_scanners(study, imported):
    """Slope and intercept a slice, unsigned 12 bits with an overlay above them, and white as low."""
    image = cine(frames=2, slices=3, dtype=np.uint16) % 4096
    folder, files = study(image)
    for index, path in enumerate(files):

        def change(dataset, z=index // 2):
            dataset.BitsStored, dataset.HighBit = 12, 11
            dataset.PixelData = (dataset.pixel_array | 0x8000).astype("<u2").tobytes()
            if z == 1:
                dataset.PhotometricInterpretation = "MONOCHROME1"
            dataset.RescaleSlope, dataset.RescaleIntercept = 2 + z, -z

        edit(path, change)
    expected = image.astype(np.float32)
    expected[:, 1] = 4095 - expected[:, 1]
    expected = expected * np.array([2, 3, 4]).reshape(1, 3, 1, 1) - np.arange(3).reshape(1, 3, 1, 1)
    result = imported(folder)
    assert_same(result, expected, short_axis())
    assert result.image()[0].dtype == np.float32


def test_paths_that_do_not_do_are_named(study, imported, tmp_path):
    folder, files = study(cine(frames=2, slices=2))
    assert "is a file; name the folder that it lies in" in imported(files[0]).err
    result = imported(folder, "--codes", folder / "codes.csv")
    assert result.code == 1 and "would lie in the DICOM folder" in result.err
    for output, words in ((folder / "out", "lies in the DICOM folder"), (files[0], "is a file; name a new")):
        with pytest.raises(InputError, match=words):
            importing.import_dicom(folder, output, workers=1)
    with pytest.raises(InputError, match="no such folder"):
        importing.import_dicom(tmp_path / "none", tmp_path / "out", workers=1)


def test_of_two_stacks_the_one_that_lies_as_a_short_axis_is_taken_and_the_other_named(
    study, imported, tmp_path
):
    folder, _ = study()
    axial = np.diag([1.4, 1.4, 6.0, 1.0])
    (path,) = write_dicom_study(folder / "axial", cine(slices=6), axial, extras=False, layout="enhanced")

    def change(dataset):
        dataset.SeriesNumber, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = 60, "1.2.3.60", "1.2.3.60.6"

    edit(path, change)
    result = imported(folder)
    assert_same(result, cine(), short_axis())
    ((_, why),) = result.reasons()
    assert (
        why
        == "another stack (6 slices × 5 phases); chosen: 4 slices × 5 phases, as short-axis views usually lie"
    )


def acquired_again(folder, where, **settings):
    """Adds the cine once more to a study, in later series, elsewhere."""
    again = cine(seed=1)
    for path in write_dicom_study(folder / "again", again, where, extras=False, **settings):

        def change(dataset):
            for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
                setattr(dataset, keyword, getattr(dataset, keyword)[:60] + ".7")
            dataset.SeriesNumber += 50

        edit(path, change)
    return again


@pytest.mark.parametrize(("layout", "distances"), [("slices", 0.4), ("slices", 0.5), ("stack", 0.5)])
def test_of_two_stacks_whose_slices_overlap_the_later_is_taken(study, imported, layout, distances):
    """The patient moved, and all slices were acquired again, 4 or 5 mm further: with the others of these they would be 5 mm apart."""
    folder, _ = study(layout=layout)
    where = short_axis() @ translation(z=distances)
    again = acquired_again(folder, where, layout=layout)
    result = imported(folder)
    assert_same(result, again, where)
    assert {why for _, why in result.reasons()} == {
        "another stack (4 slices × 5 phases); chosen: 4 slices × 5 phases, acquired later"
    }


@pytest.mark.parametrize(("layout", "stated"), [("stack", False), ("slices", True)])
def test_slices_that_are_to_overlap_are_one_stack_though_every_second_was_acquired_first(
    study, imported, layout, stated
):
    """8 mm thick, 5 mm apart: of one series, or as each header says."""
    image, where = cine(slices=8), short_axis((1.4, 1.4, 5.0))
    folder, files = study(image, where, layout=layout)
    for index, path in enumerate(files):

        def change(dataset, index=index):
            place, frame = divmod(index, len(image))
            number = place // 2 + 4 * (place % 2)
            if layout == "slices":
                dataset.SeriesNumber = 3 + number
            dataset.InstanceNumber = 1 + number * len(image) + frame
            if not stated:
                del dataset.SpacingBetweenSlices

        edit(path, change)
    assert_same(imported(folder), image, where)


def test_slices_that_were_left_out_first_and_acquired_later_are_of_the_stack(study, imported):
    """Slices of 5 mm, every second of them first: none overlaps."""
    folder, _ = study(thickness_mm=5.0)
    again = acquired_again(folder, short_axis() @ translation(z=0.5), thickness_mm=5.0)
    whole = np.stack([cine(), again], axis=2).reshape(5, 8, 12, 10)
    assert_same(imported(folder), whole, short_axis((1.4, 1.4, 5.0)))


def test_several_patients_and_studies_get_codes_in_a_stable_order(study, imported, tmp_path):
    few = {"frames": 2, "slices": 2}
    study(name="in/a", patient=Patient(patient_id="9"), image=cine(**few, seed=9))
    study(name="in/b", patient=Patient(patient_id="../../8"), image=cine(**few, seed=8))
    _, files = study(name="in/c", patient=Patient(patient_id="../../8"), study="2", image=cine(**few, seed=7))
    for path in files:
        edit(path, lambda dataset: setattr(dataset, "StudyDate", "20250101"))
    result = imported(tmp_path / "in")
    assert [(row["cine"], row["subject"]) for row in result.rows()] == [
        ("S001", "S001"),
        ("S001_2", "S001"),
        ("S002", "S002"),
    ]
    for name, seed in (("S001", 8), ("S001_2", 7), ("S002", 9)):
        assert_same(result, cine(**few, seed=seed), short_axis(), name)


def test_maps_and_perfusion_on_parallel_slices_are_no_cines(study, imported):
    folder, files = study(cine(frames=2, slices=2))
    for index, path in enumerate(files):
        edit(path, lambda dataset, ti=100 + index % 2: setattr(dataset, "InversionTime", ti))
    result = imported(folder)
    assert result.code == 1 and "inversion time: a map, no cine" in result.err
    folder, _ = study(cine(slices=2), name="perfusion", rr_ms=9000.0)
    result = imported(folder)
    assert result.code == 1 and "one a heart beat, no cine" in result.err


def test_refusals_are_one_line(study, imported, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("x")
    result = imported(tmp_path / "empty")
    assert result.code == 1 and result.err.count("\n") == 1 and "no DICOM file among 1 file" in result.err
    result = imported(tmp_path / "not there")
    assert result.code == 1 and "no such folder" in result.err
    folder, _ = study(image=cine(frames=2, slices=2))
    (tmp_path / "codes.csv").write_text("mine")
    result = imported(folder, "--codes", tmp_path / "codes.csv")
    assert result.code == 1 and "is there already" in result.err
    result = imported(folder, "--codes", tmp_path / "out3" / "codes.csv")
    assert result.code == 1 and "which has none of them" in result.err
    assert imported(folder, "-o", folder).code == 1


def test_an_import_that_failed_at_its_last_file_is_finished_by_the_same_command(
    study, imported, tmp_path, monkeypatch
):
    folder, _ = study(image=cine(frames=2, slices=2))
    codes = tmp_path / "codes.csv"

    def full(path, table):
        raise UtsegError(f"{path}: could not be written")

    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_codes", full)
        failed = imported(folder, "--codes", codes)
    assert failed.code == 1 and not failed.folder.exists() and not codes.exists()
    assert imported(folder, "--codes", codes).code == 0
    assert imported(folder, "--codes", codes).code == 0, "the very same map is there, and stays"


def test_real_series_of_two_scanners(shared, imported):
    """Two Siemens slices × 25 phases; ten GE images, of which four slices have both phases."""
    result = imported(shared / "data" / "dicom")
    assert result.code == 0, result.err
    found = [
        (row["vendor"], row["slices"], row["frames"], row["heart_rate_bpm"], row["slice_thickness_mm"])
        for row in result.rows()
    ]
    assert found == [("GE", "4", "2", "62.0", "8.0"), ("Siemens", "2", "25", "74.77", "6.0")]
    assert "S001: left out at its ends: 2 slices (1 phase where its neighbours have 2)" in result.err
    assert "S002: only 2 slices, 17.7 mm apart with 11.7 mm between them that nobody imaged" in result.err
    for name in ("S001", "S002"):
        sources = result.sources(name)
        dataset = pydicom.dcmread(f"{sources.root}/{sources.frames[1][1].file}")
        values, affine = result.image(name)
        np.testing.assert_array_equal(values[1, 1], dataset.pixel_array)
        place = affine @ [0, 0, 1, 1]
        np.testing.assert_allclose(place[:3] * [-1, -1, 1], dataset.ImagePositionPatient, atol=1e-3)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turn=st.integers(0, 2**32 - 1),
    spacing=st.tuples(st.floats(0.5, 3), st.floats(0.5, 3), st.floats(4, 15)),
    mirrored=st.booleans(),
)
def test_any_orientation_and_spacing_comes_out_where_it_was(
    study, imported, tmp_path, turn, spacing, mirrored
):
    rng = np.random.default_rng(turn)
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array([*spacing[:2], -spacing[2] if mirrored else spacing[2]])
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    image = cine(frames=2, slices=3, rows=7, columns=5, seed=turn)
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    folder, _ = study(image, affine)
    assert_same(imported(folder), image, affine)
