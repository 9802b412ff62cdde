"""A mask lies exactly where its image lies, and a mask that was not written well gets no name."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import rawfiles
from hypothesis import given, settings
from hypothesis import strategies as st
from rawfiles import LABELS, make_affine, make_nifti

from utseg.case import Case
from utseg.errors import ArtefactError, InputError, UtsegError
from utseg.rawdata.gate import read_case, read_image, read_label
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.nifti import parse_header
from utseg.rawdata.write import write_mask

GEOMETRIC_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
angles = st.tuples(*[st.floats(-3.1, 3.1)] * 3)
spacings = st.tuples(st.floats(1, 12), st.floats(0.3, 3), st.floats(0.3, 3))
sizes = st.tuples(*[st.integers(1, 9)] * 3).filter(lambda size: np.prod(size) > 1)


def voxels_of(size: tuple[int, ...], values: int = 4) -> np.ndarray:
    voxels = np.random.default_rng(sum(size)).integers(0, values, size).astype(np.uint8)
    voxels.reshape(-1)[:2] = 0, 1
    return voxels


def assert_same_geometry(mask: Path, image: Path) -> None:
    mine, others = nib.load(mask).header, nib.load(image).header
    for field in GEOMETRIC_FIELDS:
        assert mine[field].tobytes() == others[field].tobytes(), field
    assert tuple(mine["dim"][1:4]) == tuple(others["dim"][1:4])


@settings(max_examples=60, deadline=None)
@given(
    size=sizes,
    spacing=spacings,
    angles=angles,
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    mirrored=st.booleans(),
    version=st.sampled_from([1, 2]),
    order=st.sampled_from("<>"),
    codes=st.sampled_from([(1, 1), (2, 0), (0, 1), (0, 0), (4, 2)]),
)
def test_a_mask_has_the_header_of_its_image(
    tmp_path_factory: pytest.TempPathFactory, size: Any, spacing: Any, angles: Any, origin: Any, mirrored: bool,
    version: int, order: str, codes: Any,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("mask")
    affine = make_affine(spacing, origin, angles)
    affine[:3, 0] *= -1 if mirrored else 1
    sform, qform = codes
    image = voxels_of(size, 200)
    path = make_nifti(
        folder / "x.nii.gz", image, affine, version=version, order=order, sform_code=sform, qform_code=qform
    )
    geometry = read_image(path)[1]
    mask = voxels_of(geometry.size_zyx)
    write_mask(folder / "mask.nii.gz", mask, geometry)
    assert_same_geometry(folder / "mask.nii.gz", path)
    read, read_geometry = read_label(folder / "mask.nii.gz", LABELS)
    assert np.array_equal(read, mask) and read_geometry.affine == geometry.affine
    assert read_geometry.differences(geometry) == []
    assert Geometry.from_json(geometry.to_json()) == geometry


def test_a_mask_of_a_cine_is_a_cine(tmp_path: Path) -> None:
    frames = voxels_of((5, 4, 7, 6), 200)
    path = make_nifti(tmp_path / "x.nii.gz", frames, make_affine(angles=(0.2, 0.1, 0.4)))
    geometry = read_image(path, 2)[1]
    masks = voxels_of((5, 4, 7, 6))
    write_mask(tmp_path / "cine.nii.gz", masks, geometry, path)
    assert_same_geometry(tmp_path / "cine.nii.gz", path)
    assert np.array_equal(nib.load(tmp_path / "cine.nii.gz").dataobj, masks.T)
    write_mask(tmp_path / "frame.nii", masks[3], geometry, path)
    assert_same_geometry(tmp_path / "frame.nii", path)
    assert np.array_equal(nib.load(tmp_path / "frame.nii").dataobj, masks[3].T)


def test_scaling_type_and_free_text_of_the_image_are_not_kept(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"], header["cal_max"] = 3, -7, 900
        header["descrip"], header["aux_file"], header["db_name"] = b"Jane Doe", b"jane.txt", b"Doe"

    path = make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200).astype(np.float32), edit=edit)
    mask = voxels_of((3, 4, 5))
    write_mask(tmp_path / "mask.nii.gz", mask, read_image(path)[1])
    written = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(written.get_fdata().T, mask) and written.get_data_dtype() == np.uint8
    assert b"oe" not in rawfiles.read_content(tmp_path / "mask.nii.gz")[:348]


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    geometry = read_image(make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200)))[1]
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, voxels_of((3, 4, 5)), geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_mended_spacing_is_written_mended(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["pixdim"][1:4] = np.nan

    path = make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200), qform_code=0, edit=edit)
    geometry = read_image(path)[1]
    write_mask(tmp_path / "mask.nii.gz", voxels_of((3, 4, 5)), geometry)
    loaded = read_case(Case("x", "x", (path,), tmp_path / "mask.nii.gz"), LABELS)
    assert not any(warning.file == str(loaded.case.label) for warning in loaded.warnings)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").header.get_zooms(), (1.25, 1.5, 8))


def test_without_a_header_the_affine_is_written_or_that_of_the_like(tmp_path: Path) -> None:
    path = make_nifti(
        tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200), make_affine(angles=(0.4, 0.1, 0)), sform_code=3
    )
    geometry = read_image(path)[1]
    bare = Geometry(geometry.size_zyx, geometry.affine)
    mask = voxels_of((3, 4, 5))
    write_mask(tmp_path / "bare.nii.gz", mask, bare)
    read, written = read_label(tmp_path / "bare.nii.gz", LABELS)
    assert np.array_equal(read, mask) and written.differences(geometry) == []
    np.testing.assert_allclose(written.matrix, geometry.matrix, rtol=1e-6)
    write_mask(tmp_path / "like.nii.gz", mask, bare, path)
    assert_same_geometry(tmp_path / "like.nii.gz", path)
    assert int(parse_header(written.header)["sform_code"]) == 1


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 4, 6), np.uint8), np.zeros((3, 4, 5), np.int64), np.zeros((4, 5), np.uint8)]
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, mask: Any) -> None:
    geometry = read_image(make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200)))[1]
    with pytest.raises(InputError, match="does not fit"):
        write_mask(tmp_path / "mask.nii.gz", mask, geometry)
    with pytest.raises(InputError, match=r"\.nii\.gz"):
        write_mask(tmp_path / "mask.mha", voxels_of((3, 4, 5)), geometry)


@pytest.mark.parametrize("keep", [0, 20, 60, -1])
def test_a_disk_that_loses_bytes_leaves_the_old_mask_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    geometry = read_image(make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200)))[1]
    write_mask(tmp_path / "mask.nii.gz", voxels_of((3, 4, 5)), geometry)
    before = (tmp_path / "mask.nii.gz").read_bytes()
    files = sorted(tmp_path.iterdir())
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: whole(path, data[:keep]))
    with pytest.raises(ArtefactError, match=r"mask\.nii\.gz: what was written"):
        write_mask(tmp_path / "mask.nii.gz", 1 - voxels_of((3, 4, 5), 2), geometry)
    assert (tmp_path / "mask.nii.gz").read_bytes() == before and sorted(tmp_path.iterdir()) == files


def test_a_disk_that_changes_a_voxel_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = read_image(make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200)))[1]
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: whole(path, data[:-1] + b"\7"))
    with pytest.raises(ArtefactError, match="reads back differently"):
        write_mask(tmp_path / "mask.nii", voxels_of((3, 4, 5)), geometry)
    assert not (tmp_path / "mask.nii").exists()


def test_a_full_disk_leaves_the_old_mask_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = read_image(make_nifti(tmp_path / "x.nii.gz", voxels_of((3, 4, 5), 200)))[1]
    files = sorted(tmp_path.iterdir())

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UtsegError, match="No space left"):
        write_mask(tmp_path / "mask.nii.gz", voxels_of((3, 4, 5)), geometry)
    assert sorted(tmp_path.iterdir()) == files
