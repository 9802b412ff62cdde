"""Clinical measures of real reference labels, against a computation that shares nothing with ours: voxels counted by nibabel and numpy."""

import csv
import shutil

import nibabel
import numpy as np
import pytest
from commandline import run_command

SUBJECTS = ("patient001", "patient007", "patient013")
LABELS = {"LV": 1, "MYO": 2, "RV": 3}


@pytest.fixture(scope="module")
def volumes_ml(shared):
    """Millilitres by subject, phase and label."""
    found = {}
    for subject in SUBJECTS:
        for phase in ("ED", "ES"):
            image = nibabel.load(shared / "data" / "raw" / "ACDC" / "labelsTr" / f"{subject}_{phase}.nii.gz")
            voxel_ml = float(np.prod(image.header.get_zooms()[:3])) / 1000
            voxels = np.asarray(image.dataobj)
            for name, value in LABELS.items():
                found[subject, phase, name] = np.count_nonzero(voxels == value) * voxel_ml
    return found


@pytest.mark.slow
def test_references_against_themselves_are_perfect_and_measured_right(shared, volumes_ml, tmp_path):
    raw = shared / "data" / "raw" / "ACDC"
    (tmp_path / "masks").mkdir()
    for subject in SUBJECTS:
        for phase in ("ED", "ES"):
            shutil.copy(raw / "labelsTr" / f"{subject}_{phase}.nii.gz", tmp_path / "masks")
    words = ("-p", tmp_path / "masks", "-g", raw, "-o", tmp_path / "scores", "--only-predicted")
    result = run_command("utseg_evaluate", *words)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "scores" / "metrics.csv").open() as handle:
        scores = list(csv.DictReader(handle))
    assert len(scores) == 2 * 3 * len(SUBJECTS)
    assert {(float(row["dice"]), float(row["hd95_mm"]), float(row["assd_mm"])) for row in scores} == {
        (1, 0, 0)
    }
    with (tmp_path / "scores" / "clinical.csv").open() as handle:
        measures = list(csv.DictReader(handle))
    assert len(measures) == 9 * len(SUBJECTS)
    for row in measures:
        name, _, what = row["measure"].partition("_")
        ed, es = (volumes_ml[row["subject"], phase, name] for phase in ("ED", "ES"))
        wall_g = 1.05 * volumes_ml[row["subject"], "ED", "MYO"]
        expected = {"EDV": ed, "ESV": es, "SV": ed - es, "EF": 100 * (ed - es) / ed, "mass": wall_g}[what]
        assert float(row["reference"]) == pytest.approx(expected, rel=1e-5), row
        assert float(row["prediction"]) == pytest.approx(expected, rel=1e-5), row
