"""The parallel pass: what is recorded, what is refused, what is reused, what is warned of."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

from utseg.case import Dataset
from utseg.errors import CaseErrors, InputError
from utseg.fingerprint import Fingerprint, make_fingerprint, read_fingerprint, write_fingerprint
from utseg.rawdata import open_dataset

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
AFFINE = np.diag([-1.5, -1.25, 9.0, 1.0])


def write_case(
    folder: Path, case: str, *, seed: int, labels: tuple[int, ...] = (1, 2, 3), affine: np.ndarray = AFFINE
) -> None:
    rng = np.random.default_rng(seed)
    image_xyz = rng.normal(100, 20, (20, 24, 5)).astype(np.float32)
    label_xyz = np.zeros(image_xyz.shape, dtype=np.uint8)
    for place, value in enumerate(labels):
        label_xyz[6 + 3 * place : 9 + 3 * place, 8:14, 1:4] = value
    nibabel.save(nibabel.Nifti1Image(image_xyz, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label_xyz, affine), folder / "labelsTr" / f"{case}.nii.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cases of two subjects in two vendors; nobody has an RV."""
    root = tmp_path / "Hearts"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    rows = ["case,subject,phase,vendor"]
    for number in range(4):
        write_case(root, f"c{number}", seed=number, labels=(1, 2))
        rows.append(f"c{number},s{number // 2},{'ES' if number % 2 else 'ED'},{'AB'[number // 2]}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    (root / "dataset.json").write_text(
        json.dumps(
            {"channel_names": {"0": "cine"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
        )
    )
    return root


def fingerprint_of(folder: Path, previous: Fingerprint | None = None) -> Fingerprint:
    with ThreadPoolExecutor(2) as executor:
        return make_fingerprint(open_dataset(folder), executor, previous=previous)


def test_everything_of_the_contract_is_recorded(folder: Path):
    fingerprint = fingerprint_of(folder)
    case = fingerprint.cases[0]
    assert [case.case_id for case in fingerprint.cases] == ["c0", "c1", "c2", "c3"]
    assert (case.subject, case.phase, case.groups["vendor"]) == ("s0", "ED", "A")
    assert case.size_zyx == (5, 24, 20)
    assert case.spacing_zyx_mm == pytest.approx((9.0, 1.25, 1.5))
    assert case.orientation == "LPS"
    assert case.way.normal == pytest.approx((0, 0, 1))
    assert set(case.checksums) == {"imagesTr/c0_0000.nii.gz", "labelsTr/c0.nii.gz"}
    assert case.labels["LV"].voxels == 3 * 6 * 3
    assert case.labels["LV"].volume_ml == pytest.approx(54 * 9 * 1.25 * 1.5 / 1000, rel=1e-4)
    assert "RV" not in case.labels
    assert case.foreground is not None
    assert case.foreground.extent_zyx_px == (3, 6, 6)
    assert (fingerprint.overall.cases, fingerprint.overall.subjects, fingerprint.overall.slices) == (4, 2, 20)
    assert fingerprint.overall.labelled_slices == 12
    assert fingerprint.by_group["vendor"]["B"].cases == 2


def test_it_reads_back_as_it_was_written(folder: Path, tmp_path: Path):
    fingerprint = fingerprint_of(folder)
    write_fingerprint(fingerprint, tmp_path / "fingerprint.json")
    again = read_fingerprint(tmp_path / "fingerprint.json")
    assert again == fingerprint
    assert again.sha256 == fingerprint.sha256


def test_the_checksum_is_that_of_what_was_measured_not_of_where_and_what_is_warned_of(folder: Path):
    fingerprint = fingerprint_of(folder)
    first, *others = fingerprint.cases
    moved = first.model_copy(update={"warnings": ("/elsewhere/c0.nii.gz: odd",)})
    warned = fingerprint.model_copy(update={"warnings": ("/elsewhere: odd",), "cases": (moved, *others)})
    assert warned != fingerprint and warned.sha256 == fingerprint.sha256
    other = first.model_copy(update={"voxels_sha256": ("0" * 64,)})
    assert fingerprint.model_copy(update={"cases": (other, *others)}).sha256 != fingerprint.sha256


def test_all_bad_cases_are_named_at_once(folder: Path):
    (folder / "imagesTr" / "c1_0000.nii.gz").write_bytes(b"")
    damaged = folder / "labelsTr" / "c3.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(CaseErrors) as caught:
        fingerprint_of(folder)
    assert [line.split(":")[0] for line in caught.value.lines()] == ["case c1", "case c3"]


def test_a_dataset_without_labels_is_refused(folder: Path):
    dataset = open_dataset(folder)
    empty = Dataset(dataset.name, folder, "nnunet", ("cine",), LABELS, ())
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="no training case with a label"):
        make_fingerprint(empty, executor)


def test_unchanged_cases_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from utseg.rawdata import gate

    first = fingerprint_of(folder)
    write_case(folder, "c2", seed=77, labels=(1, 2))
    read: list[str] = []
    original = gate.read_case
    monkeypatch.setattr(
        gate, "read_case", lambda case, labels: read.append(case.case_id) or original(case, labels)
    )
    second = fingerprint_of(folder, previous=first)
    assert read == ["c2"]
    assert second.cases[2] != first.cases[2]
    assert second == fingerprint_of(folder)


def test_nothing_is_reused_when_the_labels_are_others(folder: Path):
    first = fingerprint_of(folder)
    settings = json.loads((folder / "dataset.json").read_text())
    settings["labels"] = {"background": 0, "LV": 1}
    (folder / "dataset.json").write_text(json.dumps(settings))
    with pytest.raises(CaseErrors, match="no label"):
        fingerprint_of(folder, previous=first)


def test_a_changed_table_is_seen_without_reading_pixels(folder: Path):
    first = fingerprint_of(folder)
    table = folder / "cases.csv"
    table.write_text(table.read_text().replace(",B", ",C"))
    assert sorted(fingerprint_of(folder, previous=first).by_group["vendor"]) == ["A", "C"]


def test_what_a_person_should_look_at_is_warned_of(folder: Path):
    write_case(folder, "c1", seed=9, labels=())
    write_case(folder, "c2", seed=0, labels=(1, 2))
    write_case(folder, "c3", seed=5, labels=(1, 2), affine=np.diag([1.5, -1.25, 9.0, 1.0]))
    fingerprint = fingerprint_of(folder)
    text = "\n".join(fingerprint.warnings)
    assert "label RV (3): none of the 4 training cases has it" in text
    assert (
        "mixed orientations, 2 ways: 3 with rows towards P and columns towards L, 1 with rows towards P and"
        in text
    )
    assert "count as one subject and lie on one side of every fold: s0 = s1" in text
    assert "c1" in text and "background only" in text
    assert fingerprint.cases[1].foreground is None
    assert fingerprint.cases[3].way.normal == pytest.approx((0, 0, -1))


def test_workers_do_not_import_torch():
    code = (
        "import sys, utseg.fingerprint.make, utseg.fingerprint.case, utseg.rawdata.gate; "
        "from scipy.ndimage import distance_transform_edt; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_scans_are_measured(shared: Path):
    dataset = open_dataset(shared / "data" / "raw" / "MnM")
    with ThreadPoolExecutor(2) as executor:
        fingerprint = make_fingerprint(dataset, executor)
    assert len(fingerprint.cases) == 4
    assert set(fingerprint.by_group["vendor"]) == {"B", "C"}
    for case in fingerprint.cases:
        assert 60 < case.labels["MYO"].volume_ml < 200
        assert 4 < case.labels["MYO"].thickness_mm < 30
