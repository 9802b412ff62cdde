"""What the gate refuses, what it reads with a warning, and that what it reads is what is in the file."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import rawfiles
import SimpleITK
from rawfiles import LABELS, corrupt, edit_header, make_affine, make_nifti

from utseg.case import Case
from utseg.errors import CaseErrors, InputError
from utseg.rawdata.gate import LoadedCase, frame_count, read_case, read_image, read_label

IMAGE_FAULTS = {
    "truncated": "cut off",
    "empty": "is empty",
    "png": "PNG picture",
    "absurd": "30000 × 30000 × 30000",
    "larger": "can hold",
    "sheared": "sheared",
    "no spacing": "spacing .* 0, 1.5, 8",
    "4-D": "4-D with 2 frames",
    "RGB": "RGB",
    "NaN": "5 NaN and 0 infinite of 8,640",
    "Inf": "0 NaN and 5 infinite",
    "constant": "same value \\(100\\)",
}
LABEL_FAULTS = {
    "size": "size .* 6 × 39 × 36 against 6 × 40 × 36",
    "spacing": "spacing .* 8.8, 1.5, 1.25 against 8, 1.5, 1.25 mm",
    "origin": "origin .* -117.5, .* against -120.5",
    "direction": "direction: the . axis points to",
    "unknown label": "7 \\(12 voxels\\); known labels: 0 background, 1 LV, 2 MYO, 3 RV",
    "negative label": "-1 \\(3 voxels\\)",
    "fractional label": "1.5 \\(4 voxels\\)",
    "NaN": "nan \\(5 voxels\\)",
    "4-D": "4-D with 2 frames",
}


@pytest.fixture(params=[".nii.gz", ".nii"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    image, label = rawfiles.make_heart()
    return Case(
        "case",
        "subject",
        (make_nifti(tmp_path / f"case_0000{request.param}", image),),
        make_nifti(tmp_path / f"case{request.param}", label),
    )


def problem_of(case: Case) -> str:
    with pytest.raises(CaseErrors) as caught:
        read_case(case, LABELS)
    (line,) = caught.value.lines()
    assert "\n" not in line and line.startswith(f"case {case.case_id}: ")
    return line


def test_a_sound_case_is_read_as_it_is(case: Case) -> None:
    loaded = read_case(case, LABELS)
    image, label = rawfiles.make_heart()
    assert isinstance(loaded, LoadedCase) and loaded.warnings == () and loaded.label_ZYX is not None
    assert np.array_equal(loaded.image_CZYX[0], image) and np.array_equal(loaded.label_ZYX, label)
    assert (loaded.image_CZYX.dtype, loaded.label_ZYX.dtype) == (np.float32, np.uint8)
    assert loaded.geometry.spacing_zyx_mm == rawfiles.SPACING_ZYX_MM


@pytest.mark.parametrize("kind", IMAGE_FAULTS)
def test_a_faulty_image_is_refused_in_one_line(case: Case, kind: str) -> None:
    corrupt(case.images[0], kind)
    line = problem_of(case)
    assert str(case.images[0]) in line
    with pytest.raises(InputError, match=IMAGE_FAULTS[kind] if kind != "truncated" else "cut off|can hold"):
        read_image(case.images[0])


@pytest.mark.parametrize("kind", LABEL_FAULTS)
def test_a_faulty_label_is_refused_in_one_line(case: Case, kind: str) -> None:
    assert case.label is not None
    corrupt(case.label, kind)
    with pytest.raises(CaseErrors, match=LABEL_FAULTS[kind]):
        read_case(case, LABELS)
    assert str(case.label) in problem_of(case)


def test_all_problems_of_a_case_are_reported_at_once(tmp_path: Path, case: Case) -> None:
    image, _ = rawfiles.make_heart()
    ending = case.images[0].name.removeprefix("case_0000")
    elsewhere = make_nifti(tmp_path / f"case_0001{ending}", image, make_affine(origin=(0, 0, 0)))
    assert case.label is not None
    corrupt(case.label, "unknown label")
    missing = tmp_path / f"case_0002{ending}"
    with pytest.raises(CaseErrors) as caught:
        read_case(Case("case", "subject", (case.images[0], elsewhere, missing), case.label), LABELS)
    first, second, third = sorted(caught.value.lines())
    assert "case_0001" in first + second and "origin" in first + second
    assert "no label: 7" in first + second
    assert f"channel 2 is missing: expected {missing}" in third
    assert f"case_0000{ending}" in third and f"case_0001{ending}" in third


def test_channels_are_stacked_in_their_order(tmp_path: Path) -> None:
    image, _ = rawfiles.make_heart()
    paths = tuple(make_nifti(tmp_path / f"c_{number:04d}.nii.gz", image + 10 * number) for number in range(3))
    loaded = read_case(Case("c", "c", paths), LABELS)
    assert loaded.label_ZYX is None
    assert np.array_equal(loaded.image_CZYX, np.stack([image, image + 10, image + 20]))


def test_a_label_without_structures_is_a_warning(case: Case) -> None:
    assert case.label is not None
    corrupt(case.label, "background only")
    (warning,) = read_case(case, LABELS).warnings
    assert "background only" in warning.kind and warning.file == str(case.label)


def test_a_single_frame_is_a_3d_image_and_frames_are_counted_from_0(tmp_path: Path) -> None:
    frames = np.stack([rawfiles.make_heart(seed=seed)[0] for seed in range(3)])
    single = make_nifti(tmp_path / "single.nii.gz", frames[:1])
    assert np.array_equal(read_image(single)[0], frames[0]) and frame_count(single) == 1
    cine = make_nifti(tmp_path / "cine.nii.gz", frames)
    assert all(np.array_equal(read_image(cine, index)[0], frames[index]) for index in range(3))
    for index in (3, -1):
        with pytest.raises(
            InputError, match=rf"frame {index} is asked for, the file has 3 frames \(0 to 2\)"
        ):
            read_image(cine, index)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])
def test_every_real_type_in_either_byte_order_is_read_as_nibabel_reads_it(
    tmp_path: Path, dtype: str, version: int, order: str
) -> None:
    voxels = np.random.default_rng(1).integers(0, 100, (3, 5, 4)).astype(dtype)
    path = make_nifti(tmp_path / "x.nii.gz", voxels, version=version, order=order)
    image, geometry = read_image(path)
    oracle = nib.load(path)
    assert np.array_equal(image, oracle.get_fdata().T) and np.array_equal(geometry.matrix, oracle.affine)
    assert image.dtype == np.float32 and image.flags.c_contiguous


@pytest.mark.parametrize(
    "slope, intercept", [(2.5, -100), (0, 7), (float("nan"), 3), (1, 0), (-1, 50), (0.001, 0)]
)
def test_slope_and_intercept_are_applied_as_nibabel_does(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = slope, intercept

    voxels = np.random.default_rng(2).integers(-5, 3000, (3, 5, 4)).astype(np.int16)
    path = make_nifti(tmp_path / "x.nii.gz", voxels, edit=edit)
    np.testing.assert_allclose(read_image(path)[0], nib.load(path).get_fdata().T, rtol=1e-6)


def test_scaled_labels_are_whole_after_scaling(tmp_path: Path) -> None:
    _, label = rawfiles.make_heart()

    def edit(header: Any) -> None:
        header["scl_slope"] = 0.5

    path = make_nifti(tmp_path / "x.nii.gz", (label * 2).astype(np.int16), edit=edit)
    assert np.array_equal(read_label(path, LABELS)[0], label)


def test_orthonormal_to_a_few_digits_is_read_and_truly_sheared_is_not(tmp_path: Path) -> None:
    image, _ = rawfiles.make_heart()
    affine = make_affine(angles=(0.4, 0.2, -0.7))
    for shear, accepted in ((1.2e-4, True), (2e-3, True), (0.02, False), (0.5, False)):
        sheared = affine.copy()
        sheared[:3, 0] += shear * affine[:3, 1]
        path = make_nifti(tmp_path / "x.nii.gz", image, sheared, qform_code=0)
        if accepted:
            assert np.array_equal(read_image(path)[1].matrix, nib.load(path).affine)
        else:
            with pytest.raises(InputError, match="sheared"):
                read_image(path)


@pytest.mark.parametrize("value", [0.0, float("nan"), -1.5, float("inf")])
def test_unusable_spacing_is_taken_from_the_sform_or_refused(tmp_path: Path, value: float) -> None:
    image, _ = rawfiles.make_heart()

    def edit(header: Any) -> None:
        header["pixdim"][2] = value

    path = make_nifti(tmp_path / "x_0000.nii.gz", image, qform_code=0, edit=edit)
    loaded = read_case(Case("x", "x", (path,)), LABELS)
    assert loaded.geometry.spacing_zyx_mm == rawfiles.SPACING_ZYX_MM
    assert "taken from its sform" in loaded.warnings[0].kind
    path = make_nifti(tmp_path / "y.nii.gz", image, sform_code=0, qform_code=1, edit=edit)
    with pytest.raises(InputError, match="spacing"):
        read_image(path)


def test_of_a_header_that_contradicts_itself_sform_and_pixdim_are_used_with_a_warning(tmp_path: Path) -> None:
    image, _ = rawfiles.make_heart()

    def turn(header: Any) -> None:
        header.set_qform(make_affine(angles=(0, 0, 0.5)), code=1)

    def respace(header: Any) -> None:
        header["pixdim"][3] = 5

    respaced = make_affine((5, 1.5, 1.25))
    for edit, word, affine in (
        (turn, "the sform is used; the qform differs", make_affine()),
        (respace, "contradicts", respaced),
    ):
        path = make_nifti(tmp_path / "x_0000.nii.gz", image, edit=edit)
        loaded = read_case(Case("x", "x", (path,)), LABELS)
        assert word in loaded.warnings[0].kind and len(loaded.warnings) == 1
        np.testing.assert_allclose(loaded.geometry.matrix, affine, rtol=1e-7)
        itk = SimpleITK.ReadImage(str(path))
        assert itk.GetSpacing() == pytest.approx(loaded.geometry.spacing_zyx_mm[::-1])


@pytest.mark.parametrize("lengths", [(1, 1, 1), (2, 2, 5), (1, 1, 10)])
@pytest.mark.parametrize("codes", [(1, 0), (2, 0), (2, 1)])
def test_spacing_is_that_of_pixdim_as_simpleitk_reads_it(
    tmp_path: Path, lengths: tuple[int, ...], codes: tuple[int, int]
) -> None:
    def edit(header: Any) -> None:
        header["pixdim"][1:4] = 1.5625, 1.5625, 10
        header.set_sform(make_affine(lengths[::-1], angles=(0.2, -0.1, 0.3)), code=codes[0])
        header["qform_code"] = codes[1]

    affine = make_affine(angles=(0.2, -0.1, 0.3))
    path = make_nifti(tmp_path / "x_0000.nii.gz", rawfiles.make_heart()[0], affine, edit=edit)
    loaded = read_case(Case("x", "x", (path,)), LABELS)
    itk = SimpleITK.ReadImage(str(path))
    assert itk.GetSpacing() == pytest.approx(loaded.geometry.spacing_zyx_mm[::-1])
    turned = np.diag([-1, -1, 1]) @ loaded.geometry.directions
    np.testing.assert_allclose(turned.ravel(), itk.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(loaded.geometry.matrix[:3, 3] * (-1, -1, 1), itk.GetOrigin(), atol=1e-4)
    (warning,) = loaded.warnings
    assert ("unit lengths" in warning.kind) == (lengths == (1, 1, 1))


def test_a_useless_sform_gives_way_to_the_qform(tmp_path: Path) -> None:
    image, _ = rawfiles.make_heart()

    def edit(header: Any) -> None:
        header["srow_x"] = header["srow_y"] = header["srow_z"] = 0

    path = make_nifti(tmp_path / "x_0000.nii.gz", image, make_affine(angles=(0.1, 0.2, 0.3)), edit=edit)
    loaded = read_case(Case("x", "x", (path,)), LABELS)
    np.testing.assert_allclose(loaded.geometry.matrix, make_affine(angles=(0.1, 0.2, 0.3)), atol=1e-4)
    assert "the qform is used" in loaded.warnings[0].kind


def _field(name: str, value: Any) -> Any:
    def edit(header: Any) -> None:
        header[name] = value

    return edit


DIMENSIONS = {
    "2-D": [2, 36, 240, 1, 1, 1, 1, 1],
    "vector": [5, 36, 40, 1, 1, 6, 1, 1],
    "zero": [3, 36, 0, 6, 1, 1, 1, 1],
}


@pytest.mark.parametrize(
    "edit, message",
    [
        (_field("bitpix", 8), "bits a voxel"),
        (_field("datatype", 32), "complex"),
        (_field("datatype", 999), "unknown \\(code 999\\)"),
        (_field("vox_offset", 12), "begin at byte 12"),
        (_field("vox_offset", float("nan")), "begin at byte nan"),
        (_field("vox_offset", 1e30), "can hold"),
        (_field("magic", b"ni1"), "not single-file NIfTI"),
        (_field("scl_inter", float("nan")), "intercept"),
        (_field("xyzt_units", 1), "metres"),
        (_field("dim", DIMENSIONS["2-D"]), "2-D where a 3-D"),
        (_field("dim", DIMENSIONS["vector"]), "5-D"),
        (_field("dim", DIMENSIONS["zero"]), "at least 1"),
        (_field("dim", [99, 36, 40, 6, 1, 1, 1, 1]), "99 dimensions"),
        (_field("srow_x", [np.nan] * 4), "not finite"),
        (_field("srow_x", [1e9, 0, 0, 0]), "spacing .* expected 0.001 to 1000 mm"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, edit: Any, message: str) -> None:
    path = make_nifti(tmp_path / "x.nii.gz", rawfiles.make_heart()[0], qform_code=0)
    edit_header(path, edit)
    with pytest.raises(InputError, match=message):
        read_image(path)


def test_values_beyond_float32_count_as_infinite(tmp_path: Path) -> None:
    image = rawfiles.make_heart()[0].astype(np.float64)
    image[0, 0, 0] = 1e300
    with pytest.raises(InputError, match="0 NaN and 1 infinite"):
        read_image(make_nifti(tmp_path / "x.nii.gz", image))


def test_marks_for_no_value_that_resampling_would_make_infinite_are_refused(tmp_path: Path) -> None:
    image = rawfiles.make_heart()[0].astype(np.float32)
    image[0, 0, 0] = np.finfo(np.float32).min
    with pytest.raises(InputError, match=r"a voxel is -3.4\d*e\+38; expected at most 1e\+30 either way"):
        read_image(make_nifti(tmp_path / "x.nii.gz", image))


@pytest.mark.parametrize(
    "begin, what",
    [
        (b"II*\0", "TIFF"),
        (b"<html>", "web page"),
        (b"abcdefghij", "'abcdefgh'"),
    ],
)
def test_other_formats_under_this_name_are_named(tmp_path: Path, begin: bytes, what: str) -> None:
    for name in ("x.nii", "x.nii.gz"):
        (tmp_path / name).write_bytes(begin + bytes(400))
        with pytest.raises(InputError, match=f"not .*{what}"):
            read_image(tmp_path / name)


def test_dicom_under_any_name_is_named(tmp_path: Path) -> None:
    for name in ("x.nii", "x.nii.gz", "x.mha", "x.nrrd", "IM1"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(400))
        with pytest.raises(
            InputError, match=r"DICOM, which is not read here; .* utseg_import_dicom .* -o OUT"
        ):
            read_image(tmp_path / name)


def test_compression_that_does_not_fit_the_name_is_explained(tmp_path: Path) -> None:
    image, _ = rawfiles.make_heart()
    make_nifti(tmp_path / "a.nii", image).rename(tmp_path / "b.nii.gz")
    make_nifti(tmp_path / "a.nii.gz", image).rename(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"without compression; rename it to \.nii"):
        read_image(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"rename it to \.nii\.gz"):
        read_image(tmp_path / "b.nii")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    for name in ("absent.nii.gz", "folder.nii.gz", "absent.mha", "x.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


def test_errors_of_several_cases_survive_a_process_pool() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(CaseErrors(["case a: one", "case b: two"])))  # noqa: S301
    assert error.lines() == ["case a: one", "case b: two"] and str(error) == "case a: one; case b: two"
