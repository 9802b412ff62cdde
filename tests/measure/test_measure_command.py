"""utseg_measure from masks to tables: cines, pairs of ED and ES, references, and everything that can be wrong with what it is given."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import assert_refused, run_here
from hearts import SPACING, beating_heart, heart_beat
from rawfiles import MNMS_CSV, make_acdc, make_affine, make_mnms, make_nifti

from utseg.cardiac.volumes import body_surface_m2
from utseg.files import sha256
from utseg.measure.record import read_measures
from utseg.steps.measuring import measure

LABELS = ("--labels", "LV=1", "MYO=2", "RV=3")
NUMBERS = {
    *("lv_edv_ml", "lv_esv_ml", "lv_sv_ml", "lv_ef_percent", "lv_mass_g"),
    *("rv_edv_ml", "rv_esv_ml", "rv_sv_ml", "rv_ef_percent"),
}
TABLE = """cine,subject,vendor,heart_rate_bpm,height_m,weight_kg,slice_thickness_mm,sex
A_sa,S001,Siemens,60,1.80,80,6,F
B_sa,S002,Philips,,,,,
"""


def write(path: Path, mask: np.ndarray) -> Path:
    return make_nifti(path, mask, make_affine(SPACING))


@pytest.fixture(scope="module")
def cines(tmp_path_factory) -> Path:
    """Two cines of 12 frames, 30 ms apart: ED at 2 and 9, EF .6 and .3; and `scans/`, their images with a table."""
    folder = tmp_path_factory.mktemp("cines")
    for name, ed, ejected in (("A_sa", 2, 0.6), ("B_sa", 9, 0.3)):
        mask = beating_heart(heart_beat(12, ed, ejected))
        write(folder / "masks" / f"{name}.nii.gz", mask)
        write(folder / "scans" / f"{name}.nii.gz", mask.astype(np.int16) * 100)
    (folder / "scans" / "cines.csv").write_text(TABLE)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def counted(mask_zyx: np.ndarray, value: int) -> float:
    return float((mask_zyx == value).sum() * np.prod(SPACING) / 1000)


def test_cines_are_measured_as_they_were_made(cines, tmp_path):
    out = tmp_path / "measures"
    result = run_here("utseg_measure", "-i", cines / "masks", "-o", out, "--images", cines / "scans", *LABELS)
    assert result.returncode == 0, result.stderr
    assert "A_sa" in result.stdout and "LV EF of vendor Siemens" in result.stdout
    assert "pages/A_sa.html" in (out / "measures.html").read_text()
    assert 'id="sheet"' in (out / "pages" / "A_sa.html").read_text()
    first, second = rows(out / "measures.csv")
    assert list(first)[:4] == ["cine", "subject", "ed_frame", "es_frame"] and list(first)[-1] == "flags"
    assert set(first) >= NUMBERS and first["subject"] == "S001" and first["vendor"] == "Siemens"
    mask = beating_heart(heart_beat(12, 2, 0.6))
    es = int(heart_beat(12, 2, 0.6).argmin())
    assert (first["ed_frame"], first["es_frame"]) == ("2", str(es))
    assert float(first["lv_edv_ml"]) == pytest.approx(counted(mask[2], 1), abs=1e-3)
    assert float(first["lv_esv_ml"]) == pytest.approx(counted(mask[es], 1), abs=1e-3)
    assert float(first["lv_mass_g"]) == pytest.approx(1.05 * counted(mask[2], 2), abs=1e-3)
    assert float(first["rv_ef_percent"]) == pytest.approx(60, abs=1.5) and float(
        second["lv_ef_percent"]
    ) == pytest.approx(30, abs=1)
    surface = body_surface_m2(1.80, 80)
    assert surface == pytest.approx(2.0)
    assert float(first["lv_edvi_ml_m2"]) == pytest.approx(float(first["lv_edv_ml"]) / surface, abs=1e-3)
    assert float(first["cardiac_output_l_min"]) == pytest.approx(
        60 * float(first["lv_sv_ml"]) / 1000, abs=1e-3
    )
    assert (
        float(first["lv_peak_ejection_ml_s"]) > 0 and second["cardiac_output_l_min"] == second["bsa_m2"] == ""
    )
    assert "slice_gap" in first["flags"] and "slice_gap" not in second["flags"]
    curve = rows(out / "curves.csv")
    assert list(curve[0]) == ["cine", "frame", "lv_ml", "rv_ml", "myo_ml"] and len(curve) == 24
    assert [float(row["lv_ml"]) for row in curve[:12]] == pytest.approx(
        [counted(each, 1) for each in mask], abs=1e-3
    )
    record = read_measures(out)
    assert record.cines[0].image == str(cines / "scans" / "A_sa.nii.gz") and record.cines[0].frame_ms == 30
    assert record.cines[0].values["lv_ef_percent"] == pytest.approx(float(first["lv_ef_percent"]))
    assert set(record.rules) >= {"all", "volumes"} and "myocardium" not in record.rules
    assert {(each.column, each.value) for each in record.distributions} == {
        *(("", ""), ("vendor", "Siemens"), ("vendor", "Philips")),
    }


def test_images_and_their_table_are_found_by_the_record_of_the_prediction(cines, tmp_path):
    shutil.copytree(cines, tmp_path / "moved")
    masks, scans = tmp_path / "moved" / "masks", tmp_path / "moved" / "scans"
    cases = {
        name: {
            "images": [f"../scans/{name}.nii.gz"],
            "inputs": {f"{name}.nii.gz": sha256(scans / f"{name}.nii.gz")},
            "frame": None,
            "frames": 12,
            "files": {},
        }
        for name in ("A_sa", "B_sa")
    }
    numbering = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
    same = {"labels": numbering, "channel_names": ["c"], "versions": {}, "device": "cpu"}
    content = {"models": [], "test_time_augmentation": {}, **same, "cases": cases}
    (masks / "prediction.json").write_text(json.dumps(content))
    write(scans / "B_sa.nii.gz", np.zeros((12, 9, 80, 90), np.int16))  # another image by now
    assert run_here("utseg_measure", "-i", masks, "-o", tmp_path / "out").returncode == 0
    first, second = read_measures(tmp_path / "out").cines
    assert Path(str(first.image)).resolve() == (scans / "A_sa.nii.gz").resolve() and second.image is None
    assert first.subject == "S001" and first.bsa_m2 == pytest.approx(2.0) and first.groups["sex"] == "F"
    for page in ("measures.html", "pages/A_sa.html", "pages/B_sa.html"):
        assert str(tmp_path) not in (tmp_path / "out" / page).read_text()


def test_height_weight_and_sex_are_those_of_the_dataset(tmp_path):
    whole = beating_heart(heart_beat(12, 2, 0.6))
    acdc, mnms = make_acdc(tmp_path / "acdc", subjects=2), make_mnms(tmp_path / "mnms", subjects=1)
    (acdc / "training" / "patient002" / "Info.cfg").write_text(
        "ED: 1\nES: 3\nGroup: HCM\nHeight: 1.7\nWeight: 70\n"
    )
    table = mnms / MNMS_CSV
    head, row = table.read_text().splitlines()[:2]
    table.write_text(f"{head},Height,Weight\n{row},180,80\n")
    for names, dataset, frames in ((("patient001_4d", "patient002_4d"), acdc, 12), (("A0B0C0_sa",), mnms, 3)):
        for name in names:
            write(dataset / "masks" / f"{name}.nii.gz", whole[:frames])
        words = ("-i", dataset / "masks", "-o", tmp_path / f"of_{dataset.name}", "--images", dataset)
        assert run_here("utseg_measure", *words, *LABELS, "--no-pictures").returncode == 0
    first, second = read_measures(tmp_path / "of_acdc").cines
    assert (first.subject, first.height_m, first.weight_kg) == ("patient001", 1.7, 70)
    assert first.bsa_m2 == pytest.approx(body_surface_m2(1.7, 70), abs=1e-4)
    assert (second.height_m, second.weight_kg, second.bsa_m2) == (None, 70, None)
    (third,) = read_measures(tmp_path / "of_mnms").cines
    assert third.groups["sex"] == "F" and third.groups["vendor"] == "A" and "phase" not in third.groups
    assert third.bsa_m2 == pytest.approx(2.0)
    parts = (
        (acdc / "training" / "patient001", first, 4),
        (mnms / "Training" / "Labeled" / "A0B0C0", third, 3),
    )
    for part, same, frames in parts:
        masks, out = tmp_path / f"masks_{frames}", tmp_path / f"of_{frames}"
        write(masks / same.mask, whole[:frames])
        words = ("-i", masks, "-o", out, "--images", part, *LABELS, "--no-pictures")
        assert run_here("utseg_measure", *words).returncode == 0
        (alone,) = read_measures(out).cines
        assert (alone.subject, alone.groups, alone.bsa_m2) == (same.subject, same.groups, same.bsa_m2)


def test_masks_of_ed_and_es_are_a_cine_and_agree_with_themselves(cines, tmp_path):
    whole = beating_heart(heart_beat(12, 2, 0.6))
    for subject in ("P1", "P2"):
        for phase, frame in (("ED", 2), ("ES", 6)):
            write(tmp_path / "masks" / f"{subject}_{phase}.nii.gz", whole[frame])
            write(tmp_path / "labels" / f"{subject}_{phase}.nii.gz", whole[frame, :, ::-1])
    table = tmp_path / "phases.csv"
    table.write_text(
        "case,subject,phase\n"
        + "".join(f"{s}_{p},{s},{p.lower()}\n" for s in ("P1", "P2") for p in ("ED", "ES"))
    )
    words = ("-i", tmp_path / "masks", "-o", tmp_path / "out", *LABELS)
    assert_refused(run_here("utseg_measure", *words), "4 masks in 3-D", "P1_ED", "--table")
    result = run_here("utseg_measure", *words, "--table", table)
    assert result.returncode == 0, result.stderr
    record = read_measures(tmp_path / "out")
    assert [cine.cine for cine in record.cines] == ["P1", "P2"]
    assert (record.cines[0].ed_frame, record.cines[0].es_frame, record.cines[0].frame_ms) == (0, 1, None)
    assert [files.mask for files in record.cines[0].files] == ["P1_ED.nii.gz", "P1_ES.nii.gz"]
    assert not any(flag.name in ("phases_apart", "open_cycle") for flag in record.cines[0].flags)
    (tmp_path / "masks" / "P2_ES.nii.gz").unlink()
    assert_refused(
        run_here("utseg_measure", *words, "--table", table),
        "subject P2: expected one mask of ED and one of ES",
    )
    assert len(rows(tmp_path / "out" / "measures.csv")) == 1


def test_agreement_with_reference_labels_of_whole_cines(cines, tmp_path):
    for name, ed, ejected in (("A_sa", 2, 0.55), ("B_sa", 9, 0.35)):
        write(tmp_path / "labels" / f"{name}.nii.gz", beating_heart(heart_beat(12, ed, ejected)))
    result = run_here(
        "utseg_measure", "-i", cines / "masks", "-g", tmp_path / "labels", "-o", tmp_path / "out", *LABELS
    )
    assert result.returncode == 0, result.stderr
    assert "lv_ef_percent against references: bias" in result.stdout
    agreed = read_measures(tmp_path / "out").agreement["lv_ef_percent"]
    assert (
        agreed["n"] == 2
        and agreed["bias"] == pytest.approx(0, abs=1)
        and agreed["mae"] == pytest.approx(5, abs=1)
    )


def test_a_subject_with_several_cines_is_not_compared_with_a_reference_of_one(tmp_path):
    for name, ejected in (("P1_before", 0.6), ("P1_after", 0.3), ("P2", 0.5)):
        write(tmp_path / "masks" / f"{name}.nii.gz", beating_heart(heart_beat(12, 2, ejected)))
    for name in ("P1", "P2"):
        write(tmp_path / "labels" / f"{name}.nii.gz", beating_heart(heart_beat(12, 2, 0.5)))
    words = ("-i", tmp_path / "masks", "-g", tmp_path / "labels", "-o", tmp_path / "out", *LABELS)
    result = run_here("utseg_measure", *words, "--no-pictures")
    assert result.returncode == 0, result.stderr
    record = read_measures(tmp_path / "out")
    assert len(record.cines) == 3
    assert {pair.cine for pair in record.references} == {"P2"} and record.agreement["lv_ef_percent"]["n"] == 1
    assert "subject P1: 2 cines are among the masks (P1_after, P1_before): not compared" in result.stderr


def test_labels_from_python_need_no_background_and_no_muscle(tmp_path):
    write(tmp_path / "masks" / "one.nii.gz", (beating_heart(heart_beat(8)) == 1).astype(np.uint8))
    (cine,) = measure(tmp_path / "masks", tmp_path / "out", labels={"LV": 1}, pictures=False).cines
    assert cine.values["lv_ef_percent"] == pytest.approx(60, abs=1) and cine.values["lv_mass_g"] is None


def test_a_bad_mask_fails_alone(cines, tmp_path):
    masks = tmp_path / "masks"
    write(masks / "good.nii.gz", beating_heart(heart_beat(8)))
    write(masks / "strange.nii.gz", np.full((8, 3, 20, 20), 9, np.uint8))
    (masks / "broken.nii.gz").write_bytes(b"nothing")
    result = run_here("utseg_measure", "-i", masks, "-o", tmp_path / "out", *LABELS)
    assert_refused(result, "broken.nii.gz", "strange.nii.gz: values that are no label: 9", lines=2)
    assert [row["cine"] for row in rows(tmp_path / "out" / "measures.csv")] == ["good"]
    partly = beating_heart(heart_beat(8))
    partly[0, 1, :4] = 9
    write(masks / "strange.nii.gz", partly)
    result = run_here("utseg_measure", "-i", masks, "-o", tmp_path / "out", *LABELS, "ignore=9")
    assert_refused(result, "broken.nii.gz", "strange.nii.gz: is annotated in part only (ignore)", lines=2)
    empty = tmp_path / "empty"
    write(empty / "none.nii.gz", np.zeros((8, 3, 20, 20), np.uint8))
    assert run_here("utseg_measure", "-i", empty, "-o", tmp_path / "of_empty", *LABELS).returncode == 0
    (row,) = rows(tmp_path / "of_empty" / "measures.csv")
    assert row["ed_frame"] == row["lv_ef_percent"] == "" and row["flags"] == "empty"
    assert (
        json.loads((tmp_path / "of_empty" / "measures.json").read_text())["cines"][0]["curve"]["lv_ml"]
        == [None] * 8
    )


@pytest.mark.parametrize(
    ("words", "table", "expected"),
    [
        (("-i", "nowhere", *LABELS), None, "nowhere: no folder with predictions"),
        (("-i", "masks"), None, "nothing says how the masks number their labels"),
        (("-i", "masks", "--labels", "1", "2", "3"), None, "no label is one of LV, MYO, RV"),
        (("-i", "masks", "--images", "nowhere", *LABELS), None, "no such file or folder"),
        (("-i", "masks", *LABELS), "name,sex\nA_sa,F\n", "column 'cine' is missing"),
        (
            ("-i", "masks", *LABELS),
            "cine,height_m\nA_sa,180\n",
            "line 2: column 'height_m': expected a number from 0.3 to 2.6",
        ),
        (("-i", "masks", *LABELS), "cine\nA_sa\nA_sa\n", "line 3: 'A_sa' is there twice"),
        (("-i", "masks", "-g", "masks", *LABELS), None, "are the same folder"),
        (("-i", "masks", "-g", "other", *LABELS), None, "none is of a subject of the masks"),
    ],
)
def test_wrong_input_is_one_line(cines, tmp_path, monkeypatch, words, table, expected):
    monkeypatch.chdir(cines)
    if "other" in words and not Path("other").exists():
        write(cines / "other" / "C_sa.nii.gz", beating_heart(heart_beat(3)))
    if table is not None:
        (tmp_path / "table.csv").write_text(table)
        words = (*words, "--table", tmp_path / "table.csv")
    assert_refused(run_here("utseg_measure", *words, "-o", tmp_path / "out"), expected)
    assert not (tmp_path / "out" / "measures.csv").exists()


def test_what_does_not_fit_is_said(cines, tmp_path):
    """Masks on another grid than their image, without pictures; a cine of one frame; rows of no cine; a height in centimetres."""
    (tmp_path / "masks").mkdir()
    shutil.copytree(cines / "scans", tmp_path / "scans")
    shutil.copy(cines / "masks/A_sa.nii.gz", tmp_path / "masks")
    mask = beating_heart(heart_beat(12, 2, 0.6))
    write(tmp_path / "masks/B_sa.nii.gz", mask[:1])
    write(tmp_path / "scans/A_sa.nii.gz", mask[:, :, :-3].astype(np.int16))
    table = tmp_path / "typed.csv"
    table.write_text("cine,height_m\nA_sa,1.7\nC_sa,1.6\n")
    words = ("-i", tmp_path / "masks", "--images", tmp_path / "scans", "--table", table, "--no-pictures")
    result = run_here("utseg_measure", *words, "-o", tmp_path / "measures", *LABELS)
    assert result.returncode == 1 and "cine B_sa: one frame: no ED and ES" in result.stderr
    assert "A_sa: the masks do not lie on the grid of their image: size" in result.stderr
    assert "typed.csv: no mask is there of C_sa" in result.stderr
    assert "cines.csv: not read, as --table takes its place" in result.stdout
    result = run_here("utseg_measure", *words, "-o", tmp_path / "masks", *LABELS)
    assert_refused(result, "is the folder of the masks")
    table.write_text("cine,height_m\nA_sa,170\n")
    result = run_here("utseg_measure", *words, "-o", tmp_path / "measures", *LABELS)
    assert_refused(result, "metres are expected, and it looks like centimetres")
