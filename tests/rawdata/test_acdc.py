"""The native ACDC layout: what becomes a case, what a warning, what an error."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawfiles import ACDC_LABELS, make_acdc, make_heart

from utseg.errors import CaseErrors, InputError
from utseg.rawdata import dataset_around, is_dataset, open_dataset
from utseg.rawdata.gate import read_case

SIZE = (3, 12, 14)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_acdc(tmp_path / "ACDC", size_zyx=SIZE)


def test_each_patient_gives_ed_and_es_with_the_labels_in_acdcs_numbers(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert (dataset.layout, dataset.name, dataset.warnings) == ("acdc", "ACDC", ())
    assert dict(dataset.labels) == ACDC_LABELS and dataset.channel_names == ("cine-MRI",)
    assert [(case.case_id, case.subject, case.phase, case.frame) for case in dataset.cases[:2]] == [
        ("patient001_ED", "patient001", "ED", None),
        ("patient001_ES", "patient001", "ES", None),
    ]
    assert dataset.training_cases() == dataset.cases and len(dataset.cases) == 6
    assert dict(dataset.cases[1].groups) == {"pathology": "NOR", "phase": "ES"}
    assert dict(dataset.cases[1].person) == {"height_cm": "170.0", "weight_kg": "70.0"}
    for case in dataset.cases:
        loaded = read_case(case, dataset.labels)
        contraction = 0.0 if case.phase == "ED" else 1.0
        image, label = make_heart(SIZE, seed=int(case.subject[-3:]), contraction=contraction)
        assert np.array_equal(loaded.image_CZYX[0], image) and loaded.label_ZYX is not None
        for name, in_mnms in (("LV", 1), ("MYO", 2), ("RV", 3)):
            assert np.array_equal(loaded.label_ZYX == ACDC_LABELS[name], label == in_mnms)


def test_testing_may_have_labels_and_patients_may_lie_directly_in_the_folder(folder: Path) -> None:
    make_acdc(folder, place="testing", subjects=1, first=4, size_zyx=SIZE)
    make_acdc(folder, place="testing", subjects=1, first=5, labelled=False, size_zyx=SIZE)
    dataset = open_dataset(folder)
    testing = [case for case in dataset.cases if case.partition == "testing"]
    assert [(case.case_id, case.label is None) for case in testing] == [
        ("patient004_ED", False),
        ("patient004_ES", False),
        ("patient005_ED", True),
        ("patient005_ES", True),
    ]
    assert len(dataset.training_cases()) == 6 and dataset.warnings == ()
    direct = open_dataset(folder / "training")
    assert direct.cases == dataset.training_cases() and direct.name == "training"
    shutil.copytree(folder, folder.parent / "archive" / "database")
    assert len(open_dataset(folder.parent / "archive").cases) == len(dataset.cases)


def test_it_is_recognised_from_every_folder_of_it(folder: Path) -> None:
    make_acdc(folder, place="testing", subjects=1, first=4, size_zyx=SIZE)
    assert is_dataset(folder) and is_dataset(folder / "training")
    for part in (".", "training", "testing", "training/patient002"):
        assert dataset_around(folder / part) == folder
    assert dataset_around(folder.parent) is None and not is_dataset(folder / "training" / "patient001")


def test_what_is_not_labelled_is_said(folder: Path) -> None:
    training = folder / "training"
    (training / "patient001" / "patient001_frame03_gt.nii.gz").unlink()
    for path in (training / "patient002").glob("*frame*"):
        path.unlink()
    (training / "patient002" / "Info.cfg").unlink()
    shutil.copy(
        training / "patient003" / "patient003_frame03.nii.gz",
        training / "patient003" / "patient003_frame02.nii.gz",
    )
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases if case.label is None] == [
        "patient001_ES",
        *(f"patient002_t{frame:02d}" for frame in range(4)),
    ]
    alone, unlabelled, others = dataset.warnings
    assert "1 training patients have the 4-D file alone" in alone and "patient002" in alone
    assert "1 training cases have no _gt file: unlabelled: patient001_ES" in unlabelled
    assert "1 patients have frames that Info.cfg does not name" in others and "patient003" in others


def info(text: str) -> Any:
    return lambda patient: (patient / "Info.cfg").write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda patient: (patient / "Info.cfg").unlink(),
            "Info.cfg: not found; expected lines such as ED: 1",
        ),
        (info("ED: 1\nES: 4\nGroup: NOR\n"), "patient002_frame04.nii.gz: not found, but Info.cfg says ES: 4"),
        (info("ED: 0\nES: 3\n"), "Info.cfg: ED is '0'; expected a frame number, counted from 1"),
        (info("ED: one\nES: 3\n"), "Info.cfg: ED is 'one'"),
        (info("ED: 3\nES: 3\n"), "Info.cfg: ED and ES are both frame 3"),
        (info("ES: 3\nGroup: NOR\n"), "Info.cfg: no line ED: …"),
        (info(""), "found nothing"),
        (
            lambda patient: (patient / "patient002_frame01.nii.gz").unlink(),
            "patient002_frame01.nii.gz: not found, but Info.cfg says ED: 1 (counted from 1); found Info.cfg, patient002_4d.nii.gz",
        ),
        (
            lambda patient: [path.unlink() for path in patient.iterdir()],
            "Info.cfg: not found; expected lines",
        ),
        (lambda patient: (patient / "patient002_frame1.nii").touch(), "keep one of them"),
    ],
)
def test_what_is_wrong_or_missing_is_one_line_that_names_the_file(
    folder: Path, change: Any, message: str
) -> None:
    change(folder / "training" / "patient002")
    with pytest.raises(CaseErrors) as caught:
        open_dataset(folder)
    (line,) = caught.value.lines()
    assert message in line and line.startswith(str(folder / "training" / "patient002"))


def test_a_patient_in_both_folders_and_two_layouts_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "training" / "patient001", folder / "testing" / "patient001")
    with pytest.raises(CaseErrors, match="'patient001_ED' is there 2 times"):
        open_dataset(folder)
    (folder / "imagesTr").mkdir()
    with pytest.raises(InputError, match="several layouts"):
        open_dataset(folder)
