"""A small cine, what `utseg_import_dicom` made of its DICOM, and whether both are the same."""

import io
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLosslessSV1

from utseg.dicom.sources import CineSources, read_sources
from utseg.phantom.dicom import RAS_TO_LPS
from utseg.rawdata.tables import read_table

USUAL = np.array([[-0.74, -0.35, 0.58], [0.0, -0.86, -0.51], [0.68, -0.37, 0.63]])


def short_axis(spacing_xyz=(1.4, 1.4, 10.0), origin=(40.0, 60.0, -30.0)):
    """An affine to RAS as short-axis stacks have it."""
    axes, _ = np.linalg.qr(USUAL)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.sign(np.sum(axes * USUAL, axis=0)) * np.array(spacing_xyz)
    affine[:3, 3] = origin
    return affine


def cine(frames=5, slices=4, rows=12, columns=10, seed=0, dtype=np.int16):
    """(T, Z, Y, X) of noise: every pixel tells where it came from."""
    return np.random.default_rng(seed).integers(0, 4000, (frames, slices, rows, columns)).astype(dtype)


@dataclass(frozen=True)
class Imported:
    """What the command left and said."""

    folder: Path
    code: int
    out: str
    err: str

    def image(self, name="S001"):
        """Voxels (T, Z, Y, X), and the affine to RAS, by nibabel."""
        image = nibabel.load(self.folder / f"{name}.nii.gz")
        return np.asarray(image.dataobj).transpose(3, 2, 1, 0), image.affine

    def sources(self, name="S001") -> CineSources:
        return read_sources(self.folder, name)

    def rows(self, table="cines.csv"):
        return [dict(row) for row in read_table(self.folder / table).rows]

    def reasons(self):
        """How many files were left out, by the description of their series and why."""
        counts = Counter()
        for row in self.rows("left_out.csv"):
            counts[row["description"], row["why"]] += int(row["files"])
        return counts


def assert_same(result: Imported, image, affine, name="S001"):
    """The cine has the voxels and the place of an array whose slices run the same or the opposite way."""
    values, found = result.image(name)
    if (found[:3, 2] @ affine[:3, 2]) < 0:
        flip = np.diag([1.0, 1.0, -1.0, 1.0])
        flip[2, 3] = image.shape[1] - 1
        image, affine = image[:, ::-1], affine @ flip
    np.testing.assert_array_equal(values, image)
    np.testing.assert_allclose(found, affine, atol=1e-4)
    np.testing.assert_allclose(result.sources(name).ijk_to_lps, RAS_TO_LPS @ affine, atol=1e-4)


def recode(dataset, syntax, encode):
    """Encodes every frame of a dataset anew."""
    dataset.PixelData = encapsulate([encode(frame) for frame in dataset.pixel_array])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def jpeg_2000(frame):
    """One frame as a JPEG 2000 stream, without loss."""
    dataset = io.BytesIO()
    Image.fromarray(frame.astype(np.uint16)).save(dataset, "JPEG2000", no_jp2=True, irreversible=False)
    return dataset.getvalue()


def jpeg_lossless(frame):
    """One frame as a JPEG lossless stream, by GDCM: pydicom has no encoder for it."""
    with tempfile.TemporaryDirectory() as folder:
        return _by_gdcm(frame, f"{folder}/frame.dcm")


def _by_gdcm(frame, path):
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(path)
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(SimpleITK.GetImageFromArray(frame))
    written = pydicom.dcmread(path)
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return next(generate_frames(written.PixelData, number_of_frames=1))


def errors_in(path):
    """The errors that dciodvfy finds in an object; skips the test where dicom3tools is not installed."""
    command = shutil.which("dciodvfy") or pytest.skip("dciodvfy (dicom3tools) is not installed")
    run = subprocess.run([command, path], capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1) and run.stderr
    return [line for line in run.stderr.splitlines() if line.startswith("Error")]


def edit(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def translation(z):
    matrix = np.eye(4)
    matrix[2, 3] = z
    return matrix
