"""Headers, axes and values as other programs write them, through the commands."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from commandline import assert_refused, run_here
from rawfiles import change_json, edit_header, make_heart, make_nifti, make_nnunet

PLAN = "utseg_plan_and_preprocess"


def plan(home, *words):
    return run_here(PLAN, "-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1, *words, home=home)


def files(home, what="*"):
    return sorted((home / "raw" / "Heart").glob(f"{what}/*.nii.gz"))


def as_acdc(header):
    """Unit lengths in the sform, spacing in pixdim alone."""
    header["qform_code"], header["sform_code"], header["xyzt_units"] = 0, 2, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = (-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 1, 0)


def predict(home, source, out):
    words = ("-i", source, "-o", out, "--device", "cpu", "--no-tta", "-np", 1)
    return run_here("utseg_predict", *words, home=home)


def warnings(result, word):
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ") and word in line]


def test_headers_like_acdcs_are_read_by_pixdim_and_that_is_said_once(tmp_path, tiny_model):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=3)
    for path in files(tmp_path):
        edit_header(path, as_acdc)
    result = plan(tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = warnings(result, "pixdim")
    assert "12 files: spacing (x, y, z) is taken from pixdim" in line and "s00_ED_0000.nii.gz" in line
    measured = json.loads((tmp_path / "preprocessed" / "Heart" / "fingerprint.json").read_text())
    for case in measured["cases"]:
        assert case["spacing_zyx_mm"] == [8, 1.5, 1.25]
        label = nib.load(tmp_path / "raw" / "Heart" / "labelsTr" / f"{case['case_id']}.nii.gz")
        voxels = int((np.asarray(label.dataobj) == 2).sum())
        ml = voxels * float(np.prod(label.header["pixdim"][1:4])) / 1000
        assert case["labels"]["MYO"]["volume_ml"] == pytest.approx(ml, rel=1e-5)
        itk = SimpleITK.ReadImage(str(files(tmp_path, "imagesTr")[0]))
        assert itk.GetSpacing() == pytest.approx((1.25, 1.5, 8))
    plan_file = tmp_path / "preprocessed" / "Heart" / "cpu_2d" / "plan.json"
    made = json.loads(plan_file.read_text())
    assert made["preprocessing"]["ways"] == [
        {"y": [0, -1, 0], "x": [-1, 0, 0], "nominal": True, "seldom": False}
    ]
    assert made["reasons"]["preprocessing.ways"].startswith(
        "1 way: 6 cases with rows towards P and columns towards L, by"
    )
    again = predict(tiny_model, tmp_path / "raw" / "Heart", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert len(warnings(again, "pixdim")) == 1 and "6 files: " in warnings(again, "pixdim")[0]
    mask, image = nib.load(tmp_path / "out" / "s00_ED.nii.gz"), nib.load(files(tmp_path, "imagesTr")[0])
    for field in ("pixdim", "srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "xyzt_units"):
        assert mask.header[field].tobytes() == image.header[field].tobytes(), field


def test_slices_along_another_axis_make_the_same_slices_and_the_same_plan(tmp_path):
    plans, slices = [], []
    for order in ((0, 1, 2), (1, 2, 0), (0, 2, 1)):  # where the file's axes go
        home = tmp_path / "".join(map(str, order))
        make_nnunet(home / "raw" / "Heart", subjects=2)
        for path in files(home):
            nib.save(nib.load(path).as_reoriented(np.column_stack([order, (1, 1, 1)])), path)
        result = plan(home)
        assert result.returncode == 0, result.stderr
        made = json.loads((home / "preprocessed" / "Heart" / "cpu_2d" / "plan.json").read_text())
        plans.append({key: made[key] for key in ("preprocessing", "patch_size", "batch_size", "reasons")})
        root = home / "preprocessed" / "Heart" / "cpu_2d" / "slices"
        slices.append({path.relative_to(root): path.read_bytes() for path in root.rglob("*.npz")})
        shape = nib.load(files(home, "imagesTr")[0]).shape
        assert shape[order[2]] == 6
    assert plans[0] == plans[1] == plans[2] and slices[0] == slices[1] == slices[2]


def test_labels_are_whole_to_a_thousandth_and_what_is_not_is_shown_in_full(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    label = files(tmp_path, "labelsTr")[1]
    image = nib.load(label)
    voxels = image.get_fdata()
    scaled = nib.Nifti1Image(voxels, image.affine)
    scaled.header.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nib.save(scaled, label)
    values = np.unique(nib.load(label).get_fdata())
    assert not np.array_equal(values, np.rint(values))  # as nibabel reads them
    result = plan(tmp_path, "--dry-run")
    assert result.returncode == 0, result.stderr

    off = np.where(voxels == 2, 2.0019999999, voxels)
    nib.save(nib.Nifti1Image(off, image.affine), label)
    result = plan(tmp_path, "--dry-run")
    assert_refused(result, "s00_ES.nii.gz: values that are no label: 2.0019999999 (")
    unknown = re.search(r"no label: (.*); known", result.stderr)
    assert unknown and unknown[1].count("voxels") == 1  # 0, 1 and 3 are not named as unknown


def test_a_vector_label_is_refused_with_what_to_export(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2, ending=".nrrd")
    folder = tmp_path / "raw" / "Heart"
    for path in sorted(folder.glob("*/*.nrrd")):
        path.unlink()
    for number in range(4):
        voxels, label = make_heart(seed=number)
        case = f"s{number // 2:02d}_{('ED', 'ES')[number % 2]}"
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(voxels), str(folder / "imagesTr" / f"{case}_0000.nrrd")
        )
        layers = np.stack([label == value for value in (1, 2, 3)], -1).astype(np.uint8)
        segmentation = SimpleITK.GetImageFromArray(layers if number == 1 else label, isVector=number == 1)
        SimpleITK.WriteImage(segmentation, str(folder / "labelsTr" / f"{case}.nrrd"))
    assert_refused(plan(tmp_path), "s00_ES.nrrd", "3 components", "3D Slicer: Segmentations, Export to files")


@pytest.mark.parametrize("name", ["IM0001", "scan.dcm", "scan.nii.gz", "scan.nrrd"])
def test_dicom_is_refused_with_the_command_that_converts_it(tmp_path, tiny_model, name):
    series = tmp_path / "series one"
    series.mkdir()
    (series / name).write_bytes(bytes(128) + b"DICM" + bytes(300))
    command = f"utseg_import_dicom '{series}' -o OUT"
    assert_refused(predict(tiny_model, series / name, tmp_path / "out"), name, command)
    if "." not in name or name.endswith("dcm"):
        assert_refused(predict(tiny_model, series, tmp_path / "out"), "none of 1 DICOM file could be read")
        assert_refused(predict(tiny_model, tmp_path, tmp_path.parent / f"out-{name}"), "DICOM", str(tmp_path))


def test_dicom_is_refused_where_a_dataset_or_references_are_expected(tmp_path):
    series = tmp_path / "raw" / "Heart" / "1"
    series.mkdir(parents=True)
    (series / "IM1").write_bytes(bytes(128) + b"DICM" + bytes(300))
    folder = tmp_path / "raw" / "Heart"
    assert_refused(plan(tmp_path), "DICOM, which is not read here", f"utseg_import_dicom {folder} -o OUT")
    words = ("-p", tmp_path, "-g", folder, "-o", tmp_path / "scores")
    assert_refused(
        run_here("utseg_evaluate", *words),
        "DICOM, which is not read here",
        f"utseg_import_dicom {folder} -o OUT",
    )


def test_a_label_written_in_another_axis_order_than_its_image_is_its_label(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    label = files(tmp_path, "labelsTr")[0]
    nib.save(nib.load(label).as_reoriented(np.array([[1, 1], [2, 1], [0, 1]])), label)
    assert nib.load(label).shape != nib.load(files(tmp_path, "imagesTr")[0]).shape
    result = plan(tmp_path, "--dry-run")
    assert result.returncode == 0, result.stderr
    nib.save(nib.load(label).as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])), label)
    assert_refused(plan(tmp_path, "--dry-run"), "s00_ED.nii.gz: does not lie as s00_ED_0000.nii.gz does")


def test_predictions_are_scored_where_reference_and_mask_stack_slices_differently(tmp_path):
    _image, label = make_heart()
    reference = make_nifti(tmp_path / "labels" / "a.nii.gz", label)
    (tmp_path / "out").mkdir()
    nib.save(
        nib.load(reference).as_reoriented(np.array([[1, 1], [2, 1], [0, 1]])), tmp_path / "out" / "a.nii.gz"
    )
    (tmp_path / "labels" / "dataset.json").write_text("{}")
    change_json(
        tmp_path / "labels" / "dataset.json",
        channel_names={"0": "MR"},
        labels={"background": 0, "LV": 1, "MYO": 2, "RV": 3},
        numTraining=1,
        file_ending=".nii.gz",
    )
    words = ("-p", tmp_path / "out", "-g", tmp_path / "labels", "-o", tmp_path / "scores")
    result = run_here("utseg_evaluate", *words)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["all"]["mean_dice"] == 1


def test_a_label_map_among_images_to_predict_is_named(tmp_path, tiny_model):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=1)
    for number, path in enumerate((files(tmp_path, "labelsTr")[0], files(tmp_path, "imagesTr")[0])):
        (tmp_path / "in").mkdir(exist_ok=True)
        path.rename(tmp_path / "in" / f"c{number}_0000.nii.gz")
    result = predict(tiny_model, tmp_path / "in", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    said = result.stdout + result.stderr
    assert "predicting 2 volumes of 2 cases with 1 model on" in said and "verified" not in said
    (line,) = warnings(result, "label map")
    assert line.endswith("c0_0000.nii.gz: looks like a label map, not an image (its values are 0, 1, 2, 3)")
