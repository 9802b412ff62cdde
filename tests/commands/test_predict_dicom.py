"""`utseg_predict` on DICOM as it comes: imported on the way, masks on the cine's voxels, DICOM Segmentation of each."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from tiny_models import make_run_folder

from utseg.commands.import_dicom import main as import_dicom
from utseg.commands.predict import main
from utseg.dicom.segmentation import read_segmentation
from utseg.dicom.sources import read_sources
from utseg.phantom.dicom import Patient, write_dicom_study

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
FRAMES, SLICES = 4, 3


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    folder = make_run_folder(home / "results" / "Tiny")
    (folder / "validation").mkdir()
    (folder / "validation" / "summary.json").write_text("{}")
    return home


@pytest.fixture(scope="module")
def scanner(tmp_path_factory):
    """Studies of three patients; one lacks a slice in the middle, for which it is refused."""
    folder = tmp_path_factory.mktemp("scanner")
    affine = np.diag([-1.4, -1.4, 9.0, 1.0])
    image = np.random.default_rng(1).integers(0, 900, (FRAMES, SLICES, 21, 30)).astype(np.uint16)
    write_dicom_study(folder / "a", image, affine, extras=False)
    write_dicom_study(folder / "b", image + 1, affine, patient=Patient("Doe^J", "X-1"), extras=False)
    more = np.concatenate([image, image], axis=1)
    paths = write_dicom_study(folder / "c", more, affine, patient=Patient("Roe^R", "X-2"), extras=False)
    for path in paths[2 * FRAMES : 3 * FRAMES]:
        path.unlink()
    return folder


@pytest.fixture
def predict(home, tmp_path, capfd, monkeypatch):
    """Runs the command, in this process alone; returns the exit code and the lines of stderr that are errors."""
    monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 1000)

    def call(source: Path, *words: object) -> tuple[int, list[str]]:
        arguments = [
            "-i",
            source,
            "-o",
            tmp_path / "out",
            "--home",
            home,
            "--device",
            "cpu",
            "-np",
            1,
            *words,
        ]
        code = main([str(word) for word in arguments])
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return code, [line for line in said.splitlines() if line.startswith("error: ")]

    return call


def test_from_a_scanner_s_folder_to_masks_and_dicom_segmentation(predict, scanner, tmp_path):
    """A study that is refused is an error, and the others are done. Each object reads back to the mask; --resume makes what is missing."""
    out = tmp_path / "out"
    code, (line,) = predict(scanner, "--dicom-seg")
    assert code == 1 and line.startswith("error: S003: ")
    masks = {}
    for cine in ("S001", "S002"):
        stored = nibabel.load(out / f"{cine}.nii.gz")
        image = nibabel.load(out / "images" / f"{cine}.nii.gz")
        np.testing.assert_array_equal(stored.affine, image.affine)
        masks[cine] = np.asanyarray(stored.dataobj).T
        sources = read_sources(out / "images", cine)
        seg = out / "dicom" / f"{cine}_seg.dcm"
        np.testing.assert_array_equal(read_segmentation(seg, sources, LABELS), masks[cine])
        assert pydicom.dcmread(seg).StudyInstanceUID == sources.study_instance_uid
    assert masks["S001"].shape == (FRAMES, SLICES, 21, 30) and len(np.unique(masks["S001"])) > 1
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        *("S001.nii.gz", "S002.nii.gz", "dicom", "images", "prediction.json", "quality.csv")
    ]
    record = json.loads((out / "prediction.json").read_text())
    assert {name: case["frames"] for name, case in record["cases"].items()} == {"S001": 4, "S002": 4}

    code, (line,) = predict(scanner)
    assert (
        code == 1
        and f"{out / 'images'}: cines of an earlier run are there; go on with them by --resume" in line
    )
    code, (line,) = predict(scanner / "a", "--resume")
    assert code == 1 and f"holds cines of {scanner}, not of {scanner / 'a'}" in line
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    first = (out / "dicom" / "S001_seg.dcm").read_bytes()
    shutil.rmtree(out / "dicom")
    (out / "S002.nii.gz").unlink()
    assert predict(scanner, "--resume", "--dicom-seg") == (0, [])
    assert [path for path in kept if path.stat().st_mtime_ns != kept[path]] == [out / "S002.nii.gz"]
    uid = "SOPInstanceUID"
    again = pydicom.dcmread(out / "dicom" / "S001_seg.dcm")
    assert again[uid] == pydicom.dcmread(pydicom.filebase.DicomBytesIO(first))[uid]


def test_segmentation_objects_of_what_was_imported_and_of_nothing_else(predict, scanner, tmp_path):
    assert import_dicom([str(scanner / "a"), "-o", str(tmp_path / "cines")]) == 0
    assert predict(tmp_path / "cines", "--dicom-seg") == (0, [])
    assert (tmp_path / "out" / "dicom" / "S001_seg.dcm").is_file()
    shutil.rmtree(tmp_path / "out")

    (tmp_path / "cines" / "S001.nii.gz").rename(tmp_path / "other.nii.gz")
    code, (line,) = predict(tmp_path / "other.nii.gz", "--dicom-seg")
    assert code == 1 and "--dicom-seg: not known which DICOM frames other came from" in line
    code, (line,) = predict(scanner, "--part", "1/2")
    assert code == 1 and "DICOM" in line
    code, (line,) = predict(scanner, "--part", "1/2", "--dicom-seg")
    assert code == 2 and "--resume --dicom-seg afterwards" in line
    assert not list((tmp_path / "out").glob("*.nii.gz"))
