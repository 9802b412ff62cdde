"""The nnU-Net layout: `dataset.json`, `cases.csv`, and which files make a case."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawfiles
from rawfiles import LABELS, change_json, make_nnunet, write_rows

from utseg.errors import CaseErrors, InputError, SettingError, UtsegError
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case

COLUMNS = ("case", "subject", "phase", "vendor")
ROWS = [(f"s{n:02d}_{phase}", f"s{n:02d}", phase, "AB"[n]) for n in range(2) for phase in ("ED", "ES")]

GROUP_CELLS = [
    ("A", "1", "nan", "x"),
    ("NA", "", "", "x"),
    ("B", "nan", "NA", ""),
    ("B", "2", "", "y"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_nnunet(tmp_path / "set", subjects=2, size_zyx=(2, 8, 9))


def test_cases_carry_what_their_rows_say(folder: Path) -> None:
    dataset = open_dataset(folder, "hearts")
    assert (dataset.name, dataset.layout, dataset.channel_names) == ("hearts", "nnunet", ("channel 0",))
    assert dict(dataset.labels) == LABELS and dataset.warnings == ()
    assert [(case.case_id, case.subject, case.phase, dict(case.groups)) for case in dataset.cases[1:3]] == [
        ("s00_ES", "s00", "ES", {"phase": "ES", "vendor": "A", "centre": "1"}),
        ("s01_ED", "s01", "ED", {"phase": "ED", "vendor": "B", "centre": "2"}),
    ]
    assert len(dataset.training_cases()) == 4
    assert read_case(dataset.cases[0], dataset.labels).image_CZYX.shape == (1, 2, 8, 9)


def test_without_a_table_each_case_is_its_own_subject(folder: Path) -> None:
    (folder / "cases.csv").unlink()
    dataset = open_dataset(folder)
    assert all(case.subject == case.case_id and not case.groups for case in dataset.cases)


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
def test_other_file_endings(tmp_path: Path, ending: str) -> None:
    import SimpleITK

    folder = make_nnunet(tmp_path / "x", subjects=1, ending=".nii", size_zyx=(2, 8, 9))
    for path in [*folder.glob("*/*.nii")]:
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path.with_suffix(ending)))
        if ending != ".nii":
            path.unlink()
    change_json(folder / "dataset.json", file_ending=ending)
    dataset = open_dataset(folder)
    image, label = rawfiles.make_heart((2, 8, 9))
    loaded = read_case(dataset.cases[0], dataset.labels)
    assert np.array_equal(loaded.image_CZYX[0], image) and np.array_equal(loaded.label_ZYX, label)


def test_channels_are_found_by_number_and_a_missing_one_is_left_to_the_gate(tmp_path: Path) -> None:
    folder = make_nnunet(tmp_path / "x", subjects=1, channels=3, size_zyx=(2, 8, 9))
    (folder / "imagesTr" / "s00_ES_0001.nii.gz").unlink()
    dataset = open_dataset(folder)
    assert [path.name for path in dataset.cases[0].images] == [f"s00_ED_000{n}.nii.gz" for n in range(3)]
    with pytest.raises(CaseErrors) as caught:
        read_case(dataset.cases[1], dataset.labels)
    (line,) = caught.value.lines()
    assert "channel 1 is missing" in line and "found: s00_ES_0000.nii.gz, s00_ES_0002.nii.gz" in line


def in_the_older_spelling(folder: Path, *, numbered: bool) -> None:
    """What nnU-Net v1 (images called CASE_0000) or the Decathlon has in place of a dataset.json of today."""
    about = json.loads((folder / "dataset.json").read_text())
    labels = {str(value): name for name, value in about["labels"].items()}
    entries = []
    for path in sorted((folder / "imagesTr").iterdir()):
        name = path.name.replace("_0000.", ".")
        if not numbered:
            path.rename(path.with_name(name))
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    older = {"name": "Heart", "tensorImageSize": "3D", "modality": {"0": "MRI"}, "labels": labels}
    lists = {"numTraining": len(entries), "numTest": 0, "training": entries, "test": []}
    (folder / "dataset.json").write_text(json.dumps(older | lists))


@pytest.mark.parametrize("numbered", [True, False], ids=["v1", "Decathlon"])
def test_the_older_spelling_gives_the_same_dataset(folder: Path, numbered: bool) -> None:
    now = open_dataset(folder, "hearts")
    in_the_older_spelling(folder, numbered=numbered)
    older = open_dataset(folder, "hearts")
    assert (older.labels, older.channel_names, older.warnings) == (now.labels, ("MRI",), now.warnings)
    assert [replace(case, images=()) for case in older.cases] == [
        replace(case, images=()) for case in now.cases
    ]
    for case in older.cases:
        assert read_case(case, older.labels).image_CZYX.shape[0] == 1


def test_test_images_of_the_decathlon_have_no_channel_number(folder: Path) -> None:
    in_the_older_spelling(folder, numbered=False)
    shutil.copytree(folder / "imagesTr", folder / "imagesTs")
    for path in list((folder / "imagesTs").iterdir()):
        path.rename(path.with_name(f"new_{path.name}"))
    testing = [case for case in open_dataset(folder).cases if case.partition == "testing"]
    assert [case.case_id for case in testing] == [
        f"new_s{n:02d}_{phase}" for n in range(2) for phase in ("ED", "ES")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": "imagesTr"}, r"training: expected a list of .*found the text 'imagesTr'"),
        ({"training": [{"image": "./imagesTr/s00_ED.nii.gz"}]}, "training: expected a list of"),
        ({"labels": {"0": "background", "1": "LV", "2": "LV"}}, "a name of its own for each value"),
        ({"file_ending": 5}, "file_ending: expected one of"),
        ({"training": [{"image": "x" * 300, "label": "a.nii.gz"}]}, "training: expected a list of"),
        ({"labels": {"²": "LV"}}, "labels: names come first"),
        ({"labels": {"9" * 5000: "LV"}}, "labels: names come first"),
        ({"channel_names": {"0": "MRI"}}, "training: this list of cases is the format of nnU-Net v1"),
    ],
    ids=str,
)
def test_what_the_older_spelling_cannot_say(folder: Path, changes: Any, message: str) -> None:
    in_the_older_spelling(folder, numbered=False)
    change_json(folder / "dataset.json", **changes)
    with pytest.raises(SettingError, match=message):
        open_dataset(folder)


def test_files_that_are_no_channel_are_all_named(folder: Path) -> None:
    images = folder / "imagesTr"
    for name in ("s09.nii.gz", "s00_ED_0001.nii.gz", ".hidden.nii.gz", "notes.txt"):
        (images / name).touch()
    with pytest.raises(CaseErrors) as caught:
        open_dataset(folder)
    first, second = sorted(caught.value.lines())
    assert "s00_ED_0001.nii.gz: channel 1, but channel_names in dataset.json has 1" in first
    assert "s09.nii.gz: no channel number" in second and "s09_0000.nii.gz" in second


def test_names_that_differ_by_letter_case_only_are_refused(folder: Path) -> None:
    (folder / "imagesTr" / "S00_ed_0000.nii.gz").touch()
    with pytest.raises(CaseErrors, match="'S00_ed', 's00_ED' differ by letter case only"):
        open_dataset(folder)


def test_the_same_case_in_training_and_testing_is_refused(folder: Path) -> None:
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "s00_ED_0000.nii.gz").touch()
    with pytest.raises(CaseErrors, match="'s00_ED' is there 2 times"):
        open_dataset(folder)


def test_testing_cases_have_labels_where_there_are_some(folder: Path) -> None:
    for name in ("imagesTs/t1_0000", "imagesTs/t2_0000", "labelsTs/t1"):
        rawfiles.make_nifti(folder / f"{name}.nii.gz", rawfiles.make_heart((2, 8, 9))[1])
    testing = [case for case in open_dataset(folder).cases if case.partition == "testing"]
    assert [(case.case_id, case.subject, case.label is None) for case in testing] == [
        ("t1", "t1", False),
        ("t2", "t2", True),
    ]


def test_what_lacks_its_counterpart_is_a_warning(folder: Path) -> None:
    (folder / "labelsTr" / "s00_ED.nii.gz").unlink()
    (folder / "imagesTr" / "s01_ES_0000.nii.gz").unlink()
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.training_cases()] == ["s00_ES", "s01_ED"]
    text = "\n".join(dataset.warnings)
    assert len(dataset.warnings) == 4
    assert "1 images of imagesTr have no label and are not trained on: s00_ED" in text
    assert "1 labels have no image and are left out: s01_ES.nii.gz" in text
    assert "numTraining is 4, but there are 3 training cases" in text
    assert "1 rows have no image and are left out: s01_ES" in text


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        (COLUMNS, ROWS[1:], "1 cases of imagesTr have no row: s00_ED"),
        (COLUMNS, [*ROWS, ROWS[0]], "'s00_ED' is there 2 times"),
        (COLUMNS, [*ROWS, ("../s03", "s03", "", "")], "'../s03' has a path in it"),
        (COLUMNS, [*ROWS, ("/s03", "s03", "", "")], "'/s03' has a path in it"),
        (COLUMNS, [("s00_ED", "", "ED", "A"), *ROWS[1:]], "case s00_ED has no subject"),
        (("case", "patient"), [row[:2] for row in ROWS], "column 'subject' is missing; found case, patient"),
        (COLUMNS, [("s00_ED", "nan", "ED", "A"), *ROWS[1:]], "case s00_ED has no subject"),
        (
            ("case", "subject", "Centre", "center"),
            [(*row[:2], "1", "1") for row in ROWS],
            "'Centre' and 'center' mean",
        ),
        (("case", "subject", "case"), [], "column 'case' is there 2 times"),
        (("case", "subject"), [("a", "b", "c")], "line 2: 3 cells, but the first line has 2"),
    ],
)
def test_tables_that_make_no_sense_are_errors(folder: Path, columns: Any, rows: Any, message: str) -> None:
    write_rows(folder / "cases.csv", columns, rows)
    with pytest.raises(UtsegError) as caught:
        open_dataset(folder)
    assert message in str(caught.value) and "cases.csv" in str(caught.value)


@pytest.mark.parametrize("options", [{"separator": ";"}, {"encoding": "utf-8-sig"}, {"encoding": "cp1252"}])
def test_tables_as_spreadsheets_write_them(folder: Path, options: dict[str, str]) -> None:
    rows = [(case, subject, phase.lower(), "Köln") for case, subject, phase, _ in ROWS]
    write_rows(folder / "cases.csv", ("Case", "Subject", "Phase", "centre"), rows, **options)
    case = open_dataset(folder).cases[0]
    assert (case.subject, case.phase, case.groups["centre"]) == ("s00", "ED", "Köln")
    with (folder / "cases.csv").open(encoding=options.get("encoding", "utf-8")) as handle:
        assert len(list(csv.reader(handle))) == 5


def test_known_columns_are_called_the_same_whatever_their_letter_case(folder: Path) -> None:
    rows = [(*row[:2], row[2].lower(), *rest) for row, rest in zip(ROWS, GROUP_CELLS, strict=True)]
    write_rows(
        folder / "cases.csv", ("CASE", "Subject", "Phase", "VENDOR", "Center", "Pathology", "Site"), rows
    )
    assert [dict(case.groups) for case in open_dataset(folder).cases] == [
        {"phase": "ED", "vendor": "A", "centre": "1", "Site": "x"},
        {"phase": "ES", "vendor": "", "centre": "", "Site": "x"},
        {"phase": "ED", "vendor": "B", "centre": "", "Site": ""},
        {"phase": "ES", "vendor": "B", "centre": "2", "Site": "y"},
    ]


FAULTS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({}, ("labels",), "labels: this key is missing; found channel_names, numTraining, file_ending"),
    ({"label": LABELS}, ("labels",), "label: unknown key; did you mean 'labels'?"),
    (
        {"channel_name": {"0": "x"}},
        ("channel_names",),
        "channel_name: unknown key; did you mean 'channel_names'?",
    ),
    ({"fileEnding": ".nii"}, ("file_ending",), "fileEnding: unknown key; did you mean 'file_ending'?"),
    ({"num_training": 4}, ("numTraining",), "num_training: unknown key; did you mean 'numTraining'?"),
    ({"channel_names": ["MRI"]}, (), "channel_names: expected an object"),
    ({"channel_names": {"1": "MRI"}}, (), "channel_names.1: expected the keys 0, found 1"),
    ({"channel_names": {"0": 5}}, (), "channel_names.0: expected a text, found 5"),
    ({"labels": {"0": "background", "1": "LV"}}, (), "labels: names come first"),
    (
        {"labels": {"background": 0, "LV": [1, 2]}},
        (),
        "regions_class_order: expected a list of numbers, what each region paints, in the order of LV; found null",
    ),
    (
        {"labels": {"background": 0, "LV": "1"}},
        (),
        "labels.LV: expected a whole number from 0 to 255, found the text '1'",
    ),
    ({"labels": {"background": 0, "LV": 1.5}}, (), "labels.LV: expected a whole number"),
    ({"labels": {"background": 0, "LV": True}}, (), "labels.LV: expected a whole number"),
    ({"labels": {"background": 0, "LV": -1}}, (), "labels.LV: expected a whole number"),
    (
        {"labels": {"background": 0, "LV": 500}},
        (),
        "labels.LV: expected a whole number from 0 to 255, found 500",
    ),
    ({"labels": {"background": 0, "LV": 1, "RV": 1}}, (), "without repetition, found 0, 1, 1"),
    ({"labels": {"LV": 1, "RV": 2}}, (), "0 (background)"),
    ({"labels": {"background": 0}}, (), "0 (background)"),
    (
        {"labels": {"background": 0, "LV": 1, "Ignore": 2}},
        (),
        "labels.Ignore: the label of voxels that are not annotated is written 'ignore'",
    ),
    (
        {"labels": {"background": 0, "ignore": 1}},
        (),
        "labels: expected the value 0 (background) and others",
    ),
    (
        {"file_ending": ".jpg"},
        (),
        "file_ending: expected one of .nii.gz, .nii, .mha, .nrrd, .png, .bmp, .tif, .tiff, found '.jpg'",
    ),
    ({"numTraining": "4"}, (), "numTraining: expected a whole number, found '4'"),
]


@pytest.mark.parametrize("changes, removed, message", FAULTS)
def test_a_wrong_dataset_json_is_one_line_with_the_path_of_the_key(
    folder: Path, changes: dict[str, Any], removed: tuple[str, ...], message: str
) -> None:
    change_json(folder / "dataset.json", remove=removed, **changes)
    with pytest.raises(SettingError) as caught:
        open_dataset(folder)
    (line,) = caught.value.lines()
    assert message in line and line.startswith(f"{folder / 'dataset.json'}: ") and "\n" not in line


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", '{"labels": NaN'])
def test_what_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=r"dataset\.json"):
        open_dataset(folder)


def test_keys_of_others_and_a_bom_do_no_harm(folder: Path) -> None:
    before = open_dataset(folder)
    change_json(
        folder / "dataset.json",
        remove=("numTraining",),
        name="x", description="y", reference="z", licence="CC0", overwrite_image_reader_writer="NibabelIO",
    )  # fmt: skip
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert open_dataset(folder) == before and json.loads(text)["name"] == "x"


def test_a_missing_description_or_no_images_are_errors(folder: Path) -> None:
    change_json(folder / "dataset.json", file_ending=".nii")
    with pytest.raises(InputError, match=r"no images called CASE_0000\.nii"):
        open_dataset(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json: not found"):
        open_dataset(folder)
