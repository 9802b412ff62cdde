"""Pictures through the gate: PNG, BMP and TIFF as other programs write them, their spacing, and masks that come back as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
from numpy.typing import NDArray
from PIL import Image

from utseg.case import Case
from utseg.errors import CaseErrors, InputError
from utseg.rawdata.gate import LoadedCase, frames_of, read_case, read_image, read_label
from utseg.rawdata.write import write_mask

LABELS = {"background": 0, "disc": 1, "square": 2}
GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 255, (20, 24)).astype(np.uint8)
GREY_16 = GENERATOR.integers(0, 65535, (20, 24)).astype(np.uint16)
COLOURS = GENERATOR.integers(0, 255, (20, 24, 3)).astype(np.uint8)
COLOURS_16 = GENERATOR.integers(0, 65535, (20, 24, 3)).astype(np.uint16)
STACK = GENERATOR.integers(0, 255, (5, 20, 24)).astype(np.uint8)
CLASSES = (GREY % 3).astype(np.uint8)
ENDINGS = (".png", ".bmp", ".tif", ".tiff")


def load(path: Path, channels: int | None = None) -> LoadedCase:
    return read_case(Case("c", "c", (path,), channels=channels), LABELS)


def by_pillow(path: Path, values: NDArray[Any], palette: bool = False) -> Path:
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(path)
    return path


def by_itk(path: Path, values: NDArray[Any]) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=values.ndim == 3), str(path))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_others_write_is_read_as_it_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    grey = load(by_pillow(path, GREY))
    assert np.array_equal(grey.image_CZYX, GREY[None, None]) and frames_of(grey.case) == 1
    assert grey.geometry.spacing_zyx_mm == (1, 1, 1) and grey.geometry.way.nominal
    assert np.array_equal(load(by_pillow(path, COLOURS), 3).image_CZYX[:, 0], np.moveaxis(COLOURS, -1, 0))
    assert np.array_equal(load(by_itk(path, COLOURS), 3).image_CZYX[:, 0], np.moveaxis(COLOURS, -1, 0))
    for palette in (False, True):
        assert np.array_equal(read_label(by_pillow(path, CLASSES, palette), LABELS)[0], CLASSES[None])
    assert np.array_equal(read_label(by_pillow(path, CLASSES == 1), LABELS)[0], CLASSES[None] == 1)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_stay_and_transparency_goes_with_a_word(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    assert np.array_equal(load(by_pillow(path, GREY_16)).image_CZYX[0, 0], GREY_16)
    assert np.array_equal(load(by_itk(path, COLOURS_16), 3).image_CZYX[:, 0], np.moveaxis(COLOURS_16, -1, 0))
    loaded = load(by_pillow(path, np.dstack([COLOURS, GREY])), 3)
    assert np.array_equal(loaded.image_CZYX[:, 0], np.moveaxis(COLOURS, -1, 0))
    assert [str(warning) for warning in loaded.warnings] == [f"{path}: has transparency, which is left out"]


@pytest.mark.parametrize("kind", ["f4", "i2", "i1", "u4", "i4"])
def test_tiff_keeps_its_type(tmp_path: Path, kind: str) -> None:
    values = (GREY * 100.0 - 9000).clip(0 if kind[0] == "u" else -100, None if kind != "i1" else 100)
    tifffile.imwrite(tmp_path / "x.tif", values.astype(kind))
    assert np.array_equal(load(tmp_path / "x.tif").image_CZYX[0, 0], values.astype(kind).astype(np.float32))


def test_a_tiff_of_pages_is_a_stack_of_slices(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s_0000.tif", STACK)
    assert np.array_equal(load(tmp_path / "s_0000.tif").image_CZYX[0], STACK)
    (tmp_path / "s.json").write_text('{"spacing": [2, 3, 1]}')  # slices lie where the spacing is largest
    image, geometry = read_image(tmp_path / "s_0000.tif")
    assert np.array_equal(image, STACK.transpose(1, 0, 2)) and geometry.spacing_zyx_mm == (3, 2, 1)
    mask = (image > 100).astype(np.uint8)
    files = write_mask(tmp_path / "out.tif", mask, geometry)
    assert [file.name for file in files] == ["out.tif", "out.json"]
    assert np.array_equal(tifffile.imread(files[0]), (STACK > 100).astype(np.uint8))
    read, placed = read_label(files[0], LABELS)
    assert np.array_equal(read, mask) and placed == geometry


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_mask_is_a_grey_picture_of_the_same_size(tmp_path: Path, ending: str) -> None:
    _, geometry = read_image(by_pillow(tmp_path / f"x{ending}", COLOURS))
    (tmp_path / "mask.json").write_text('{"spacing": [2.0, 2.0, 2.0]}')  # of an earlier mask
    (mask,) = write_mask(tmp_path / f"mask{ending}", CLASSES[None], geometry)
    with Image.open(mask) as picture:
        assert picture.mode == "L" and np.array_equal(np.asarray(picture), CLASSES)
    read, placed = read_label(mask, LABELS)
    assert np.array_equal(read[0], CLASSES) and placed == geometry


def test_the_spacing_is_what_the_json_beside_the_image_says(tmp_path: Path) -> None:
    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    images.mkdir()
    labels.mkdir()
    case = Case("a_0001", "a", (by_pillow(images / "a_0001_0000.png", GREY),))
    label = by_pillow(labels / "a_0001.png", CLASSES)
    (images / "a_0001.json").write_text('{"spacing": [0.5, 0.25]}')
    assert read_case(case, LABELS).geometry.spacing_zyx_mm == (1, 0.5, 0.25)
    assert read_label(label, LABELS)[1].spacing_zyx_mm == (1, 0.5, 0.25)
    (labels / "a.json").write_text('{"spacing": [9, 9]}')  # another case's
    assert read_label(label, LABELS)[1].spacing_zyx_mm == (1, 0.5, 0.25)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"spacing": [2]}', "found {'spacing': [2]}"),
        ('{"spacing": [0, 1]}', "spacing: expected"),
        ('{"spacing": ["1", "1"]}', "spacing: expected"),
        ('{"shapes": []}', 'expected {"spacing": [y, x]} or {"spacing": [z, y, x]}, in mm; found'),
        ("[1, 1]", "found [1, 1]"),
        ("{", "not valid JSON"),
        ('{"spacing": [1e9, 1]}', "1e+09"),
    ],
)
def test_a_wrong_json_is_refused(tmp_path: Path, text: str, found: str) -> None:
    by_pillow(tmp_path / "x_0000.png", GREY)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CaseErrors) as caught:
        load(tmp_path / "x_0000.png")
    (line,) = caught.value.lines()
    assert line.startswith(f"case c: {tmp_path / 'x.json'}: ") and found in line


def unlike_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0])
        writer.write(STACK[0, :10])


def animation(path: Path) -> None:
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(CLASSES)])


def cut(path: Path) -> None:
    by_pillow(path, GREY)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("name", "write", "found"),
    [
        ("x.png", animation, "an animation of 2 pictures"),
        ("x.tif", unlike_pages, "its 2 pages are not alike: page 1 is 24 × 20 in mode L, page 2 24 × 10"),
        ("x.png", lambda path: path.write_bytes(b""), "the file is empty"),
        ("x.png", lambda path: Image.fromarray(GREY).save(path, "JPEG"), "begins like a JPEG picture"),
        ("x.tif", lambda path: tifffile.imwrite(path, GREY.astype(float)), "not a TIFF of 8, 16 or 32 bits"),
        ("x.tif", lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path), "colours in mode CMYK"),
        ("x.png", lambda path: by_pillow(path, np.dstack([GREY, GREY])), "colours in mode LA"),
        ("x.png", lambda path: by_pillow(path, COLOURS), "3 channels; expected one grey channel a file"),
        ("x.png", lambda path: by_pillow(path, GREY * 0), "all voxels have the same value (0)"),
        ("x.tif", lambda path: tifffile.imwrite(path, GREY * np.float32("nan")), "480 NaN"),
        *((f"x{ending}", cut, "could not be read") for ending in ENDINGS),
    ],
)
def test_what_is_no_picture_of_ours_is_refused_in_a_line(
    tmp_path: Path, name: str, write: Any, found: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(CaseErrors) as caught:
        load(tmp_path / name)
    (line,) = caught.value.lines()
    assert line.startswith(f"case c: {tmp_path / name}: ") and found in line and "0x" not in line


def test_colours_are_no_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"several channels a pixel \(mode RGB\); a label is one grey"):
        read_label(by_pillow(tmp_path / "x.png", COLOURS), LABELS)


def test_channels_are_counted_over_all_files(tmp_path: Path) -> None:
    red = by_pillow(tmp_path / "c_0000.png", GREY)
    with pytest.raises(CaseErrors, match=r"c_0000.png: holds 1 channel; expected the 3 channels"):
        load(red, 3)
    by_pillow(red, COLOURS)
    fourth = by_pillow(tmp_path / "c_0001.png", GREY_16)
    loaded = read_case(Case("c", "c", (red, fourth), channels=4), LABELS)
    assert np.array_equal(loaded.image_CZYX[3, 0], GREY_16) and loaded.image_CZYX.shape == (4, 1, 20, 24)
    by_pillow(fourth, GREY[:10])
    with pytest.raises(CaseErrors, match=r"size \(z, y, x\) 1 × 10 × 24 against 1 × 20 × 24"):
        read_case(Case("c", "c", (red, fourth), channels=4), LABELS)


def test_a_channel_of_a_picture_may_be_the_same_everywhere(tmp_path: Path) -> None:
    grey_blue = COLOURS * np.array([1, 1, 0], np.uint8)
    assert not load(by_pillow(tmp_path / "x.png", grey_blue), 3).image_CZYX[2].any()
    assert json.dumps(read_image(tmp_path / "x.png")[1].to_json())
