"""`utseg_import_dicom` on folders with images that are lost, damaged, copied, or acquired twice."""

import shutil

import numpy as np
import pydicom
import pytest
from dicom_studies import (
    assert_same,
    cine,
    edit,
    short_axis,
    translation,
)

from utseg.phantom.dicom import write_dicom_study


def test_copies_and_files_that_are_no_images_count_once_and_not_at_all(study, imported):
    folder, files = study()
    shutil.copytree(folder / "DICOM", folder / "copy of a copy" / "DICOM")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "nowhere").symlink_to(folder / "not there")
    (folder / "notes.txt").write_text("x")
    directory = pydicom.dcmread(files[0])
    directory.file_meta.MediaStorageSOPClassUID = directory.SOPClassUID = "1.2.840.10008.1.3.10"
    directory.save_as(folder / "DICOMDIR")
    plain = pydicom.dcmread(files[1])
    plain.preamble, plain.file_meta = None, pydicom.dataset.FileMetaDataset()
    plain.save_as(files[1], implicit_vr=True, little_endian=True, enforce_file_format=False)
    result = imported(folder)
    assert_same(result, cine(), short_axis())
    assert result.reasons() == {("cine sa …", "copies of files that are there already"): 20}
    assert [(row["study"], row["series"]) for row in result.rows("left_out.csv")] == [
        ("S001", str(series)) for series in range(3, 7)
    ]
    assert "2 other files" in result.out


def test_pixels_that_cannot_be_read_are_lost_images(study, imported):
    """One frame in ten of one slice, then most of a slice at the end: as if their files were not there."""
    image = cine(frames=10, slices=3)
    folder, files = study(image)
    for path in files[13:14]:
        edit(path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:50]))
    result = imported(folder)
    assert result.code == 0
    assert_same(result, image[[0, 1, 2, 4, 5, 6, 7, 8, 9]], short_axis())
    words = "pixels cannot be read: series 4, image 4: 50 bytes of pixels; expected 240: it is cut off"
    assert words in result.err and "9 of 10 phases are kept" in result.err
    assert ("cine sa …", "damaged: 50 bytes of pixels; expected 240: it is cut off") in result.reasons()
    for path in files[:5]:
        edit(path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:50]))
    result = imported(folder)
    assert_same(result, image[[0, 1, 2, 4, 5, 6, 7, 8, 9]][:, 1:], short_axis() @ translation(z=1))
    assert "and 3 more" in result.err
    for path in files[:18]:
        path.write_bytes(path.read_bytes()[:-30])
    result = imported(folder)
    assert result.code == 1 and not result.folder.exists() and result.err.count("error: ") == 1
    assert "no short-axis cine is left without" in result.err and "left_out.csv" not in result.out
    assert "files left out (cine sa …): damaged: " in result.err


def test_equal_uids_of_other_images_are_said(study, imported):
    folder, files = study(extras=True)
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in folder.rglob("I0*")]
    assert len(uids) == len(set(uids))
    (flow, *_) = sorted((folder / "DICOM" / "S00090").iterdir())
    edit(flow, lambda dataset: setattr(dataset, "SOPInstanceUID", uid_of(files[0])))
    result = imported(folder)
    assert_same(result, cine(), short_axis())
    assert "1 file left out: has the UID of another image" in result.err
    (row,) = [row for row in result.rows("left_out.csv") if row["why"].startswith("has the UID")]
    assert (row["study"], row["series"], row["description"]) == ("S001", "90", "flow ao …")


def uid_of(path):
    return pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID


def test_of_a_slice_acquired_twice_the_later_is_taken(study, imported, tmp_path):
    image, again = cine(), cine(seed=1)
    folder, _ = study(image)
    later = write_dicom_study(tmp_path / "again", again, short_axis(), extras=False, layout="slices")
    for path in later[5:10]:

        def change(dataset):
            dataset.SeriesNumber, dataset.SeriesInstanceUID = 70, "1.2.3.70"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
                f"{dataset.SOPInstanceUID[:50]}.7"
            )

        edit(path, change)
        shutil.copy(path, folder / f"again{path.name}")
    image[:, 1] = again[:, 1]
    result = imported(folder)
    assert_same(result, image, short_axis())
    assert [(why, files) for (_, why), files in result.reasons().items()] == [("acquired again later", 5)]


def test_results_that_a_scanner_made_of_a_stack_do_not_take_its_place(study, imported):
    image = cine(frames=2, slices=2)
    folder, files = study(image)
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.SeriesNumber, dataset.SOPInstanceUID = 900, f"1.2.3.{number}"
        dataset.SeriesInstanceUID = f"1.2.3.{'4' if number < 2 else '5'}"
        dataset.ImageType, dataset.PixelData = ["DERIVED", "SECONDARY", "M"], bytes(len(dataset.PixelData))
        if number >= 2:
            dataset.SamplesPerPixel = 3
        dataset.save_as(f"{path}r")
    result = imported(folder)
    assert_same(result, image, short_axis())
    whys = [why for _, why in result.reasons()]
    assert len(whys) == 2 and "derived from a slice" in whys[0] and "colour images" in whys[1]


@pytest.mark.parametrize("with_phase", [True, False])
def test_flow_on_a_slice_of_the_cine_does_not_take_its_place(study, imported, with_phase):
    """Later, with as many phases, and with pixels of the same size: its phase images give it away, or its sequence does."""
    axial = np.diag([-1.25, -1.25, 9.0, 1.0])
    folder, files = study(affine=axial, extras=True)
    flow = sorted((folder / "DICOM" / "S00090").iterdir())
    if not with_phase:
        shutil.rmtree(folder / "DICOM" / "S00091")
        for place, path in enumerate(files):
            name = f"*tfi2d1_{15 + place // 5}"
            edit(path, lambda dataset, name=name: setattr(dataset, "SequenceName", name))
        for path in flow:
            edit(path, lambda dataset: setattr(dataset, "SequenceName", "*fl2d1_v150in"))
    result = imported(folder)
    assert_same(result, cine(), axial)
    assert "look whether they are slices of the cine" not in result.err
    (why,) = [why for description, why in result.reasons() if description.startswith("flow ao …")]
    assert why == "lies on a slice of the cine, but was acquired in another way than most of its slices"


def test_of_a_slice_acquired_twice_in_one_series_the_later_is_taken(study, imported):
    """A breath-hold is repeated without a new series: instances go on, times begin anew and are those of another heart rate."""
    image = cine(frames=2, slices=3)
    folder, files = study(image, layout="stack")
    for number, path in enumerate(files[2:4]):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber, dataset.SOPInstanceUID = 100 + number, f"1.2.3.{number}"
        dataset.TriggerTime = float(dataset.TriggerTime) * 1.04
        dataset.PixelData = (image[number, 1] + 1).tobytes()
        dataset.save_as(f"{path}a")
    image[:, 1] += 1
    result = imported(folder)
    assert_same(result, image, short_axis())
    assert [(why, files) for (_, why), files in result.reasons().items()] == [("acquired again later", 2)]


def test_of_two_images_at_one_time_the_later_is_taken_and_that_is_said(study, imported):
    image = cine(slices=2)
    folder, files = study(image)
    for number, path in enumerate(files):
        if number % 5 == 2:
            time = pydicom.dcmread(files[number - 1]).TriggerTime
            edit(path, lambda dataset, time=time: setattr(dataset, "TriggerTime", time))
    result = imported(folder)
    assert_same(result, image[[0, 2, 3, 4]], short_axis())
    why = "a later image of the same slice has the same trigger time"
    assert f"S001: 2 images left out: {why}" in result.err
    assert [(reason, files) for (_, reason), files in result.reasons().items()] == [(why, 2)]


def test_a_phase_that_one_slice_lacks_is_left_out_of_all(study, imported):
    image = cine(frames=10, slices=3)
    folder, files = study(image)
    files[13].unlink()
    result = imported(folder)
    assert_same(result, image[[0, 1, 2, 4, 5, 6, 7, 8, 9]], short_axis())
    assert "9 of 10 phases are kept" in result.err
    assert [(why, files) for (_, why), files in result.reasons().items()] == [
        ("a phase that not every slice has", 2)
    ]


def test_a_slice_that_lacks_many_phases_is_left_out_at_an_end_and_refused_in_the_middle(study, imported):
    folder, files = study()
    for path in files[2:5]:
        path.unlink()
    result = imported(folder)
    assert_same(result, cine()[:, 1:], short_axis() @ translation(z=1))
    assert "left out at its ends: 1 slice (2 phases where its neighbours have 5)" in result.err
    for path in files[11:15]:
        path.unlink()
    result = imported(folder)
    assert result.code == 1 and not result.folder.exists()
    assert (
        result.err.count("error: ") == 1 and "slices in its middle lack images (1 phase where" in result.err
    )


def test_missing_and_irregular_slices_are_named(study, imported):
    folder, files = study(cine(frames=2))
    for path in files[2:4]:
        path.unlink()
    result = imported(folder)
    assert result.code == 1
    assert "missing from the middle of the stack, which are 10 mm apart: 1 between" in result.err
    folder, files = study(cine(frames=2), name="irregular")
    for path in files[6:8]:
        edit(path, move)
    result = imported(folder)
    assert_same(result, cine(frames=2)[:, :3], short_axis())
    assert "one slice lies off the regular distances of the others and is left out" in result.err
    for path in files[2:4]:
        edit(path, move)
    result = imported(folder)
    assert result.code == 1 and "from a regular grid; expected at most 0.5 mm" in result.err


def move(dataset):
    normal = np.cross(*np.reshape(dataset.ImageOrientationPatient, (2, 3)))
    dataset.ImagePositionPatient = [f"{x:.8f}" for x in np.array(dataset.ImagePositionPatient) + 2 * normal]
