"""Reads and writes PNG, BMP and TIFF: one grey channel or RGB; a TIFF of several pages that are alike is a stack of slices.

A picture has no position in space: its spacing is 1 mm, or what a JSON file beside it says. Pillow says what a file holds; values come
from SimpleITK, which keeps 16 and 32 bits and signs, but from Pillow where they are indices of a palette.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError, UtsegError
from utseg.files import read_json, write_text
from utseg.notices import Notice
from utseg.rawdata.content import kind_of
from utseg.rawdata.geometry import Geometry, affine_of_itk, affine_problem
from utseg.rawdata.itk import itk_errors
from utseg.rawdata.names import CHANNEL_SUFFIX
from utseg.rawdata.nifti import LARGEST_VOXELS, ImageFrame

FORMATS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
COLOUR_MODES = ("P", "RGB", "RGBA")
ONE_CHANNEL = "expected one grey channel a file, as the dataset has a name for each; export it in grey"
SPACING_BEGINS = '{"spacing": ['
LABELS_ARE_GREY = "a label is one grey channel, or a palette, of class values: export it so"
EXAMPLE = '{"spacing": [y, x]} or {"spacing": [z, y, x]}, in mm'
DAMAGED = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)
"""What Pillow raises for damaged files."""
IMAGES_OF = {"labelsTr": "imagesTr", "labelsTs": "imagesTs"}


def read_image(path: Path) -> ImageFrame:
    """An image as (C, Z, Y, X): one grey channel or red, green and blue, in the file's own type. Raises InputError."""
    with _opened(path) as picture:
        transparent = picture.mode == "RGBA"
        values_ZYXC = _values(path, picture, as_colours=True)
    notices: tuple[Notice, ...] = ()
    if transparent:
        values_ZYXC = values_ZYXC[..., :-1]
        notices = (Notice("has transparency, which is left out", str(path)),)
    values_CZYX = np.moveaxis(values_ZYXC, -1, 0)
    geometry = _geometry(path, values_CZYX.shape[1:])
    return ImageFrame(geometry.from_file(values_CZYX), geometry, notices)


def read_label(path: Path) -> ImageFrame:
    """A label map as (Z, Y, X): grey values, or the indices of a palette. Raises InputError."""
    values = stored_label(path)
    geometry = _geometry(path, values.shape)
    return ImageFrame(geometry.from_file(values), geometry)


def stored_label(path: Path) -> NDArray[Any]:
    """The values of a label map, (pages, rows, columns). Raises InputError."""
    with _opened(path) as picture:
        if picture.mode not in (*GREY_MODES, "P"):
            raise InputError(f"{path}: several channels a pixel (mode {picture.mode}); {LABELS_ARE_GREY}")
        return _values(path, picture, as_colours=False)[..., 0]


def spacing_file(path: Path) -> Path | None:
    """The JSON that says the spacing of a picture: CASE.json beside CASE_0000.png or CASE.png; of a label, else that of its image.

    None where there is none, and the spacing is 1 mm.
    """
    folder = path.parent
    places = [_beside(path)]
    if folder.name in IMAGES_OF:
        places.append(_beside(folder.with_name(IMAGES_OF[folder.name]) / path.name))
    elif match := CHANNEL_SUFFIX.fullmatch(path.stem):
        places.insert(0, _beside(path.with_stem(match["case"])))
    return next((file for file in places if file.exists()), None)


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def encoded(path: Path, mask: NDArray[np.uint8]) -> bytes:
    """A mask, uint8 (Z, Y, X), as the content of a grey picture of the format that the path's ending names."""
    from io import BytesIO

    from PIL import Image

    first, *others = [Image.fromarray(np.ascontiguousarray(slice_YX)) for slice_YX in mask]
    content = BytesIO()
    if (kind := FORMATS[path.suffix]) == "TIFF":
        first.save(content, kind, compression="tiff_adobe_deflate", save_all=True, append_images=others)
    else:
        assert not others, "only a TIFF is read as a stack"
        first.save(content, kind)
    return content.getvalue()


def write_spacing(path: Path, geometry: Geometry) -> Path | None:
    """Writes the JSON beside a picture of this geometry, by the axes of the file. Where its spacing is 1 mm, an earlier one is removed."""
    beside = _beside(path)
    x, y, z = (float(f"{length:.7g}") for length in np.linalg.norm(geometry.file_matrix[:3, :3], axis=0))
    if not x == y == z == 1:
        write_text(beside, f"{SPACING_BEGINS}{z!r}, {y!r}, {x!r}]}}\n")
        return beside
    if beside.is_file() and beside.read_bytes().startswith(SPACING_BEGINS.encode()):
        beside.unlink()
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Pillow's picture of the format that the name says, its pages checked. Pillow's own errors become InputError."""
    from PIL import Image, UnidentifiedImageError

    kind = FORMATS[path.suffix]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a large picture, and of tags that make no sense
            with Image.open(path, formats=[kind]) as picture:
                _check_pages(path, picture)
                yield picture
    except UnidentifiedImageError:
        with path.open("rb") as handle:
            begin = handle.read(64)
        known = kind_of(begin)
        if not begin:
            raise InputError(f"{path}: the file is empty; copy or export it again") from None
        what = f"begins like {known or repr(begin[:8])}"
        raise InputError(
            f"{path}: not a {kind} of 8, 16 or 32 bits a value that can be read: {what}; export it again"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: far more pixels than can be used; crop it, or cut it into tiles") from None
    except DAMAGED as error:
        if isinstance(error, UtsegError):
            raise
        raise InputError(
            f"{path}: could not be read ({getattr(error, 'strerror', None) or error}); copy or export it again"
        ) from None


def _check_pages(path: Path, picture: Any) -> None:
    """Refuses an animation, a mode that is no image of ours, and pages that are no stack of slices. The first page is shown afterwards."""
    if picture.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise InputError(f"{path}: colours in mode {picture.mode}; expected grey or RGB: export it so")
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "TIFF":
        raise InputError(f"{path}: an animation of {pages} pictures; expected one: export each as a file")
    first = picture.size, picture.mode
    for page in range(1, pages):
        picture.seek(page)
        if (picture.size, picture.mode) != first:
            (width, height), mode = first
            raise InputError(
                f"{path}: its {pages} pages are not alike: page 1 is {width} × {height} in mode {mode}, page {page + 1} "
                f"{picture.width} × {picture.height} in mode {picture.mode}; expected one picture, or a stack of slices: export it again"
            )
    picture.seek(0)
    if pages * picture.width * picture.height > LARGEST_VOXELS:
        raise InputError(
            f"{path}: {pages} × {picture.width} × {picture.height} pixels; expected at most {LARGEST_VOXELS:,}"
        )


def _values(path: Path, picture: Any, *, as_colours: bool) -> NDArray[Any]:
    """(Z, Y, X, C). A palette: its colours, or its indices."""
    pages = getattr(picture, "n_frames", 1)
    if picture.format == "BMP" or picture.mode in ("1", "P"):
        found = []
        for page in range(pages):
            picture.seek(page)
            shown = picture.convert("RGB") if as_colours and picture.mode == "P" else picture
            found.append(np.asarray(shown))
        values = np.stack(found)
        values = values.astype(np.uint8) if values.dtype == np.bool_ else values
        return values if values.ndim == 4 else values[..., np.newaxis]
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(f"{picture.format}ImageIO")
    with itk_errors(path):
        read = reader.Execute()
    expected = pages, picture.height, picture.width, len(picture.getbands())
    values = SimpleITK.GetArrayFromImage(read)
    if values.size != np.prod(expected):
        found_size = " × ".join(map(str, values.shape))
        raise InputError(
            f"{path}: {found_size} values; expected {' × '.join(map(str, expected))} by its header: export it again"
        )
    return np.reshape(values, expected)


def _geometry(path: Path, size_zyx: tuple[int, ...]) -> Geometry:
    z, y, x = size_zyx
    spacing_xyz = _spacing_zyx(path, z)[::-1]
    matrix = affine_of_itk(spacing_xyz, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    return Geometry.of_file((x, y, z), matrix)


def _spacing_zyx(path: Path, slices: int) -> tuple[float, ...]:
    file = spacing_file(path)
    if file is None:
        return (1.0, 1.0, 1.0)
    value = read_json(file)
    spacing: Any = value.get("spacing") if isinstance(value, dict) else None
    fits = isinstance(spacing, list) and all(
        type(length) in (int, float) and length > 0 for length in spacing
    )
    if not fits or len(spacing) not in ((2, 3) if slices == 1 else (3,)):
        wanted = EXAMPLE if slices == 1 else '{"spacing": [z, y, x]}, in mm, for a stack of slices'
        raise InputError(f"{file}: spacing: expected {wanted}; found {str(value)[:80]}")
    zyx = tuple(map(float, spacing if len(spacing) == 3 else (1.0, *spacing)))
    if problem := affine_problem(np.diag([*zyx[::-1], 1.0])):
        raise InputError(f"{file}: {problem}")
    return zyx
