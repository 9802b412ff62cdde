"""Damaged files are refused wherever the damage is; whole ones are read whatever way they were compressed."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawfiles

from utseg.errors import InputError
from utseg.rawdata.content import CHUNK_BYTES, unpacked
from utseg.rawdata.gate import frame_count, read_image
from utseg.rawdata.nifti import labelled_frames, read_on


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return rawfiles.make_heart((3, 20, 18), seed=4)[0]


@pytest.fixture
def compressed(tmp_path: Path, image: np.ndarray) -> Path:
    return rawfiles.make_nifti(tmp_path / "image.nii.gz", image)


@pytest.fixture
def plain(tmp_path: Path, image: np.ndarray) -> Path:
    return rawfiles.make_nifti(tmp_path / "image.nii", image)


def _is_refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        read_image(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("name", ["compressed", "plain"])
def test_a_file_cut_anywhere_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    data = path.read_bytes()
    lengths = {*range(0, len(data), 7), *range(max(len(data) - 24, 0), len(data))}
    read = [length for length in sorted(lengths) if not _is_refused(path, data[:length])]
    assert read == []


def test_any_flipped_byte_is_refused_or_says_nothing_about_the_content(compressed: Path) -> None:
    data, content = compressed.read_bytes(), rawfiles.read_content(compressed)
    harmless = []
    for position in range(len(data)):
        for mask in (0x01, 0x80):
            flipped = bytearray(data)
            flipped[position] ^= mask
            if not _is_refused(compressed, bytes(flipped)):
                assert rawfiles.read_content(compressed) == content  # such as the time in the gzip header
                harmless.append(position)
    assert set(range(4, 10)) <= set(harmless) and len(set(harmless)) <= 12


def test_gzip_of_several_members_and_with_padding_is_read(compressed: Path, image: np.ndarray) -> None:
    content = rawfiles.read_content(compressed)
    members = b"".join(gzip.compress(content[start : start + 500]) for start in range(0, len(content), 500))
    for data in (members, members + bytes(512), gzip.compress(b"") + members, gzip.compress(content, 0)):
        assert not _is_refused(compressed, data)
        assert np.array_equal(read_image(compressed)[0], image)


def test_what_follows_the_gzip_stream_is_refused(compressed: Path) -> None:
    data = compressed.read_bytes()
    assert _is_refused(compressed, data + b"rubbish")
    assert _is_refused(compressed, data + bytes(100) + b"\x1f")
    assert _is_refused(compressed, data + data[:20])


@pytest.mark.parametrize("name", ["compressed", "plain"])
@pytest.mark.parametrize("extra", [b"\0", bytes(5000)])
def test_more_content_than_the_header_says_is_refused(
    name: str, extra: bytes, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    rawfiles.write_content(path, rawfiles.read_content(path) + extra)
    with pytest.raises(InputError, match=r"header calls for .* found"):
        read_image(path)


def test_a_bomb_is_refused_without_unpacking_it(compressed: Path) -> None:
    content = rawfiles.read_content(compressed)
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(content) + b"".join(packer.compress(bytes(2**20)) for _ in range(200))
    compressed.write_bytes(bomb + packer.flush())
    tracemalloc.start()
    with pytest.raises(InputError, match="found more"):
        read_image(compressed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES


@pytest.mark.parametrize("kind", ["absurd", "larger"])
@pytest.mark.parametrize("name", ["compressed", "plain"])
def test_absurd_sizes_are_refused_before_anything_is_allocated(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    path = rawfiles.corrupt(request.getfixturevalue(name), kind)
    tracemalloc.start()
    with pytest.raises(InputError, match="header"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * CHUNK_BYTES


def test_one_frame_of_a_cine_is_read_without_holding_the_others(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4, (40, 8, 128, 128), dtype=np.uint8)
    path = rawfiles.make_nifti(tmp_path / "cine.nii.gz", frames)
    tracemalloc.start()
    image, geometry = read_image(path, 17)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(image, frames[17]) and geometry.size_zyx == (8, 128, 128)
    assert peak < frames.nbytes + 4 * CHUNK_BYTES < 40 * image.nbytes
    assert frame_count(path) == 40


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_frames_with_a_voxel_that_is_not_zero_are_found(tmp_path: Path, ending: str) -> None:
    voxels = np.zeros((5, 50, 100, 120), dtype=np.uint16)
    path = rawfiles.make_nifti(tmp_path / f"label{ending}", voxels)
    assert list(labelled_frames(path)) == []
    voxels[4, -1, -1, -1] = 1
    rawfiles.make_nifti(path, voxels)
    assert list(labelled_frames(path)) == [4]
    voxels[1, 0, 0, 0] = voxels[2, -1, -1, -1] = 3
    rawfiles.make_nifti(path, voxels)
    assert list(labelled_frames(path)) == [1, 2, 4]


@pytest.mark.parametrize("name", ["cine.nii.gz", "cine.nii"])
def test_frames_read_on_are_those_of_the_file_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Frames of 0.28 MB, so that they begin and end within chunks; a file in the place of another is another."""
    opened: list[Path] = []

    def counted(path: Path, *rest: Any, **named: Any) -> Iterator[bytes]:
        opened.append(path)
        return unpacked(path, *rest, **named)

    monkeypatch.setattr("utseg.rawdata.content.unpacked", counted)
    cine = np.random.default_rng(1).integers(0, 9, (6, 2, 300, 235), np.int16)
    path = rawfiles.make_nifti(tmp_path / name, cine)
    for frame in (1, 2, 5, 5, 0, 4):
        np.testing.assert_array_equal(read_on(path, frame).values, cine[frame])
    assert len(opened) == (3 if name.endswith(".gz") else 0)  # again for the second 5, and for 0
    rawfiles.make_nifti(path, cine[::-1, :, :-1].copy())
    np.testing.assert_array_equal(read_on(path, 5).values, cine[0, :, :-1])
    with pytest.raises(InputError, match="frame 6 is asked for"):
        read_on(path, 6)


def test_a_cine_that_is_cut_off_is_refused_where_a_frame_ends_too_soon(tmp_path: Path) -> None:
    cine = np.random.default_rng(1).integers(0, 9, (4, 3, 50, 47), np.int16)
    path = rawfiles.make_nifti(tmp_path / "cine.nii.gz", cine)
    path.write_bytes(path.read_bytes()[:-2000])
    np.testing.assert_array_equal(read_on(path, 1).values, cine[1])
    with pytest.raises(InputError, match="cut off"):
        read_on(path, 3)
