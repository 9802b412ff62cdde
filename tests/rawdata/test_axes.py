"""Whatever axis of a file its slices lie along, the gate gives the same slices, and masks come back as the file lies."""

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from rawfiles import LABELS, make_affine, make_heart, make_nifti

from utseg.case import Case
from utseg.errors import CaseErrors
from utseg.rawdata.gate import frame_count, read_case, read_image, read_label
from utseg.rawdata.geometry import Geometry, slice_axis_of
from utseg.rawdata.write import write_mask

PERMUTATIONS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))


def reoriented(path: Path, permutation: tuple[int, ...], flips: tuple[int, ...], to: Path) -> Path:
    """The same scan with other file axes, made by nibabel without touching a voxel."""
    image = nib.load(path)
    nib.save(image.as_reoriented(np.column_stack([permutation, flips])), to)
    return to


def in_space(image_ZYX: np.ndarray, geometry: Geometry) -> dict[tuple[int, ...], float]:
    """Values by position in tenths of a millimetre."""
    z, y, x = np.indices(image_ZYX.shape)
    places = np.stack([x, y, z, np.ones_like(x)], -1) @ geometry.matrix.T
    keys = np.rint(10 * places[..., :3]).astype(int).reshape(-1, 3)
    return {tuple(key): value for key, value in zip(keys.tolist(), image_ZYX.ravel().tolist(), strict=True)}


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_any_order_and_direction_of_the_axes_gives_the_same_slices(
    tmp_path: Path, permutation: tuple[int, ...], frames: int
) -> None:
    size = (4, 9, 7)
    voxels = np.stack([make_heart(size, seed=seed)[0] for seed in range(frames)])
    path = make_nifti(tmp_path / "x.nii.gz", voxels[0] if frames == 1 else voxels)
    frame = None if frames == 1 else 2
    original, lies = read_image(path, frame)
    places = in_space(original, lies)
    for number, flips in enumerate(FLIPS):
        copy = reoriented(path, permutation, flips, tmp_path / f"{number}.nii.gz")
        assert frame_count(copy) == frames
        image, geometry = read_image(copy, frame)
        assert image.flags.c_contiguous and geometry.spacing_zyx_mm[0] == 8 and image.shape[0] == 4
        assert in_space(image, geometry) == places
        slices = {frozenset(in_space(image[z : z + 1], _at(geometry, z)).items()) for z in range(4)}
        assert slices == {frozenset(in_space(original[z : z + 1], _at(lies, z)).items()) for z in range(4)}
        assert Geometry.from_json(geometry.to_json()) == geometry


def _at(geometry: Geometry, z: int) -> Geometry:
    """That of one slice."""
    matrix = geometry.matrix
    matrix[:3, 3] += z * matrix[:3, 2]
    affine = tuple(tuple(row) for row in matrix.tolist())
    return Geometry((1, *geometry.size_zyx[1:]), affine)


@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_a_mask_is_written_as_the_file_lies(tmp_path: Path, permutation: tuple[int, ...]) -> None:
    voxels, _ = make_heart((4, 9, 7))
    path = make_nifti(tmp_path / "x.nii.gz", voxels)
    cine = make_nifti(tmp_path / "cine.nii.gz", np.stack([voxels, voxels + 1]))
    for number, flips in enumerate(FLIPS):
        for source, frame in ((path, None), (cine, 1)):
            copy = reoriented(source, permutation, flips, tmp_path / f"{number}_{source.name}")
            image, geometry = read_image(copy, frame)
            bright = (image > 100).astype(np.uint8)
            mask = bright if frame is None else np.stack([bright * 0, bright])
            write_mask(tmp_path / "mask.nii.gz", mask, geometry)
            given_, written = nib.load(copy), nib.load(tmp_path / "mask.nii.gz")
            assert written.shape == given_.shape
            for field in ("srow_x", "srow_y", "srow_z", "pixdim", "sform_code", "qform_code", "quatern_b"):
                assert written.header[field].tobytes() == given_.header[field].tobytes()
            expected = given_.get_fdata() > 100
            if frame is not None:
                expected[..., 0] = False
            assert np.array_equal(written.get_fdata() == 1, expected)
        label, placed = read_label(tmp_path / "mask.nii.gz", LABELS, 1)
        assert np.array_equal(label, bright) and placed.differences(geometry) == []


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_metaimage_and_nrrd_too_and_their_masks_become_nifti_that_lies_there(
    tmp_path: Path, permutation: tuple[int, ...], ending: str
) -> None:
    image = SimpleITK.GetImageFromArray(make_heart((4, 9, 7))[0])
    image.SetSpacing((1.25, 1.5, 8.0))
    image.SetDirection((0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1))
    turned = SimpleITK.PermuteAxes(image, permutation)
    path = tmp_path / f"x{ending}"
    SimpleITK.WriteImage(turned, str(path))
    values, geometry = read_image(path)
    assert values.shape[0] == 4 and geometry.spacing_zyx_mm[0] == 8
    write_mask(tmp_path / "mask.nii.gz", (values > 100).astype(np.uint8), geometry, path)
    written = SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(written), SimpleITK.GetArrayFromImage(turned) > 100)
    for what in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(written, what)(), getattr(turned, what)(), atol=1e-5)


def test_a_picture_of_one_slice_is_one_slice_wherever_its_single_side_is(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 200, (24, 17)).astype(np.int16)
    for axis in range(3):
        nib.save(nib.Nifti1Image(np.expand_dims(picture, axis), np.eye(4)), tmp_path / "x.nii.gz")
        image, geometry = read_image(tmp_path / "x.nii.gz")
        assert image.shape == (1, 17, 24) and np.array_equal(image[0], picture.T)
        write_mask(tmp_path / "mask.nii.gz", (image > 50).astype(np.uint8), geometry)
        assert np.array_equal(
            np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), np.expand_dims(picture > 50, axis)
        )


@pytest.mark.parametrize(
    "size, spacing, axis",
    [
        ((10, 10, 5), (1.5, 1.5, 8), 2),
        ((5, 10, 10), (8, 1.5, 1.5), 0),
        ((10, 5, 10), (1.5, 8, 1.5), 1),
        ((10, 10, 10), (1, 1, 1), 2),  # cubes: the file's last axis
        ((10, 10, 10), (1.2, 1, 1), 2),
        ((10, 10, 10), (1.25, 1, 1), 0),
        ((10, 10, 10), (8, 8, 1), 2),  # no single largest
        ((1, 10, 10), (1, 1, 1), 0),
        ((1, 10, 10), (1, 3, 1), 0),  # a side of one voxel, whatever the spacing
        ((10, 10, 1), (3, 1, 1), 2),
        ((1, 10, 1), (9, 1, 1), 0),
        ((1, 10, 1), (1, 1, 1), 2),
    ],
)
def test_the_rule_for_the_slice_axis(size: Any, spacing: Any, axis: int) -> None:
    assert slice_axis_of(size, spacing) == axis


@given(st.tuples(*[st.integers(2, 9)] * 3), st.permutations((8.0, 1.5, 1.25)), st.permutations(range(3)))
def test_the_geometry_of_a_file_is_told_by_its_axes(size: Any, spacing: Any, turned: Any) -> None:
    affine = make_affine(tuple(spacing), angles=(0.3, 0.2, 0.1))[:, [*turned, 3]]
    geometry = Geometry.of_file(size, affine)
    assert geometry.file_size_xyz == size and np.array_equal(geometry.file_matrix, affine)
    values = np.random.default_rng(0).random((2, *size[::-1]))
    given_ = geometry.from_file(values)
    assert given_.shape[1:] == geometry.size_zyx and np.array_equal(geometry.to_file(given_), values)
    voxel = (1, 0, 1)  # z, y, x of the array
    order = [
        int(np.flatnonzero((column == affine[:3, :3].T).all(1))[0]) for column in geometry.matrix[:3, :3].T
    ]
    index = np.zeros(3, int)
    index[order] = voxel[::-1]
    assert given_[(0, *voxel)] == values[(0, *index[::-1])]


def test_image_and_label_in_other_orders_go_together_where_they_lie_alike(tmp_path: Path) -> None:
    image, label = make_heart((4, 9, 7))
    path = make_nifti(tmp_path / "x_0000.nii.gz", image)
    labelled = make_nifti(tmp_path / "x.nii.gz", label)
    slices_first = reoriented(labelled, (1, 2, 0), (1, 1, 1), tmp_path / "first.nii.gz")
    assert nib.load(slices_first).shape == (4, 7, 9)
    loaded = read_case(Case("x", "x", (path,), slices_first), LABELS)
    assert np.array_equal(loaded.label_ZYX, label)
    for permutation, flips in (((1, 0, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1))):
        other = reoriented(labelled, permutation, flips, tmp_path / "other.nii.gz")
        with pytest.raises(CaseErrors, match="does not lie as"):
            read_case(Case("x", "x", (path,), other), LABELS)
