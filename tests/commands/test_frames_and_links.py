"""Frames that the table names wrongly, links that lead nowhere, and masks that are the references: through the commands."""

import csv
import os
import shutil
from pathlib import Path

import pytest
from rawfiles import MNMS_CSV, make_acdc, make_mnms, make_nnunet

from utseg.commands import evaluate, import_model, plan_and_preprocess, predict


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, tiny_model):
    home = tmp_path_factory.mktemp("pristine") / "home"
    shutil.copytree(tiny_model, home)
    make_mnms(home / "raw" / "MnM", subjects=3, frames=6, size_zyx=(3, 24, 24))
    make_nnunet(home / "raw" / "Heart", subjects=2, size_zyx=(3, 24, 24))
    make_acdc(home / "raw" / "ACDC", subjects=2, size_zyx=(3, 24, 24))
    return home


@pytest.fixture
def home(tmp_path, pristine):
    return shutil.copytree(pristine, tmp_path / "home")


@pytest.fixture
def refused(capfd, home):
    """Runs a command that must end with code 1; returns its error lines."""

    def call(command, *words: object) -> list[str]:
        code = command.main([str(word) for word in (*words, "--home", home)])
        errors = capfd.readouterr().err
        assert code == 1 and "Traceback" not in errors
        return [line for line in errors.splitlines() if line.startswith("error: ")]

    return call


def calls(home, name):
    """Each command that opens a dataset."""
    raw, out = home / "raw" / name, home / "out"
    out.mkdir(exist_ok=True)
    return {
        "plan": (plan_and_preprocess, "-d", name, "-pl", "cpu", "-np", 1),
        "predict": (predict, "-i", raw, "-o", home / "masks", "--device", "cpu"),
        "evaluate": (evaluate, "-p", out, "-g", raw, "-o", home / "scores"),
    }


def shift_frames(home, shift, subjects=3):
    table = home / "raw" / "MnM" / MNMS_CSV
    rows = list(csv.DictReader(table.open(newline="")))
    for row in rows[:subjects]:
        row["ED"], row["ES"] = shift(int(row["ED"]), int(row["ES"]))
    with table.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("command", ["plan", "predict", "evaluate"])
def test_a_table_that_counts_from_1_is_refused_with_the_frames_that_carry_labels(home, refused, command):
    shift_frames(home, lambda ed, es: (ed + 1, es + 1))
    (line,) = refused(*calls(home, "MnM")[command])
    assert MNMS_CSV in line
    assert (
        "labels lie on frames 0 and 5 of A0B0C0_sa_gt.nii.gz, the table says ED 1, ES 6: frames are counted from 0"
        in line
    )
    assert line.endswith("subtract 1 from ED and ES, as for 3 subjects in all: A0B0C0, A1B1C1, A2B2C2")
    assert not (home / "preprocessed" / "MnM").exists()


def test_wrong_frames_of_one_subject_are_refused_by_its_name(home, refused):
    shift_frames(home, lambda ed, es: (2, 3), subjects=1)
    (line,) = refused(*calls(home, "MnM")["plan"])
    assert (
        "subject A0B0C0: labels lie on frames 0 and 5 of A0B0C0_sa_gt.nii.gz, the table says ED 2, ES 3"
        in line
    )


def test_one_wrong_frame_of_two_is_refused_by_its_case(home, refused):
    shift_frames(home, lambda ed, es: (ed, 4), subjects=1)
    (line,) = refused(*calls(home, "MnM")["plan"])
    assert "case A0B0C0_ES: " in line and "frame 4 holds no label, frames 0 and 5 do; check ED and ES" in line


LINKS = [
    ("Heart", "imagesTr/s00_ED_0000.nii.gz", ("plan", "predict")),
    ("Heart", "labelsTr/s00_ED.nii.gz", ("plan", "evaluate")),
    ("Heart", "cases.csv", ("plan", "predict", "evaluate")),
    ("Heart", "dataset.json", ("plan", "predict", "evaluate")),
    ("Heart", "imagesTr", ("plan", "predict", "evaluate")),
    ("Heart", "labelsTr", ("plan", "predict", "evaluate")),
    ("MnM", "Training/Labeled/A0B0C0/A0B0C0_sa.nii.gz", ("plan", "predict")),
    ("MnM", "Training/Labeled/A0B0C0/A0B0C0_sa_gt.nii.gz", ("plan", "evaluate")),
    ("MnM", "Training/Labeled/A0B0C0", ("plan", "predict", "evaluate")),
    ("MnM", "Training", ("plan",)),
    ("MnM", MNMS_CSV, ("plan", "predict", "evaluate")),
    ("ACDC", "training/patient001/patient001_frame03.nii.gz", ("plan", "predict")),
    ("ACDC", "training/patient001/patient001_frame03_gt.nii.gz", ("plan", "evaluate")),
    ("ACDC", "training/patient001/Info.cfg", ("plan", "predict", "evaluate")),
    ("ACDC", "training/patient001", ("plan", "predict", "evaluate")),
    ("ACDC", "training", ("plan",)),
]


@pytest.mark.parametrize(
    ("name", "file", "command"),
    [(name, file, command) for name, file, commands in LINKS for command in commands],
)
def test_a_link_that_leads_nowhere_is_named_as_one(home, refused, name, file, command):
    path = home / "raw" / name / file
    (shutil.rmtree if path.is_dir() else os.unlink)(path)
    path.symlink_to("../.git/annex/objects/Xq/MD5E-s1.nii.gz")
    words = calls(home, name)[command]
    if command == "evaluate":
        for case in ("s00_ED", "A0B0C0_ED", "A0B0C0_ES", "patient001_ES"):
            shutil.copy(
                home / "raw" / "ACDC" / "training" / "patient002" / "patient002_frame01_gt.nii.gz",
                home / "out" / f"{case}.nii.gz",
            )
        words = (*words, "--only-predicted", "--only-referenced", "-np", 1)
    lines = refused(*words)
    expected = (
        f"{path}: is a link to a file that is not there (git-annex: run `git annex get` or `datalad get`)"
    )
    assert lines and all(expected in line for line in lines), lines


def test_links_as_input_are_named_too(home, refused):
    for path in (home / "scan.nii.gz", home / "scans" / "a.nii.gz", home / "folder", home / "raw" / "Away"):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(home / "unmounted")
    for given, link in (("scan.nii.gz", "scan.nii.gz"), ("scans", "scans/a.nii.gz"), ("folder", "folder")):
        (line,) = refused(predict, "-i", home / given, "-o", home / "masks", "--device", "cpu")
        assert (
            f"{home / link}: is a link to a file that is not there (it leads to {home / 'unmounted'})" in line
        )
    for words in (("-p", home / "folder", "-g", home / "raw" / "Heart"), ("-p", home, "-g", home / "folder")):
        (line,) = refused(evaluate, *words, "-o", home / "scores", "-d", "Heart")
        assert f"{home / 'folder'}: is a link" in line
    (line,) = refused(import_model, home / "scan.nii.gz")
    assert f"{home / 'scan.nii.gz'}: is a link to a file that is not there" in line
    (line,) = refused(plan_and_preprocess, "-d", "Away")
    assert f"{home / 'raw' / 'Away'}: is a link to a file that is not there" in line


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ("raw/Heart/labelsTr", "raw/Heart/labelsTr"),
        ("raw/Heart/labelsTr", "raw/Heart"),
        ("raw/Heart/imagesTr/../labelsTr", "raw/Heart/labelsTr"),
        ("link", "raw/Heart/labelsTr"),
        ("link", "raw/Heart"),
        ("links", "raw/Heart"),
        ("raw/Heart", "raw/Heart"),
    ],
)
def test_masks_that_are_the_references_are_refused(home, refused, predictions, references):
    labels = home / "raw" / "Heart" / "labelsTr"
    (home / "link").symlink_to(labels)
    (home / "links").mkdir()
    for path in labels.iterdir():
        (home / "links" / path.name).symlink_to(path)
    (line,) = refused(
        evaluate, "-p", home / predictions, "-g", home / references, "-o", home / "scores", "-d", "Heart"
    )
    assert (
        "are the same folder" in line
        or "for 4 of 4 cases the mask (-p) is the reference label (-g) itself: s00_ED" in line
    )
    assert not (home / "scores").exists()


def test_a_pointer_of_git_annex_or_lfs_is_named_as_one(home, refused):
    label: Path = home / "raw" / "Heart" / "labelsTr" / "s00_ED.nii.gz"
    for content, words in (
        (
            b"/annex/objects/MD5E-s1--x.nii.gz\n",
            "a git-annex pointer, not the file itself (run `git annex get` or",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer, not the file itself (run `git lfs pull`)",
        ),
    ):
        label.write_bytes(content)
        (line,) = refused(*calls(home, "Heart")["plan"])
        assert words in line and "s00_ED.nii.gz" in line
