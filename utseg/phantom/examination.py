"""One synthetic subject: everything about it is drawn first (`Examination`), then rendered and written (`write_subject`).

What is drawn depends on the cohort's seed and the subject's number only.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.files import write_bytes
from utseg.phantom.anatomy import Heart, Pathology, contraction, cycle_phases
from utseg.phantom.chest import Chest
from utseg.phantom.cine import Details, Scene
from utseg.phantom.scanner import VENDORS, acquire, coil_field, draw_affine, draw_grid, draw_signals

UNLABELLED = "Training/Unlabeled"
DRAWING, NOISE = 0, 1


@dataclass(frozen=True)
class PhantomSettings:
    """What makes a cohort what it is. `matrix` is about the number of columns of an image; `slices` None is as many as the heart needs;
    `dicom`: examinations as scanners export them, in place of the M&Ms layout."""

    subjects: int = 24
    frames: int = 10
    matrix: int = 192
    slices: int | None = None
    seed: int = 0
    dicom: bool = False


@dataclass(frozen=True)
class Subject:
    """One synthetic subject before anything is drawn. `partition` is the partition's folder."""

    index: int
    code: str
    partition: str
    vendor: str
    pathology: Pathology
    es_before_ed: bool

    @property
    def labelled(self) -> bool:
        """Whether ED and ES have labels."""
        return self.partition != UNLABELLED

    @property
    def files(self) -> tuple[str, str]:
        """Image and label, relative to the cohort's folder."""
        start = f"{self.partition}/{self.code}/{self.code}"
        return f"{start}_sa.nii.gz", f"{start}_sa_gt.nii.gz"

    def generator(self, seed: int, purpose: int) -> np.random.Generator:
        """Random numbers of this subject for one purpose."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self.index, purpose)))


class Examination:
    """What is drawn for one subject: everything but the noise. The scene's slices are in file order; `phases` are those of the frames."""

    def __init__(self, settings: PhantomSettings, subject: Subject) -> None:
        rng = subject.generator(settings.seed, DRAWING)
        self.subject = subject
        self.vendor = vendor = VENDORS[subject.vendor]
        heart = Heart(rng, subject.pathology)
        grid = draw_grid(rng, vendor, settings.matrix, heart.length_mm, settings.slices)
        slices = grid.size_zyx[0]
        depths = ((np.arange(slices) - rng.uniform(0.42, 0.58)) * grid.slice_spacing_mm).astype(np.float32)
        first_phase = rng.uniform(0.19, 0.29) if subject.es_before_ed else rng.uniform(-0.03, 0.03)
        self.phases, self.ed, self.es = cycle_phases(settings.frames, heart.end_systole, first_phase)
        self.centre = int(rng.choice(vendor.centres))
        self.scene = Scene(
            heart=heart,
            chest=Chest(rng),
            details=Details(rng, slices),
            signals=draw_signals(rng, vendor),
            grid=grid,
            depths_mm=depths if vendor.base_first else depths[::-1].copy(),
        )
        self.coil_YX = coil_field(rng, grid, vendor.coil)
        self.affine = draw_affine(rng, grid, vendor.base_first)
        self.gain = vendor.gain * float(np.exp(rng.uniform(-0.3, 0.3)))
        self.heart_beat_s = rng.uniform(0.75, 1.1)
        self.person = {
            "Age": str(int(rng.integers(20, 80))),
            "Sex": str(rng.choice(["F", "M"])),
            "Height": f"{rng.normal(171, 9):.0f}",
            "Weight": f"{rng.normal(74, 12):.1f}",
        }

    def table_row(self) -> dict[str, Any]:
        """The subject's row of the CSV. ED equal to ES marks one without labels."""
        return {
            "": self.subject.index,
            "External code": self.subject.code,
            "VendorName": self.vendor.name,
            "Vendor": self.vendor.code,
            "Centre": self.centre,
            "Pathology": self.subject.pathology,
            **self.person,
            "ED": self.ed if self.subject.labelled else 0,
            "ES": self.es if self.subject.labelled else 0,
        }


def render(settings: PhantomSettings, drawn: Examination) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The cine and its labels, both (T, Z, Y, X). Labels are on the ED and ES frames, 0 on all others."""
    rng = drawn.subject.generator(settings.seed, NOISE)
    shape = (len(drawn.phases), *drawn.scene.grid.size_zyx)
    images, labels = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    for index, phase in enumerate(drawn.phases):
        image, label = drawn.scene.frame(contraction(phase, drawn.scene.heart.end_systole))
        seen = acquire(rng, image, drawn.vendor, drawn.coil_YX)
        images[index] = np.clip(np.rint(seen * drawn.gain), 0, np.iinfo(np.int16).max)
        if drawn.subject.labelled and index in (drawn.ed, drawn.es):
            labels[index] = label
    return images, labels


def write_subject(folder: Path, settings: PhantomSettings, subject: Subject) -> None:
    """Renders one subject and writes its two files."""
    drawn = Examination(settings, subject)
    images, labels = render(settings, drawn)
    image_path, label_path = (folder / name for name in subject.files)
    image_path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(image_path, _nifti(images, drawn, compression=1))
    write_bytes(label_path, _nifti(labels, drawn, compression=6))


def _nifti(values_TZYX: NDArray[Any], drawn: Examination, compression: int) -> bytes:
    """A .nii.gz as bytes, (x, y, z, t), the same on every run: no time stamp."""
    import nibabel as nib

    image = nib.Nifti1Image(values_TZYX.transpose(3, 2, 1, 0), drawn.affine)
    image.header.set_xyzt_units("mm", "sec")
    zooms = (*image.header.get_zooms()[:3], drawn.heart_beat_s / len(drawn.phases))
    image.header.set_zooms(zooms)
    image.set_sform(drawn.affine, code=1)
    image.set_qform(drawn.affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=compression, mtime=0)
