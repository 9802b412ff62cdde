"""What `-i` may be, by names alone."""

from pathlib import Path

import numpy as np
import pytest

from utseg.errors import CaseErrors, InputError
from utseg.predict.inputs import check_output, find_inputs
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.write import write_mask

ONE = ("cine-MRI",)
TWO = ("T1", "T2")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def found(path: Path, channels: tuple[str, ...] = ONE) -> dict[str, list[str]]:
    return {case.case_id: [image.name for image in case.images] for case in find_inputs(path, channels).cases}


def test_a_folder_of_images_of_every_format(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii", "c.mha", "d.nrrd", "A1.x.nii.gz")
    assert found(tmp_path) == {
        "A1.x": ["A1.x.nii.gz"],
        "a": ["a.nii"],
        "b": ["b.nii.gz"],
        "c": ["c.mha"],
        "d": ["d.nrrd"],
    }


def test_what_is_left_out_is_named_but_for_what_macos_leaves(tmp_path):
    touch(tmp_path, ".unseen.nii.gz", ".DS_Store", "._a.nii.gz", "a.nii.gz", "notes.txt", "deeper/b.nii.gz")
    inputs = find_inputs(tmp_path, ONE)
    assert [case.case_id for case in inputs.cases] == ["a"]
    hidden, warning = inputs.warnings
    assert "named with a dot first: .unseen.nii.gz" in hidden
    assert "notes.txt" in warning
    assert "deeper" in warning
    assert "._a" not in hidden + warning


def test_the_label_beside_an_mnms_image_is_not_an_input(tmp_path):
    touch(tmp_path, "A0_sa.nii.gz", "A0_sa_gt.nii.gz", "B_gt.nii.gz")
    inputs = find_inputs(tmp_path, ONE)
    assert [case.case_id for case in inputs.cases] == ["A0_sa", "B_gt"]
    assert "A0_sa_gt.nii.gz" in inputs.warnings[0]


def test_an_nnunet_image_folder(tmp_path):
    touch(tmp_path, "p1_0000.nii.gz", "p2_0000.nii.gz")
    assert found(tmp_path) == {"p1": ["p1_0000.nii.gz"], "p2": ["p2_0000.nii.gz"]}


def test_channels_are_put_together_in_their_order(tmp_path):
    touch(tmp_path, "p1_0001.nii.gz", "p1_0000.nii.gz", "p2_0000.nii.gz", "p2_0001.nii.gz")
    assert found(tmp_path, TWO) == {
        "p1": ["p1_0000.nii.gz", "p1_0001.nii.gz"],
        "p2": ["p2_0000.nii.gz", "p2_0001.nii.gz"],
    }
    assert found(tmp_path / "p2_0000.nii.gz", TWO) == {"p2": ["p2_0000.nii.gz", "p2_0001.nii.gz"]}


def test_a_year_at_the_end_of_a_name_is_no_channel(tmp_path):
    touch(tmp_path, "scan_2019.nii.gz", "scan_2020.nii.gz")
    assert found(tmp_path) == {"scan_2019": ["scan_2019.nii.gz"], "scan_2020": ["scan_2020.nii.gz"]}


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (("p_0000.nii.gz", "p_0001.nii.gz"), ONE),
        (("p_0000.nii.gz",), TWO),
        (("p_0001.nii.gz",), TWO),
        (("p.nii.gz",), TWO),
        (("p_0000.nii.gz", "p_0002.nii.gz"), TWO),
    ],
)
def test_other_channels_than_the_models_are_refused_and_listed(tmp_path, names, channels):
    touch(tmp_path, *names)
    with pytest.raises(CaseErrors) as error:
        find_inputs(tmp_path, channels)
    (line,) = error.value.lines()
    assert line.startswith("p: ")
    assert f"the model needs {len(channels)}" in line
    assert all(name in line for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ("a.nii", "a.nii.gz"),
        ("a.nii", "a.mha"),
        ("a.nii", "A.nii"),
        ("a_0000.nii.gz", "a_0000.nii"),
        ("a_0000.nii", "a.nii"),
    ],
)
def test_clashes_of_names_are_refused(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(CaseErrors) as error:
        find_inputs(tmp_path, ONE)
    assert any("there 2 times" in line or "letter case" in line for line in error.value.lines())


@pytest.mark.parametrize("names", [(), ("notes.txt",), (".a.nii.gz",)])
def test_a_folder_without_images_is_refused(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match="no image is there"):
        find_inputs(tmp_path, ONE)


def test_no_such_path_and_no_image(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        find_inputs(tmp_path / "nothing", ONE)
    with pytest.raises(InputError, match="not an image by its name"):
        find_inputs(touch(tmp_path, "a.txt") / "a.txt", ONE)


def test_one_file(tmp_path):
    touch(tmp_path, "a.nii.gz", "b_0000.nii.gz", "c.nii.gz")
    assert found(tmp_path / "a.nii.gz") == {"a": ["a.nii.gz"]}
    assert found(tmp_path / "b_0000.nii.gz") == {"b": ["b_0000.nii.gz"]}


def test_a_raw_nnunet_dataset_gives_all_its_cases_without_labels(tmp_path):
    touch(tmp_path, "imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz", "imagesTs/p2_0000.nii.gz")
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "LV": 1}, "file_ending": ".nii.gz", "numTraining": 1}'
    )
    cases = find_inputs(tmp_path, ONE).cases
    assert {case.case_id for case in cases} == {"p1", "p2"}
    assert all(case.label is None for case in cases)


def test_an_mnms_folder_gives_known_frames_and_whole_cines(tmp_path):
    geometry = Geometry((2, 4, 5), tuple(tuple(row) for row in np.eye(4).tolist()))
    for code in ("A1", "B2"):
        folder = tmp_path / "Training" / "Labeled" / code
        folder.mkdir(parents=True)
        write_mask(folder / f"{code}_sa.nii.gz", np.zeros((3, 2, 4, 5), np.uint8), geometry)
    (tmp_path / "info.csv").write_text("External code,Vendor,Centre,ED,ES\nA1,A,1,2,0\nB2,B,2,0,0\n")
    cases = {case.case_id: case.frame for case in find_inputs(tmp_path, ONE).cases}
    assert cases == {"A1_ED": 2, "A1_ES": 0, "B2": None}


def test_a_partition_of_an_mnms_dataset_is_its_own_cases(tmp_path):
    geometry = Geometry((2, 4, 5), tuple(tuple(row) for row in np.eye(4).tolist()))
    for place, code in (("Training/Labeled", "A1"), ("Testing", "B2")):
        (tmp_path / place / code).mkdir(parents=True)
        write_mask(tmp_path / place / code / f"{code}_sa.nii.gz", np.zeros((3, 2, 4, 5), np.uint8), geometry)
    (tmp_path / "info.csv").write_text("External code,Vendor,Centre,ED,ES\nA1,A,1,2,0\nB2,B,2,0,1\n")
    for place, code in (("Training/Labeled", "A1"), ("Training/Labeled/", "A1"), ("Testing", "B2")):
        assert {case.subject for case in find_inputs(tmp_path / place, ONE).cases} == {code}
    assert found(tmp_path / "Testing" / "B2") == {"B2_sa": ["B2_sa.nii.gz"]}


@pytest.mark.parametrize("links", ["files", "subjects", "partition"])
def test_links_are_inputs_wherever_they_lead(tmp_path, links):
    geometry = Geometry((2, 4, 5), tuple(tuple(row) for row in np.eye(4).tolist()))
    store, raw = tmp_path / "store", tmp_path / "raw" / "OpenDataset"
    (store / "B2").mkdir(parents=True)
    write_mask(store / "B2" / "B2_sa.nii.gz", np.zeros((3, 2, 4, 5), np.uint8), geometry)
    raw.mkdir(parents=True)
    if links == "partition":
        (raw / "Testing").symlink_to(store)
    elif links == "subjects":
        (raw / "Testing").mkdir()
        (raw / "Testing" / "B2").symlink_to(store / "B2")
    else:
        (raw / "Testing" / "B2").mkdir(parents=True)
        (raw / "Testing" / "B2" / "B2_sa.nii.gz").symlink_to(store / "B2" / "B2_sa.nii.gz")
    (tmp_path / "raw" / "info.csv").write_text("External code,Vendor,Centre,ED,ES\nB2,B,2,0,1\n")
    for path in (raw / "Testing", raw, raw.parent):
        assert found(path) == {"B2_ED": ["B2_sa.nii.gz"], "B2_ES": ["B2_sa.nii.gz"]}


def test_a_folder_of_images_may_be_called_as_a_partition_or_hold_a_description(tmp_path):
    touch(tmp_path / "Testing", "a.nii.gz", "dataset.json")
    assert found(tmp_path / "Testing") == {"a": ["a.nii.gz"]}


def test_masks_never_come_to_lie_among_the_images(tmp_path):
    touch(tmp_path, "in/a.nii.gz")
    for path in (tmp_path / "in", tmp_path / "in" / "a.nii.gz"):
        with pytest.raises(InputError, match="lies in the input folder"):
            check_output(path, tmp_path / "in")
    with pytest.raises(InputError, match="lies in the input folder"):
        check_output(tmp_path / "in", tmp_path / "in" / "masks")
    check_output(tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "masks")
    check_output(tmp_path / "in", tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="lies in the input folder"):
        check_output(tmp_path / "in", tmp_path / "link")
