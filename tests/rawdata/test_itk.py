"""MetaImage and NRRD: read as SimpleITK reads them, and refused where SimpleITK would fill up what is missing."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from rawfiles import LABELS, make_affine, make_heart, make_nifti

from utseg.case import Case
from utseg.errors import InputError
from utseg.rawdata.gate import frame_count, read_case, read_image, read_label
from utseg.rawdata.write import write_mask

ENDINGS = [".mha", ".nrrd"]


def save(path: Path, array: np.ndarray, *, compressed: bool = False, vector: bool = False) -> Path:
    image = SimpleITK.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((1.25, 1.5, 8.0))
        image.SetOrigin((100.0, -50.0, 20.0))
        image.SetDirection((0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path), compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_image_lies_where_its_nifti_copy_lies(tmp_path: Path, ending: str, compressed: bool) -> None:
    voxels, label = make_heart((3, 12, 10))
    path = save(tmp_path / f"x_0000{ending}", voxels, compressed=compressed)
    image, geometry = read_image(path)
    assert np.array_equal(image, voxels) and geometry.spacing_zyx_mm == (8.0, 1.5, 1.25)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / "copy.nii.gz"))
    assert geometry.differences(read_image(tmp_path / "copy.nii.gz")[1]) == []
    write_mask(tmp_path / "mask.nii.gz", label, geometry, path)
    loaded = read_case(Case("x", "x", (path,), tmp_path / "mask.nii.gz"), LABELS)
    assert np.array_equal(loaded.label_ZYX, label)
    written = SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(
        written.GetDirection(), SimpleITK.ReadImage(str(path)).GetDirection(), atol=1e-6
    )
    np.testing.assert_allclose(written.GetOrigin(), (100.0, -50.0, 20.0), atol=1e-4)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, ending: str, compressed: bool) -> None:
    path = save(tmp_path / f"x{ending}", make_heart((3, 12, 10))[0], compressed=compressed)
    data = path.read_bytes()
    for length in {*range(0, len(data), 29), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(InputError) as caught:
            read_image(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_more_data_than_the_header_says_is_refused(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"x{ending}", make_heart((3, 12, 10))[0])
    path.write_bytes(path.read_bytes() + bytes(100))
    with pytest.raises(InputError, match=r"calls for 720 bytes, found 820"):
        read_image(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_flipped_byte_in_compressed_data_is_refused(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"x{ending}", make_heart((3, 12, 10))[0], compressed=True)
    data = bytearray(path.read_bytes())
    data[-200] ^= 0x20
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_colour_complex_and_other_formats_are_refused(tmp_path: Path, ending: str) -> None:
    colours = save(tmp_path / f"colours{ending}", np.zeros((3, 4, 5, 3), np.uint8), vector=True)
    with pytest.raises(InputError, match="vector"):
        read_image(colours)
    make_nifti(tmp_path / "x.nii", make_heart((3, 12, 10))[0]).rename(tmp_path / f"renamed{ending}")
    (tmp_path / f"empty{ending}").touch()
    for name, message in (("renamed", "not a"), ("empty", "empty"), ("absent", "could not be read")):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / f"{name}{ending}")


def test_data_in_another_file_is_refused(tmp_path: Path) -> None:
    header = save(tmp_path / "x.mhd", make_heart((3, 12, 10))[0])
    header.rename(tmp_path / "x.mha")
    with pytest.raises(InputError, match="another file"):
        read_image(tmp_path / "x.mha")


def test_absurd_sizes_are_refused_before_reading(tmp_path: Path) -> None:
    path = save(tmp_path / "x.mha", make_heart((3, 12, 10))[0])
    path.write_bytes(path.read_bytes().replace(b"DimSize = 10 12 3", b"DimSize = 30000 30000 30000"))
    with pytest.raises(InputError, match="30000 × 30000 × 30000"):
        read_image(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cine_needs_its_frame_named(tmp_path: Path, ending: str) -> None:
    frames = np.stack([make_heart((3, 12, 10), seed=seed)[1] for seed in range(3)])
    frames[1, 0, 0, 0] = 3
    path = tmp_path / f"cine{ending}"
    SimpleITK.WriteImage(
        SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(frame) for frame in frames]), str(path)
    )
    assert frame_count(path) == 3 and np.array_equal(read_label(path, LABELS, 1)[0], frames[1])
    with pytest.raises(InputError, match="4-D with 3 frames"):
        read_image(path)


def test_nifti_is_read_as_simpleitk_reads_it(tmp_path: Path) -> None:
    path = make_nifti(tmp_path / "x.nii.gz", make_heart((3, 12, 10))[0], make_affine(angles=(0.3, -0.8, 1.9)))
    image, geometry = read_image(path)
    oracle = SimpleITK.ReadImage(str(path))
    assert np.array_equal(image, SimpleITK.GetArrayFromImage(oracle))
    np.testing.assert_allclose(geometry.spacing_zyx_mm[::-1], oracle.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(geometry.matrix[:3, 3] * (-1, -1, 1), oracle.GetOrigin(), atol=1e-4)
    turned = np.diag([-1, -1, 1]) @ geometry.directions
    np.testing.assert_allclose(turned.ravel(), oracle.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("second", ["gzip", "zlib"])
def test_a_metaimage_of_two_streams_or_of_another_size_than_it_says_is_refused(
    tmp_path: Path, second: str
) -> None:
    """ITK reads the first stream and leaves the other voxels as they come."""
    path = save(tmp_path / "x.mha", make_heart((3, 12, 10))[0], compressed=True)
    head, _, data = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    voxels = zlib.decompress(data)
    streams = gzip.compress(voxels[:300]) + (gzip if second == "gzip" else zlib).compress(voxels[300:])

    def write(stated: bytes, data: bytes) -> None:
        changed = re.sub(rb"CompressedDataSize = \d+\n", stated, head)
        path.write_bytes(changed + b"ElementDataFile = LOCAL\n" + data)

    write(b"CompressedDataSize = %d\n" % len(streams), streams)
    with pytest.raises(InputError, match="something follows the compressed data"):
        read_image(path)
    for stated in (b"", b"CompressedDataSize = %d\n" % (len(data) - 9)):
        write(stated, data)
        with pytest.raises(InputError, match="CompressedDataSize is"):
            read_image(path)
    write(b"CompressedDataSize = %d\n" % len(data), data)
    assert read_image(path)[0].size == 360
