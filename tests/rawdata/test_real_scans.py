"""Real scans, where they are there: all pass the gate, SimpleITK agrees where it can read them, masks go back as they came."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from utseg.rawdata import open_dataset
from utseg.rawdata.gate import frame_count, read_case, read_image, read_label
from utseg.rawdata.write import write_mask

EXPECTED = {"ACDC": (94, 47, 3), "MnM": (4, 2, 3), "Hippocampus": (53, 53, 2)}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_datasets_open_and_pass_the_gate(shared: Path, name: str) -> None:
    dataset = open_dataset(shared / "data" / "raw" / name)
    cases, subjects, structures = EXPECTED[name]
    assert (len(dataset.cases), len({case.subject for case in dataset.cases})) == (cases, subjects)
    assert dataset.warnings == () and dataset.training_cases() == dataset.cases
    for case in dataset.cases[:: max(1, cases // 8)]:
        loaded = read_case(case, dataset.labels)
        assert loaded.warnings == () and loaded.label_ZYX is not None
        assert set(np.unique(loaded.label_ZYX)) == set(range(structures + 1))


def test_simpleitk_agrees_on_a_real_scan(shared: Path) -> None:
    for case in open_dataset(shared / "data" / "raw" / "ACDC").cases[:3]:
        image, geometry = read_image(case.images[0])
        oracle = SimpleITK.ReadImage(str(case.images[0]))
        assert np.array_equal(image, SimpleITK.GetArrayFromImage(oracle))
        np.testing.assert_allclose(geometry.spacing_zyx_mm[::-1], oracle.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(geometry.matrix[:3, 3] * (-1, -1, 1), oracle.GetOrigin(), atol=1e-4)
        turned = np.diag([-1, -1, 1]) @ geometry.directions
        np.testing.assert_allclose(turned.ravel(), oracle.GetDirection(), atol=1e-6)


def test_the_scan_that_simpleitk_refuses_is_read_and_written_back_with_its_header(
    shared: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(shared / "data" / "raw" / "MnM")
    case = next(case for case in dataset.cases if case.case_id == "C8O0P2_ES")
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITK.ReadImage(str(case.images[0]))
    loaded = read_case(case, dataset.labels)
    assert loaded.label_ZYX is not None and frame_count(case.images[0]) == 2
    write_mask(tmp_path / "mask.nii.gz", loaded.label_ZYX, loaded.geometry, case.images[0])
    mask, geometry = read_label(tmp_path / "mask.nii.gz", dataset.labels)
    assert np.array_equal(mask, loaded.label_ZYX) and geometry.differences(loaded.geometry) == []
    mine, others = nib.load(tmp_path / "mask.nii.gz").header, nib.load(case.images[0]).header
    for field in (
        "srow_x",
        "srow_y",
        "srow_z",
        "pixdim",
        "sform_code",
        "qform_code",
        "xyzt_units",
        "quatern_b",
    ):
        assert mine[field].tobytes() == others[field].tobytes(), field


def test_acdc_as_it_is_distributed_has_its_true_spacing_and_volumes(shared: Path) -> None:
    dataset = open_dataset(shared / "data" / "raw" / "ACDC_native")
    assert (dataset.layout, len(dataset.training_cases()), dataset.warnings) == ("acdc", 106, ())
    assert len({case.subject for case in dataset.cases}) == 53
    spacings, normal_lv_edv_ml = [], []
    for case in dataset.cases:
        if case.phase == "ES" and case.subject[-1] != "5":  # every ED, and some of ES
            continue
        assert case.label is not None
        label, geometry = read_label(case.label, dataset.labels)
        spacings.append(geometry.spacing_zyx_mm[1])
        voxel_ml = float(np.prod(geometry.spacing_zyx_mm)) / 1000
        oracle = nib.load(case.label)
        oracle_voxel_ml = float(np.prod(oracle.header["pixdim"][1:4])) / 1000
        counts = np.bincount(np.asarray(oracle.dataobj).astype(int).ravel(), minlength=4)
        for name, value in (("RV", 1), ("MYO", 2), ("LV", 3)):
            found = float((label == dataset.labels[name]).sum()) * voxel_ml
            np.testing.assert_allclose(found, counts[value] * oracle_voxel_ml, rtol=1e-5)
        if case.phase == "ED" and case.groups["pathology"] == "NOR":
            normal_lv_edv_ml.append(counts[3] * voxel_ml)
    assert 1.3 < np.median(spacings) < 1.8
    assert len(normal_lv_edv_ml) == 10 and min(normal_lv_edv_ml) > 80 and max(normal_lv_edv_ml) < 220
