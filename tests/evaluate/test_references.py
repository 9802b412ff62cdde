"""What `-g` may be: a dataset, a part of one, or a plain folder of labels. By names alone, where the layout allows it."""

import json
import shutil
from pathlib import Path

import pytest
from rawfiles import LABELS, make_mnms, make_nnunet

from utseg.errors import CaseErrors, InputError
from utseg.evaluate.pairs import files_by_case, match
from utseg.evaluate.references import find_references

SIZE = (2, 8, 9)


@pytest.fixture
def heart(tmp_path: Path) -> Path:
    return make_nnunet(tmp_path / "raw" / "Heart", subjects=2, size_zyx=SIZE)


def plain(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names(folder: Path, predictions: Path | None = None) -> list[str]:
    return [case.case_id for case in find_references(folder, predictions or folder / "out").cases]


@pytest.mark.parametrize("linked", ["nothing", "files", "folder", "dataset"])
def test_a_part_of_an_nnunet_dataset_has_its_groups_whatever_is_a_link(heart, tmp_path, linked):
    labels, store = heart / "labelsTr", tmp_path / "store"
    if linked == "files":
        store.mkdir()
        for path in list(labels.iterdir()):
            path.rename(store / path.name)
            path.symlink_to(store / path.name)
    elif linked == "folder":
        labels.rename(store)
        labels.symlink_to(store)
    elif linked == "dataset":
        heart.rename(store)
        heart.symlink_to(store)
    for folder in (heart, labels):
        cases = find_references(folder, tmp_path).cases
        assert [case.case_id for case in cases] == ["s00_ED", "s00_ES", "s01_ED", "s01_ES"]
        assert {case.groups["vendor"] for case in cases} == {"A", "B"}


def test_every_level_of_the_mnms_layout(tmp_path):
    make_mnms(tmp_path, subjects=1, place="OpenDataset/Training/Labeled", size_zyx=SIZE)
    make_mnms(tmp_path, subjects=1, first=1, place="OpenDataset/Testing", size_zyx=SIZE)
    training, testing = ["A0B0C0_ED", "A0B0C0_ES"], ["A1B1C1_ED", "A1B1C1_ES"]
    inner = tmp_path / "OpenDataset"
    assert names(tmp_path) == names(inner) == training + testing
    assert names(inner / "Training") == names(inner / "Training" / "Labeled") == training
    assert names(inner / "Testing") == names(inner / "Testing" / "A1B1C1") == testing


def test_a_folder_that_merely_lies_in_a_dataset_is_plain(heart, tmp_path):
    folder = plain(heart / "others" / "labels", "x.nii.gz")
    with pytest.raises(InputError, match="names of the labels are not known"):
        find_references(folder, tmp_path)


@pytest.mark.parametrize("place", ["labels", "Testing", "labelsTr"])
def test_a_description_beside_plain_labels_names_them(heart, tmp_path, place):
    folder = plain(tmp_path / "mine" / place, "x.nii.gz", "y.nii")
    shutil.copy(heart / "dataset.json", folder)
    references = find_references(folder, tmp_path)
    assert [case.case_id for case in references.cases] == ["x", "y"]
    assert dict(references.labels) == LABELS
    if place == "labelsTr":
        (folder / "dataset.json").rename(folder.parent / "dataset.json")
        assert find_references(folder, tmp_path) == references


def test_two_references_of_one_name_are_refused(tmp_path):
    with pytest.raises(CaseErrors, match=r"a\.nii\.gz and a\.nii; keep one"):
        names(plain(tmp_path, "a.nii", "a.nii.gz"))


def test_the_record_of_the_predictions_names_the_labels(tmp_path):
    folder, record = plain(tmp_path / "labels", "a.nii.gz"), tmp_path / "prediction.json"
    record.write_text(json.dumps({"labels": LABELS}))
    assert find_references(folder, tmp_path).labels == LABELS
    for wrong in (
        [],
        {},
        {"labels": []},
        {"labels": {"a": "1"}},
        {"labels": {"a": True}},
        {"labels": {"a": 1.5}},
    ):
        record.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"prediction\.json: labels: expected") as caught:
            find_references(folder, tmp_path)
        assert "\n" not in str(caught.value)


def test_predictions_without_reference_are_listed_in_one_line(tmp_path):
    folder = plain(tmp_path, "a.nii.gz", "b.nii", "c.nii.gz", ".d.nii.gz")
    assert list(files_by_case(folder)) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"no reference for 3 predictions: a, b, c; .*--only-referenced"):
        match((), folder, refuse_extra=True)
