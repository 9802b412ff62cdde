"""`sources.json`: where the files of a scores folder lie, wherever the folder is moved together with them."""

import shutil

import pytest

from utseg.case import Case
from utseg.errors import SettingError
from utseg.evaluate.sources import SOURCES_FILE, read_sources, sources_of
from utseg.files import sha256

LABELS = {"background": 0, "LV": 1}


def make_tree(folder):
    for name in ("raw/a_0000.nii.gz", "raw/a.nii.gz", "masks/a.nii.gz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "scores").mkdir()
    case = Case("a", "a", (folder / "raw" / "a_0000.nii.gz",), folder / "raw" / "a.nii.gz", frame=3)
    scores, masks = folder / "scores", folder / "masks"
    text = sources_of([(case, masks / "a.nii.gz")], LABELS, scores, LABELS, {"LV": 2})
    (scores / SOURCES_FILE).write_text(text)


def test_moved_together_the_files_are_found(tmp_path):
    make_tree(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    scores = tmp_path / "there" / "scores"
    sources = read_sources(scores)
    source = sources.cases["a"]
    assert sources.labels == sources.reference_labels == LABELS and source.frame == 3
    assert sources.mask_labels == {"LV": 2}
    assert (scores / source.images[0]).read_text() == "raw/a_0000.nii.gz"
    assert sha256(scores / source.reference) == source.reference_sha256
    assert sha256(scores / source.prediction) == source.prediction_sha256


def test_an_unknown_key_is_named(tmp_path):
    (tmp_path / SOURCES_FILE).write_text('{"labels": {}, "cases": {}, "casez": 1}')
    with pytest.raises(SettingError, match="unknown key 'casez'"):
        read_sources(tmp_path)
