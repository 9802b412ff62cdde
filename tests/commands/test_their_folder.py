"""`UTSEG_RAW` at somebody's `nnUNet_raw`: its datasets by number and name, and nothing is written there."""

from pathlib import Path

import pytest
from commandline import assert_refused
from inprocess import Typed
from rawfiles import make_nnunet


def test_numbers_and_names_find_a_dataset_of_nnunets_folder(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
):
    theirs = tmp_path / "nnUNet_raw"
    make_nnunet(theirs / "Dataset027_Heart", subjects=1, size_zyx=(3, 36, 32))
    make_nnunet(theirs / "Dataset127_Heart", subjects=1, size_zyx=(3, 36, 32))
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    monkeypatch.setenv("UTSEG_RAW", str(theirs))
    monkeypatch.setenv("UTSEG_HOME", str(tmp_path / "ours"))

    def call(name: str):
        words = ("-d", name, "--fingerprint-only", "-np", 0)
        return typed("utseg_plan_and_preprocess", *words, home=None)

    for name in ("27", "Dataset027_Heart"):
        assert call(name).returncode == 0
    assert_refused(call("Heart"), "several are meant by it: Dataset027_Heart, Dataset127_Heart", code=2)
    assert [path.name for path in (tmp_path / "ours/preprocessed").iterdir()] == ["Dataset027_Heart"]
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
