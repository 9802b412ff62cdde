"""Small made datasets in the spellings that nnU-Net's users have, for `peer_datasets.py`: hard enough that networks differ.

Each dataset has `imagesTr` and `labelsTr` to train on, `imagesTs` to predict, and `labelsTs`, wholly annotated, to score. Shapes are
irregular, gains differ from case to case, and noise is about as strong as the weaker contrasts.

Axes: C channels, Z slices, Y X pixels; spacing (z, y, x) in mm.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Image_CZYX = NDArray[np.float64]
Label_ZYX = NDArray[np.uint8]
Drawn = tuple[Image_CZYX, Label_ZYX]
SPACING_XYZ = (1.5, 1.5, 6.0)
IGNORE = 4


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sd: float) -> NDArray[np.float64]:
    """Noise without small detail, the same on all slices but for a little, with a standard deviation of 1."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), (1.0, sd, sd), mode="wrap")
    return field / field.std()


def radius(rng: np.random.Generator, shape: tuple[int, ...], bumps: float) -> NDArray[np.float64]:
    """How far each voxel is from an axis through the slices, in pixels; bent, so that equal distances are no circles."""
    slices, height, width = shape
    middle = rng.uniform(0.4, 0.6, 2) * (height, width)
    lean = rng.normal(0, 0.8, 2)[:, None] * np.arange(slices)
    y, x = np.indices((height, width))
    stretch = rng.uniform(0.8, 1.25)
    dy = y[None] - middle[0] - lean[0][:, None, None]
    dx = x[None] - middle[1] - lean[1][:, None, None]
    return np.hypot(dy * stretch, dx / stretch) + bumps * smooth(rng, shape, 4.0)


def seen(
    rng: np.random.Generator, label: Label_ZYX, contrasts: Sequence[Sequence[float]], noise: float
) -> Image_CZYX:
    """What channels with these values of the labels show: gains that differ by case, noise of about a pixel, and shading of .4 of it."""
    channels = []
    for values in contrasts:
        tissue = ndimage.gaussian_filter(np.asarray(values)[label], (0, 0.8, 0.8))
        texture = ndimage.gaussian_filter(rng.normal(size=label.shape), (0, 0.7, 0.7))
        shaded = tissue + noise * texture / texture.std() + 0.4 * noise * smooth(rng, label.shape, 9.0)
        channels.append(rng.uniform(0.8, 1.2) * shaded + rng.uniform(-0.1, 0.1))
    return np.stack(channels)


def tumour(rng: np.random.Generator) -> Drawn:
    """Three nested regions in a head with nothing, value 0, around it; two channels, each of which tells two regions apart."""
    shape = (int(rng.integers(5, 8)), 48, 48)
    y, x = np.indices(shape[1:]) - 23.5
    head = np.broadcast_to(np.hypot(y / 21, x / 17) < 1, shape)
    distance, size = radius(rng, shape, 1.5), rng.uniform(8, 11)
    label = np.zeros(shape, np.uint8)
    for value, share in ((1, 1.0), (2, 0.7), (3, 0.4)):
        label[(distance < share * size) & head] = value
    image = seen(rng, label, [(0.4, 0.5, 0.5, 1.1), (0.4, 1.0, 0.6, 0.7)], 0.2) + 1.5
    return np.where(head, np.maximum(image, 0.01), 0), label


def heart(rng: np.random.Generator) -> Drawn:
    """A disc in a ring, and a crescent beside it, among things that look alike."""
    shape = (int(rng.integers(4, 8)), 48, 44)
    distance, size = radius(rng, shape, 1.0), rng.uniform(5.5, 7.5)
    label = np.zeros(shape, np.uint8)
    label[np.roll(distance, -10, axis=2) < size] = 3
    label[distance < 1.6 * size] = 2
    label[distance < size] = 1
    shown = label + 4 * ((smooth(rng, shape, 4.0) > 1.1) & (label == 0)).astype(np.uint8)
    return seen(rng, shown, [(0.25, 1.0, 0.35, 0.9, 0.85)], 0.25), label


def abdomen(rng: np.random.Generator) -> Drawn:
    """An organ with a lesion in Hounsfield units: a body in air, muscle and organ 35 units apart, noise of 18."""
    shape = (int(rng.integers(4, 8)), 48, 48)
    distance, size = radius(rng, shape, 1.5), rng.uniform(10, 13)
    label = np.zeros(shape, np.uint8)
    label[distance < size] = 1
    label[(np.roll(distance, rng.integers(-4, 5, 2), axis=(1, 2)) < 0.45 * size) & (label == 1)] = 2
    y, x = np.indices(shape[1:]) - 23.5
    body = np.hypot(y / 20, x / 23) < 1
    shown = np.where(label > 0, label, 3 * body[None]).astype(np.uint8)
    units = seen(rng, shown, [(0, 0, 0, 0)], 18.0)[0] + np.array([-1000, 95, 55, 60])[shown]
    return np.round(units)[None], label * body[None].astype(np.uint8)


def gland(rng: np.random.Generator) -> Drawn:
    """A zone around a zone, of which two channels show one each."""
    shape = (int(rng.integers(4, 8)), 44, 48)
    distance, size = radius(rng, shape, 1.5), rng.uniform(9, 12)
    label = np.zeros(shape, np.uint8)
    label[distance < size] = 1
    label[distance < 0.62 * size] = 2
    return seen(rng, label, [(0.4, 0.9, 0.5), (0.6, 0.7, 0.25)], 0.25), label


def cells(rng: np.random.Generator) -> Drawn:
    """A stained picture: nuclei of two kinds that differ in colour by as much as the noise, values from 0 to 255."""
    shape = (1, 48, 48)
    label = np.zeros(shape, np.uint8)
    y, x = np.indices(shape[1:])
    for _ in range(rng.integers(4, 8)):
        middle, size = rng.uniform(3, 45, 2), rng.uniform(4.5, 7)
        inside = np.hypot(y - middle[0], x - middle[1]) + 1.2 * smooth(rng, shape, 3.0)[0] < size
        label[0][inside] = 1 + (rng.random() < 0.45)
    colours = [(0.75, 0.55, 0.60), (0.6, 0.35, 0.32), (0.75, 0.62, 0.50)]
    return np.clip(255 * seen(rng, label, colours, 0.06), 0, 255), label


def scribbled(rng: np.random.Generator, label: Label_ZYX) -> Label_ZYX:
    """The label with every other slice ignored, and of half of the cases all but strokes: every sixth column, two wide."""
    label = label.copy()
    if rng.random() < 0.5:
        label[..., np.arange(label.shape[2]) % 6 > 1] = IGNORE
    label[int(rng.integers(2)) :: 2] = IGNORE
    return label


class Phantom(NamedTuple):
    """A dataset: its folder's name, of which the last word is our short name; how a case is drawn, and what dataset.json says.

    `ending` of the files; `joint`: all channels in one file; `cases` to train on and to test; `to_train`: what is annotated of a case.
    """

    folder: str
    draw: Callable[[np.random.Generator], Drawn]
    about: Mapping[str, Any]
    ending: str = ".nii.gz"
    joint: bool = False
    cases: tuple[int, int] = (16, 8)
    to_train: Callable[[np.random.Generator, Label_ZYX], Label_ZYX] | None = None

    @property
    def older(self) -> bool:
        """Whether dataset.json is spelled as nnU-Net v1 and the Decathlon do."""
        return "modality" in self.about


HEART = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
PHANTOMS = {
    "regions": Phantom(
        "Dataset001_Regions",
        tumour,
        {"channel_names": {"0": "T1c", "1": "FLAIR"}, "labels": NESTED, "regions_class_order": [1, 2, 3]},
    ),
    "ignore": Phantom(
        "Dataset002_Scribbles",
        heart,
        {"channel_names": {"0": "MRI"}, "labels": HEART | {"ignore": IGNORE}},
        to_train=scribbled,
    ),
    "ct": Phantom(
        "Dataset003_Abdomen",
        abdomen,
        {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "lesion": 2}},
    ),
    "rgb": Phantom(
        "Dataset004_Cells",
        cells,
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {"background": 0, "pale": 1, "dark": 2},
        },
        ending=".png",
        joint=True,
        cases=(32, 16),
    ),
    "v1": Phantom(
        "Task105_Heart",
        heart,
        {"modality": {"0": "MRI"}, "labels": {str(value): name for name, value in HEART.items()}},
    ),
    "decathlon": Phantom(
        "Task06_Gland",
        gland,
        {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "PZ", "2": "TZ"}},
        joint=True,
    ),
}


def make(phantom: Phantom, raw: Path) -> Path:
    """Writes the dataset into a folder of raw datasets where it is not there yet; its folder."""
    root, rng = raw / phantom.folder, np.random.default_rng(7)
    if (root / "dataset.json").is_file():
        return root
    for part, count in zip(("Tr", "Ts"), phantom.cases, strict=True):
        for kind in ("images", "labels"):
            (root / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, label = phantom.draw(rng)
            if part == "Tr" and phantom.to_train:
                label = phantom.to_train(rng, label)
            name = f"{part.lower()}_{number:03d}"
            write_case(phantom, image, label, root / f"images{part}" / name, root / f"labels{part}" / name)
    (root / "dataset.json").write_text(json.dumps(description(phantom, root), indent=1))
    return root


def description(phantom: Phantom, root: Path) -> dict[str, Any]:
    """What dataset.json says: of old spellings the lists of cases, too, by names without a channel's number."""
    training, test = phantom.cases
    about = {**phantom.about, "numTraining": training}
    if not phantom.older:
        return about | {"file_ending": phantom.ending}
    names = sorted(path.name for path in (root / "labelsTr").iterdir())
    tests = sorted(path.name for path in (root / "labelsTs").iterdir())
    entries = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    text = {"name": root.name.partition("_")[2], "tensorImageSize": "4D" if phantom.joint else "3D"}
    text |= dict.fromkeys(("description", "reference", "licence", "release"), "")
    return {
        **text,
        **about,
        "numTest": test,
        "training": entries,
        "test": [f"./imagesTs/{name}" for name in tests],
    }


def write_case(phantom: Phantom, image: Image_CZYX, label: Label_ZYX, to: Path, label_to: Path) -> None:
    """Writes image and label: pictures, volumes of a channel each, or one with the channels last."""
    if phantom.ending == ".png":
        Image.fromarray(image[:, 0].transpose(1, 2, 0).astype(np.uint8)).save(f"{to}_0000.png")
        Image.fromarray(label[0]).save(f"{label_to}.png")
        return
    dtype = np.int16 if "CT" in phantom.about.get("channel_names", {}).values() else np.float32
    affine = np.diag([*SPACING_XYZ, 1.0])
    volumes = image.astype(dtype).transpose(3, 2, 1, 0)
    files = (
        {"": volumes} if phantom.joint else {f"_{c:04d}": volumes[..., c] for c in range(volumes.shape[-1])}
    )
    for suffix, volume in files.items():
        nibabel.save(nibabel.Nifti1Image(volume, affine), f"{to}{suffix}{phantom.ending}")
    nibabel.save(nibabel.Nifti1Image(label.transpose(2, 1, 0), affine), f"{label_to}{phantom.ending}")
