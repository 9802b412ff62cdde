"""Scoring folders: what is written, and what is refused."""

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawfiles import make_affine, make_nifti

from utseg.case import Case
from utseg.errors import CaseErrors
from utseg.evaluate import evaluate_cases
from utseg.evaluate.references import find_references
from utseg.labels import LabelMismatch

nib = pytest.importorskip("nibabel")
LABELS = {"background": 0, "LV": 1, "MYO": 2}
AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])


def save(path, mask_zyx, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask_zyx.T.astype(np.uint8), affine), path)


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a_ED", "a_ES", "b_ED"):
        mask = np.zeros((3, 12, 10), int)
        mask[1:, 3:9, 3:8] = 2
        mask[1:, 5:7, 4:6] = 1
        save(tmp_path / "labels" / f"{name}.nii.gz", mask)
        save(tmp_path / "out" / f"{name}.nii.gz", np.where(rng.random(mask.shape) < 0.1, 0, mask))
    return tmp_path


def cases(folder):
    return [
        Case(
            name,
            name[0],
            (),
            folder / "labels" / f"{name}.nii.gz",
            None,
            name[2:],
            groups={"vendor": name[0].upper()},
        )
        for name in ("a_ED", "a_ES", "b_ED")
    ]


def test_writes_tidy_metrics_and_a_summary(folders, monkeypatch):
    monkeypatch.setattr("utseg.evaluate.score.INLINE", 0)
    summary = evaluate_cases(cases(folders), folders / "out", LABELS, folders / "scores", workers=2)
    rows = list(csv.DictReader((folders / "scores" / "metrics.csv").open()))
    assert [(row["case"], row["label_name"]) for row in rows[:3]] == [
        ("a_ED", "LV"),
        ("a_ED", "MYO"),
        ("a_ES", "LV"),
    ]
    assert {
        "case",
        "subject",
        "phase",
        "vendor",
        "label",
        "dice",
        "hd95_mm",
        "assd_mm",
        "reference_ml",
        "prediction_ml",
    } <= set(rows[0])
    assert float(rows[1]["reference_ml"]) == pytest.approx(2 * (6 * 5 - 4) * 1.5 * 1.5 * 8 / 1000)
    mean = np.mean(
        [float(row["dice"]) for row in rows if row["label_name"] == "MYO" and row["vendor"] == "A"]
    )
    assert summary["groups"]["vendor"]["A"]["labels"]["MYO"]["dice"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert json.loads((folders / "scores" / "summary.json").read_text()) == summary


def test_a_stack_that_is_ignored_in_part_has_no_thirds(tmp_path):
    """Its last two slices are not annotated: the third of those before is not the apex."""
    mask = np.zeros((5, 16, 16), int)
    for z, half in enumerate((6, 5, 4, 3, 2)):
        mask[z, 8 - half : 8 + half, 8 - half : 8 + half] = 1
    partly = np.where(np.arange(5)[:, None, None] < 3, mask, 9)
    scored = []
    for name, reference in (("whole", mask), ("partly", partly)):
        save(tmp_path / "labels" / f"{name}.nii.gz", reference)
        save(tmp_path / "out" / f"{name}.nii.gz", mask)
        scored.append(Case(name, name, (), tmp_path / "labels" / f"{name}.nii.gz"))
    labels = {"background": 0, "LV": 1}
    of_references = labels | {"ignore": 9}
    evaluate_cases(scored, tmp_path / "out", labels, tmp_path / "scores", reference_labels=of_references)
    rows = list(csv.DictReader((tmp_path / "scores" / "regions.csv").open()))
    assert {row["case"] for row in rows} == {"whole"}
    slices = list(csv.DictReader((tmp_path / "scores" / "slices.csv").open()))
    assert [row["region"] for row in slices if row["case"] == "partly"] == ["", "", ""]


def test_all_missing_predictions_are_listed_and_nothing_is_written(folders):
    (folders / "out" / "a_ES.nii.gz").unlink()
    (folders / "out" / "b_ED.nii.gz").unlink()
    with pytest.raises(CaseErrors) as caught:
        evaluate_cases(cases(folders), folders / "out", LABELS, folders / "scores")
    (line,) = caught.value.lines()
    assert "2 of 3 cases: a_ES, b_ED;" in line
    assert not (folders / "scores").exists()


def test_another_place_in_space_is_refused(folders):
    moved = AFFINE.copy()
    moved[0, 3] = 3
    save(folders / "out" / "a_ED.nii.gz", np.ones((3, 12, 10)), moved)
    with pytest.raises(CaseErrors, match="origin"):
        evaluate_cases(cases(folders), folders / "out", LABELS, folders / "scores")


def test_a_folder_of_labels_takes_names_from_the_prediction(folders):
    (folders / "out" / "prediction.json").write_text(json.dumps({"labels": LABELS}))
    found = find_references(folders / "labels", folders / "out")
    assert [case.case_id for case in found.cases] == ["a_ED", "a_ES", "b_ED"]
    assert found.labels == LABELS


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.5, -0.3, 0.9)])
@pytest.mark.parametrize(
    ("shift_zyx", "distance"),
    [
        ((0, 0, 3), 3 * 1.25),
        ((0, 2, 0), 2 * 1.5),
        ((1, 0, 0), 8.0),
        ((1, 2, 3), np.hypot(8.0, np.hypot(3, 3.75))),
    ],
)
def test_shifted_by_voxels_gives_what_geometry_says_in_mm(tmp_path, angles, shift_zyx, distance):
    """A box in an oblique, anisotropic image: the maximum is the length of the shift, and so is it in every slice that both have."""
    label = np.zeros((7, 30, 28), np.uint8)
    label[1:4, 8:18, 9:17] = 1
    affine = make_affine(angles=angles)
    make_nifti(tmp_path / "labels" / "a.nii.gz", label, affine)
    make_nifti(tmp_path / "out" / "a.nii.gz", np.roll(label, shift_zyx, (0, 1, 2)), affine)
    case = Case("a", "a", (), tmp_path / "labels" / "a.nii.gz")
    evaluate_cases([case], tmp_path / "out", LABELS, tmp_path / "scores")
    box = next(csv.DictReader((tmp_path / "scores" / "metrics.csv").open()))
    assert float(box["hd_mm"]) == pytest.approx(distance, rel=1e-5)
    kept = [n - k for n, k in zip((3, 10, 8), shift_zyx, strict=True)]
    assert float(box["dice"]) == pytest.approx(np.prod(kept) / (3 * 10 * 8), rel=1e-5)
    assert float(box["difference_ml"]) == 0
    slices = list(csv.DictReader((tmp_path / "scores" / "slices.csv").open()))
    within = np.hypot(shift_zyx[1] * 1.5, shift_zyx[2] * 1.25)
    assert [row["status"] for row in slices].count("ok") == kept[0] == int(box["slices_both"])
    assert int(box["slices_missed"]) == int(box["slices_extra"]) == shift_zyx[0]
    for row in slices:
        if row["status"] == "ok":
            assert float(row["hd_mm"]) == pytest.approx(within, rel=1e-5)


def test_references_of_another_dataset_are_matched_by_the_names_of_their_labels(folders):
    own = evaluate_cases(cases(folders), folders / "out", LABELS, folders / "scores")
    for case in cases(folders):
        mask = np.asarray(nib.load(case.label).dataobj).T
        save(case.label, np.array([0, 7, 3])[mask])
    others = {"MYO": 3, "LV": 7, "background": 0}
    mapped = evaluate_cases(
        cases(folders), folders / "out", LABELS, folders / "mapped", reference_labels=others
    )
    assert mapped == own
    text = (folders / "mapped" / "metrics.csv").read_text()
    assert text == (folders / "scores" / "metrics.csv").read_text()
    assert json.loads((folders / "mapped" / "sources.json").read_text())["reference_labels"] == others


@settings(max_examples=10, deadline=None)
@given(st.permutations((1, 2)), st.permutations((1, 2)))
def test_scores_do_not_depend_on_the_numbering(of_masks, of_references):
    """Random masks of two labels: scored as they are, and after their values were exchanged by hand."""
    mask, reference = np.random.default_rng(0).integers(0, 3, (2, 3, 8, 9)).astype(np.uint8)
    texts = []
    for masks, references in ((1, 2), (1, 2)), (of_masks, of_references):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make_nifti(folder / "out" / "a.nii.gz", np.array([0, *masks], np.uint8)[mask])
            make_nifti(folder / "a.nii.gz", np.array([0, *references], np.uint8)[reference])
            numbered = ({"LV": own[0], "MYO": own[1]} for own in (masks, references))
            sides = dict(zip(("mask_labels", "reference_labels"), numbered, strict=True))
            case = Case("a", "a", (), folder / "a.nii.gz")
            evaluate_cases([case], folder / "out", LABELS, folder / "scores", **sides)
            texts.append((folder / "scores" / "metrics.csv").read_text())
    assert texts[0] == texts[1]


def test_references_with_other_names_of_labels_are_refused(folders):
    with pytest.raises(
        LabelMismatch, match=r"LV 1, RV 2 in the references, LV 1, MYO 2 in .*no counterpart for RV, MYO;"
    ):
        evaluate_cases(
            cases(folders),
            folders / "out",
            LABELS,
            folders / "scores",
            reference_labels={"background": 0, "LV": 1, "RV": 2},
        )
