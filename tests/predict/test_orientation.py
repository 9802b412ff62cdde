"""A scan whose file axes are flipped or exchanged against the training scans: the same anatomy, or flagged; never another in silence."""

import csv
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commandline import run_here
from rawfiles import make_affine, make_heart, make_nifti
from tiny_models import make_run_folder

from utseg.predict.ensemble import ensemble_folders
from utseg.rawdata.gate import read_image

OBLIQUE = make_affine(angles=(0.4, -0.5, 0.3))
NOMINAL = np.diag([-1.25, -1.5, 8.0, 1.0])
IN_PLANE = list(itertools.product(((0, 1), (1, 0)), (1, -1), (1, -1)))
SIZE = (3, 37, 52)  # no side is the other's


def copies(path: Path, folder: Path, axes: int = 3) -> dict[str, bool]:
    """The scan with its slices along each of `axes` file axes, eight in-plane arrangements each; whether a copy is arranged as it."""
    folder.mkdir(parents=True, exist_ok=True)
    image, made = nib.load(path), {}
    for number, (order, first, second) in enumerate(IN_PLANE):
        for slices in range(axes):
            places = [axis for axis in range(3) if axis != (2, 0, 1)[slices]]
            to = [places[order[0]], places[order[1]], (2, 0, 1)[slices]]
            name = f"copy{number}_{slices}"
            nib.save(
                image.as_reoriented(np.column_stack([to, (first, second, 1)])), folder / f"{name}.nii.gz"
            )
            made[name] = number == 0
    return made


def home_with(folder: Path, affine: np.ndarray, *more: np.ndarray, fold: str = "fold0", **changes) -> Path:
    """A home with a network of random weights whose training scans lay as these affines say."""
    ways = []
    for number, each in enumerate((affine, *more)):
        path = make_nifti(folder / f"way{number}.nii.gz", make_heart(SIZE)[0], each)
        ways.append(read_image(path)[1].way)
    changes.setdefault("spacing_yx_mm", (1.4, 1.4))
    run = make_run_folder(folder / "results" / "Tiny", fold=fold, ways=tuple(ways), **changes)
    (run / "validation").mkdir()
    (run / "validation" / "summary.json").write_text("{}")
    return folder


def predict(home: Path, source: Path, out: Path, *words: object):
    words = ("-i", source, "-o", out, "--device", "cpu", "--no-tta", *words)
    result = run_here("utseg_predict", *words, home=home)
    assert result.returncode == 0, result.stderr
    return result


def canonical(path: Path) -> np.ndarray:
    """The mask by the patient's axes."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Mean Dice of the labels."""
    dice = [2 * ((a == k) & (b == k)).sum() / max(1, (a == k).sum() + (b == k).sum()) for k in np.unique(a)]
    return float(np.mean(dice))


def flags(folder: Path) -> dict[str, bool]:
    """Of each case, whether its reasons name orientation."""
    with (folder / "quality.csv").open(newline="") as file:
        return {row["case"]: "orientation: " in row["reasons"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    return make_nifti(tmp_path_factory.mktemp("scan") / "scan.nii.gz", make_heart(SIZE)[0], OBLIQUE)


def test_every_copy_of_a_truly_oriented_scan_has_its_anatomy_and_its_own_layout(scan, tmp_path):
    home = home_with(tmp_path, OBLIQUE)
    made = copies(scan, tmp_path / "in")
    result = predict(home, tmp_path / "in", tmp_path / "out")
    masks = {name: canonical(tmp_path / "out" / f"{name}.nii.gz") for name in made}
    assert len(masks) == 24 and len(np.unique(masks["copy0_0"])) > 1
    assert all(agreement(masks["copy0_0"], mask) >= 0.99 for mask in masks.values())
    assert not any(flags(tmp_path / "out").values())
    for name in made:
        image, mask = (
            nib.load(tmp_path / "in" / f"{name}.nii.gz"),
            nib.load(tmp_path / "out" / f"{name}.nii.gz"),
        )
        assert image.shape == mask.shape and np.array_equal(image.affine, mask.affine)
    assert "21 scans turned to lie as the training scans do: copy1_0" in result.stdout
    assert "orientation" not in result.stderr


def test_without_turning_the_copies_would_have_another_anatomy(scan, tmp_path):
    home = home_with(tmp_path, OBLIQUE)
    run = next(home.rglob("run.json"))
    record = json.loads(run.read_text())
    record["plan"]["preprocessing"]["ways"] = []
    run.write_text(json.dumps(record))
    copies(scan, tmp_path / "in", axes=1)
    predict(home, tmp_path / "in", tmp_path / "out")
    first, *others = (canonical(path) for path in sorted((tmp_path / "out").glob("*.nii.gz")))
    assert all(agreement(first, other) < 0.99 for other in others)
    assert not any(flags(tmp_path / "out").values())  # nothing is known that could be told


def test_copies_are_turned_and_flagged_where_no_header_holds_orientation(tmp_path):
    home = home_with(tmp_path, NOMINAL)
    path = make_nifti(tmp_path / "scan.nii.gz", make_heart(SIZE)[0], NOMINAL)
    made = copies(path, tmp_path / "in")
    result = predict(home, tmp_path / "in", tmp_path / "out")
    masks = {name: canonical(tmp_path / "out" / f"{name}.nii.gz") for name in made}
    assert all(agreement(masks["copy0_0"], mask) >= 0.99 for mask in masks.values())
    assert flags(tmp_path / "out") == {name: not same for name, same in made.items()}
    warned = [line for line in result.stderr.splitlines() if "orientation" in line]
    assert len(warned) == 1 and "21 scans may lie otherwise than the training scans: copy1_0" in warned[0]


@pytest.mark.parametrize(
    "trained, scanned",
    [((NOMINAL,), OBLIQUE), ((OBLIQUE,), NOMINAL), ((NOMINAL,), NOMINAL * [[-1], [-1], [1], [1]])],
)
def test_what_headers_cannot_tell_is_segmented_as_it_lies_and_flagged(tmp_path, trained, scanned):
    home = home_with(tmp_path, *trained)
    path = make_nifti(tmp_path / "in" / "scan.nii.gz", make_heart(SIZE)[0], scanned)
    predict(home, path, tmp_path / "out")
    assert flags(tmp_path / "out") == {"scan": True}
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())["cases"]["scan"]["quality"]
    (check,) = (check for check in record["checks"] if check["name"] == "orientation")
    assert record["flagged"] and not check["passed"] and "as it lies" in check["words"]


def test_a_way_never_seen_is_flagged_where_the_training_scans_lay_several(scan, tmp_path):
    quarter = (OBLIQUE @ np.diag([1, -1, 1, 1]))[:, [1, 0, 2, 3]] * [1.2, 1 / 1.2, 1, 1]
    home = home_with(tmp_path, OBLIQUE, quarter)
    copies(scan, tmp_path / "in", axes=1)
    predict(home, tmp_path / "in", tmp_path / "out")
    assert sum(flags(tmp_path / "out").values()) == 6 and not flags(tmp_path / "out")["copy0_0"]


def test_models_of_other_ways_go_together_and_their_saved_probabilities_too(scan, tmp_path):
    home = home_with(tmp_path, OBLIQUE)
    mirrored = OBLIQUE @ np.diag([-1, 1, 1, 1])
    home_with(tmp_path, mirrored, fold="fold1", spacing_yx_mm=(1.5, 1.25), seed=1)
    shown = ("copy0_0", "copy3_1", "copy6_2", "copy7_0")
    for name in copies(scan, tmp_path / "in").keys() - set(shown):
        (tmp_path / "in" / f"{name}.nii.gz").unlink()
    predict(home, tmp_path / "in", tmp_path / "both")
    first, *others = (canonical(path) for path in sorted((tmp_path / "both").glob("*.nii.gz")))
    assert all(agreement(first, other) >= 0.99 for other in others)
    for fold in ("fold0", "fold1"):
        predict(home, tmp_path / "in", tmp_path / fold, "-f", fold, "--save-probabilities")
    ensemble_folders([tmp_path / "fold0", tmp_path / "fold1"], tmp_path / "joined", workers=1)
    for name in shown:
        both, joined = (nib.load(tmp_path / folder / f"{name}.nii.gz") for folder in ("both", "joined"))
        assert np.array_equal(both.affine, joined.affine) and both.shape == joined.shape
        assert agreement(np.asarray(both.dataobj), np.asarray(joined.dataobj)) >= 0.99
        with np.load(tmp_path / "fold0" / f"{name}.npz") as arrays:  # voxel for voxel as the mask
            assert arrays["probabilities"].shape[1:] == both.shape[::-1]


def test_a_doubt_is_told_of_joined_masks_too_and_once_of_a_cine(tmp_path):
    home = home_with(tmp_path, NOMINAL)
    cine = np.stack([make_heart(SIZE, seed=seed)[0] for seed in range(3)])
    path = make_nifti(tmp_path / "in" / "cine.nii.gz", cine, OBLIQUE)
    predict(home, path, tmp_path / "out", "--save-probabilities")
    ensemble_folders([tmp_path / "out"], tmp_path / "joined", workers=1)
    for folder in ("out", "joined"):
        text = (tmp_path / folder / "quality.csv").read_text()
        assert text.count("orientation: ") == 1 and "yes" in text
