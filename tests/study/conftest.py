"""A study as it is typed, on a tiny cohort: one run that finishes (in two parts), one that fails."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_studies import run_study_here
from rawfiles import LABELS, make_nnunet
from threads import no_pictures, one_thread  # noqa: F401 — used by being there

from utseg.files import read_json, write_json
from utseg.study.record import StudyRecord, read_study

OTHER_LABELS = {"background": 0, "LV": 3, "MYO": 1, "RV": 2}
TINY = """
name = "tiny"
plans = ["cpu"]
networks = ["UNet"]
epochs = 1

[settings]
network = { base_channels = 4, levels = 2 }
iterations_per_epoch = 2
batch_size = 2

[test]
datasets = ["Tiny", "Other"]

[[variants]]
part = "a"
name = "planned"

[[variants]]
part = "b"
name = "wrong"
settings = { augmentation.rotation_deg = 999 }

[[variants]]
part = "b"
name = "planned"
"""


@dataclass(frozen=True)
class RanStudy:
    """What the command left and said."""

    home: Path
    file: Path
    output: Path
    code: int
    said: str
    errors: str

    @property
    def record(self) -> StudyRecord:
        return read_study(self.output)


def make_other(folder: Path) -> None:
    """A dataset whose labels have the same names and other values."""
    nib = pytest.importorskip("nibabel")
    make_nnunet(folder, subjects=2, size_zyx=(4, 36, 32))
    description = read_json(folder / "dataset.json")
    write_json(folder / "dataset.json", description | {"labels": OTHER_LABELS})
    values = np.zeros(len(LABELS), int)
    for name, value in LABELS.items():
        values[value] = OTHER_LABELS[name]
    for file in (folder / "labelsTr").glob("*.nii.gz"):
        image = nib.load(file)
        mask = values[np.asarray(image.dataobj).astype(int)].astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, image.affine, image.header), file)
        # another image than any of the first dataset: nobody is trained and tested on
        scan = folder / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz")
        loaded = nib.load(scan)
        nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj) + 1, loaded.affine, loaded.header), scan)


@pytest.fixture(scope="session")
def ran(tmp_path_factory) -> RanStudy:
    home = tmp_path_factory.mktemp("study")
    make_nnunet(home / "raw" / "Tiny", subjects=6, size_zyx=(4, 36, 32))
    make_other(home / "raw" / "Other")
    file, output = home / "tiny.toml", home / "out"
    file.write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        result = run_study_here(
            patch, file, "-d", "Tiny", "-o", output, "-np", 2, "--device", "cpu", home=home
        )
    return RanStudy(home, file, output, result.returncode, result.stdout, result.stderr)
