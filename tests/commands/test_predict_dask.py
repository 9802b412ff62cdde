"""`utseg_predict --dask`: parts on a cluster's workers give the files of one run here."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
from distributed import LocalCluster

from utseg.commands.predict import main
from utseg.commands.predict_parts import without_dask
from utseg.predict import pipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Three small volumes in a folder below the current one, named as a user does."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 900, (24, 24, 3)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([1.4, 1.4, 9, 1])), folder / f"p{number}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return Path("scans")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def test_parts_on_a_cluster_give_the_files_of_one_run(tiny_model, scans, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 10)
    words = ["-i", str(scans), "--home", str(tiny_model), "--device", "cpu", "--save-entropy", "-o"]
    assert main([*words, "here"]) == 0
    flagged = [line for line in capfd.readouterr().err.splitlines() if "looked at" in line]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        assert main([*words, "there", "--dask", cluster.scheduler_address]) == 0
        told = capfd.readouterr().err
        (scans / "p1.nii.gz").write_bytes(b"no scan")
        alone = ["-i", str(scans / "p1.nii.gz"), *words[2:], "bad"]
        assert main([*alone, "--dask", cluster.scheduler_address]) == 1
        errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert main([*words, "there", "--dask", cluster.scheduler_address, "--part", "1/2"]) == 2
    there = contents(tmp_path / "there")
    assert there == contents(tmp_path / "here")
    assert {Path("p0.nii.gz"), Path("prediction.json"), Path("entropy/p2_entropy.nii.gz")} <= there.keys()
    assert len(flagged) == 1 and told.count("looked at") == 2  # each part warns of its own
    assert len(errors) == 1 and "p1" in errors[0]


def test_the_address_is_the_only_word_that_parts_do_not_get():
    assert without_dask(["-i", "a", "--dask", "tcp://b:1", "-o", "c"]) == ["-i", "a", "-o", "c"]
    assert without_dask(["--dask=tcp://b:1", "-i", "a"]) == ["-i", "a"]
