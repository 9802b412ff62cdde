"""The native M&Ms layout: what becomes a case, what a warning, what an error."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawfiles
from rawfiles import MNMS_CSV, make_mnms, write_rows

from utseg.errors import CaseErrors, InputError, UtsegError
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_mnms(tmp_path / "MnM", size_zyx=(3, 12, 14))


def table_of(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    with (folder / MNMS_CSV).open(newline="") as handle:
        reader = csv.DictReader(handle)
        return list(reader.fieldnames or []), list(reader)


def rewrite(
    folder: Path, change: Any = None, columns: Any = None, name: str = MNMS_CSV, **options: Any
) -> None:
    """Rewrites the CSV: each row through `change` (None removes it), the columns through `columns`."""
    names, rows = table_of(folder)
    if change is not None:
        rows = [row for row in map(change, rows) if row is not None]
    names = columns(names) if columns is not None else names
    (folder / MNMS_CSV).unlink()
    write_rows(folder / name, names, [[row.get(column, "") for column in names] for row in rows], **options)


def set_first(**values: str) -> Any:
    """A change of the first subject's row."""
    return lambda row: row | values if row["External code"] == "A0B0C0" else row


def test_each_subject_gives_ed_and_es_whichever_comes_first(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert dataset.layout == "mnms" and dataset.name == "MnM" and dataset.warnings == ()
    assert dict(dataset.labels) == rawfiles.LABELS
    found = {
        case.case_id: (case.subject, case.frame, case.phase, case.groups["vendor"]) for case in dataset.cases
    }
    assert found == {
        "A0B0C0_ED": ("A0B0C0", 0, "ED", "A"),
        "A0B0C0_ES": ("A0B0C0", 2, "ES", "A"),
        "A1B1C1_ED": ("A1B1C1", 2, "ED", "B"),
        "A1B1C1_ES": ("A1B1C1", 0, "ES", "B"),
        "A2B2C2_ED": ("A2B2C2", 0, "ED", "A"),
        "A2B2C2_ES": ("A2B2C2", 2, "ES", "A"),
    }
    assert dataset.group_columns == ("vendor", "vendor_name", "centre", "pathology", "phase")
    assert all(dict(case.person) == {"sex": "F"} for case in dataset.cases)
    assert dataset.training_cases() == dataset.cases
    for case in dataset.cases:
        loaded = read_case(case, dataset.labels)
        expected = rawfiles.make_heart(
            (3, 12, 14), seed=int(case.subject[1]), contraction=0.0 if case.phase == "ED" else 2 / 3
        )
        assert np.array_equal(loaded.image_CZYX[0], expected[0]) and np.array_equal(
            loaded.label_ZYX, expected[1]
        )


def test_partitions_follow_the_folders(tmp_path: Path) -> None:
    places = ("Training/Labeled", "Training/Unlabeled", "Validation", "Testing")
    for number, place in enumerate(places):
        make_mnms(tmp_path, subjects=1, place=f"OpenDataset/{place}", first=number, size_zyx=(3, 12, 14))
    dataset = open_dataset(tmp_path)
    assert [(case.subject[1], case.partition, case.label is None) for case in dataset.cases[::2]] == [
        ("0", "training", False),
        ("1", "training", True),
        ("2", "validation", False),
        ("3", "testing", False),
    ]
    assert [case.subject for case in dataset.training_cases()] == ["A0B0C0"] * 2
    assert open_dataset(tmp_path / "OpenDataset").cases == dataset.cases  # the table lies one level above
    (tmp_path / MNMS_CSV).rename(tmp_path / "OpenDataset" / "any name.CSV")
    for again in (open_dataset(tmp_path / "OpenDataset", "x"), open_dataset(tmp_path)):
        assert again.cases == dataset.cases and again.warnings == ()


@pytest.mark.parametrize(
    "options",
    [
        {"separator": ";", "encoding": "utf-8-sig"},
        {"separator": "\t"},
        {"name": "info.csv", "encoding": "utf-8-sig"},
        {"columns": lambda names: sorted(names, reverse=True)},
        {"columns": lambda names: [*names[1:], "Height", "Weight"]},
    ],
)
def test_the_table_is_read_whatever_its_name_order_and_separator(
    folder: Path, options: dict[str, Any]
) -> None:
    before = open_dataset(folder)
    rewrite(folder, **options)
    write_rows(folder / "something_else.csv", ("a", "b"), [("1", "2")])
    assert open_dataset(folder).cases == before.cases


def test_columns_that_are_empty_for_everyone_are_no_groups(folder: Path) -> None:
    rewrite(folder, lambda row: row | {"Pathology": "", "Centre": "nan"})
    assert open_dataset(folder).group_columns == ("vendor", "vendor_name", "phase")


def test_floats_as_a_spreadsheet_writes_them_are_frames(folder: Path) -> None:
    rewrite(folder, lambda row: row | {"ED": row["ED"] + ".0"})
    assert [case.frame for case in open_dataset(folder).cases[:2]] == [0, 2]


def test_equal_frames_or_no_row_make_every_frame_an_unlabelled_case(folder: Path) -> None:
    rewrite(folder, lambda row: None if row["External code"] == "A1B1C1" else set_first(ED="0", ES="0")(row))
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases] == [
        *("A0B0C0_t00", "A0B0C0_t01", "A0B0C0_t02", "A1B1C1_t00", "A1B1C1_t01", "A1B1C1_t02"),
        *("A2B2C2_ED", "A2B2C2_ES"),
    ]
    assert [case.label is None for case in dataset.cases] == [True] * 6 + [False] * 2
    assert dataset.cases[0].groups["vendor"] == "A" and dataset.cases[3].groups == {}
    assert read_case(dataset.cases[1], dataset.labels).image_CZYX.shape == (1, 3, 12, 14)
    no_row, no_frames = sorted(dataset.warnings, key=lambda text: "ED and ES" in text)
    assert "1 subject folders have no row" in no_row and "A1B1C1" in no_row
    assert "2 labelled subjects have no ED and ES" in no_frames


def test_a_label_that_is_absent_or_all_zero_is_no_label_and_said_in_one_line(folder: Path) -> None:
    subject = folder / "Training" / "Labeled"
    rawfiles.corrupt(subject / "A0B0C0" / "A0B0C0_sa_gt.nii.gz", "background only")
    (subject / "A1B1C1" / "A1B1C1_sa_gt.nii.gz").unlink()
    dataset = open_dataset(folder)
    assert [case.subject for case in dataset.training_cases()] == ["A2B2C2"] * 2 and len(dataset.cases) == 6
    assert len(dataset.warnings) == 2 and any("without any label" in text for text in dataset.warnings)


def test_subjects_without_a_folder_are_counted_in_one_line(folder: Path) -> None:
    for code in ("A0B0C0", "A2B2C2"):
        shutil.rmtree(folder / "Training" / "Labeled" / code)
    dataset = open_dataset(folder)
    assert len(dataset.cases) == 2
    (warning,) = dataset.warnings
    assert "2 subjects in the CSV have no folder" in warning and "A0B0C0, A2B2C2" in warning


def test_damaged_files_are_left_to_the_gate(folder: Path) -> None:
    subject = folder / "Training" / "Labeled" / "A0B0C0"
    rewrite(folder, lambda row: None if row["External code"] == "A0B0C0" else row)
    for name in ("A0B0C0_sa.nii.gz", "A0B0C0_sa_gt.nii.gz"):
        rawfiles.corrupt(subject / name, "empty")
    rawfiles.corrupt(folder / "Training" / "Labeled" / "A1B1C1" / "A1B1C1_sa_gt.nii.gz", "truncated")
    (folder / "Training" / "Labeled" / "A2B2C2" / "A2B2C2_sa.nii.gz").unlink()
    dataset = open_dataset(folder)
    problems = []
    for case in dataset.cases:
        with pytest.raises(CaseErrors) as caught:
            read_case(case, dataset.labels)
        problems += caught.value.lines()
    assert len(problems) == 5
    assert "the file is empty" in problems[0] and "cut off" in problems[1]
    assert "the image is missing" in problems[3] and "A2B2C2_sa_gt.nii.gz" in problems[3]


def test_a_frame_beyond_the_file_is_refused_and_names_the_table(folder: Path) -> None:
    rewrite(folder, set_first(ED="3"))
    with pytest.raises(CaseErrors, match=r"labels lie on frames 0 and 2 of A0B0C0_sa_gt.*says ED 3, ES 2"):
        open_dataset(folder)
    (folder / "Training" / "Labeled" / "A0B0C0" / "A0B0C0_sa_gt.nii.gz").unlink()
    dataset = open_dataset(folder)
    with pytest.raises(CaseErrors, match=r"case A0B0C0_ED.*frame 3 .*\(0 to 2\); check ED and ES in the CSV"):
        read_case(dataset.cases[0], dataset.labels)


@pytest.mark.parametrize(
    "change, message",
    [
        (set_first(ED="first"), "line 2: subject A0B0C0: ED is 'first'; expected a frame number"),
        (set_first(ES="-1"), "ES is '-1'"),
        (set_first(ES="1.5"), "ES is '1.5'"),
        (set_first(**{"External code": ""}), "line 2: no subject code"),
        (set_first(**{"External code": "A1B1C1"}), "'A1B1C1' is there 2 times"),
        (set_first(**{"External code": "a1B1C1"}), "differ by letter case only"),
        (set_first(**{"External code": "../../A1B1C1"}), "has a path in it"),
        (set_first(**{"External code": "C:\\A"}), "has a path in it"),
    ],
)
def test_rows_that_make_no_sense_are_errors(folder: Path, change: Any, message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(UtsegError) as caught:
        open_dataset(folder)
    (line,) = caught.value.lines()
    assert message in line and MNMS_CSV in line


def test_a_subject_in_two_partitions_is_an_error(folder: Path) -> None:
    shutil.copytree(folder / "Training" / "Labeled" / "A0B0C0", folder / "Testing" / "A0B0C0")
    with pytest.raises(CaseErrors, match="'A0B0C0' is there 2 times"):
        open_dataset(folder)
    (folder / "Testing" / "A0B0C0").rename(folder / "Testing" / "a0B0C0")
    with pytest.raises(CaseErrors, match="letter case"):
        open_dataset(folder)


def test_a_missing_or_doubtful_table_is_an_error_that_says_what_was_found(folder: Path) -> None:
    shutil.copy(folder / MNMS_CSV, folder / "copy.csv")
    with pytest.raises(InputError, match=r"several CSVs .*copy\.csv"):
        open_dataset(folder)
    (folder / MNMS_CSV).unlink()
    write_rows(folder / "copy.csv", ("External code", "ED"), [])
    with pytest.raises(InputError, match=r"found copy\.csv has External code, ED"):
        open_dataset(folder)
    (folder / "copy.csv").unlink()
    with pytest.raises(InputError, match="found no CSV"):
        open_dataset(folder)


def test_folders_of_no_layout_are_refused_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(InputError, match=r"not a raw dataset.*found scan\.nii\.gz"):
        open_dataset(tmp_path)
    (tmp_path / "Training").mkdir()
    with pytest.raises(InputError, match="no subject folders"):
        open_dataset(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(InputError, match="several layouts"):
        open_dataset(tmp_path)
