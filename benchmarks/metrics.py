"""Scores of one cardiac volume with three labels against public tools, side by side in one process.

    python benchmarks/metrics.py [--repeats 15] [--pair warped|shifted|noisy] [--surface voxels|area] [--linear] [--folder LABELS]

The volume has 10 slices of 224 × 258 pixels of 1.25 mm, 8 mm apart; the prediction is the reference warped a little, as a good network's is
(or shifted by 3 pixels, or with speckle over the image). The tools compute Dice, HD95 and the average surface distance; utseg computes all
that `evaluate_pair` says (`pair`), and all slices and regions besides (`everything`). Calls alternate, so that a noisy machine hits all;
figures are medians and ratios of medians. Peers (the extra `metrics-peers`) that are not installed are left out.
--linear: the time of volumes of 1, 2, 4 and 8 times the slices, per slice. --folder: the first label map there (NIfTI) as reference.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from utseg.evaluate.metrics import Definition, evaluate_pair
from utseg.evaluate.stack import evaluate_stack

LABELS = {"LV": 1, "MYO": 2, "RV": 3}
SPACING = (8.0, 1.25, 1.25)
Label = NDArray[np.uint8]


def make_reference(slices: int = 10) -> Label:
    """A left ventricle that narrows towards the apex, with a crescent of RV beside it."""
    label = np.zeros((slices, 224, 258), np.uint8)
    y, x = np.mgrid[:224, :258]
    for z in range(slices):
        shrink = 1 - 0.55 * z / max(slices - 1, 1)
        away = np.hypot(y - 112, x - 140)
        label[z][np.hypot((y - 112) / 1.25, x - 108) <= 30 * shrink] = 3
        label[z][away <= 29 * shrink] = 2
        label[z][away <= 20 * shrink] = 1
    return label


def make_prediction(reference: Label, kind: str) -> Label:
    """What a network might make of it."""
    rng = np.random.default_rng(0)
    if kind == "shifted":
        return np.roll(reference, (3, 2), (1, 2))
    if kind == "noisy":
        speckle = rng.random(reference.shape) < 0.02
        return np.where(speckle, rng.integers(0, 4, reference.shape), reference).astype(np.uint8)
    moves = [ndimage.gaussian_filter(rng.standard_normal(reference.shape), (1, 12, 12)) for _ in range(2)]
    z, y, x = np.meshgrid(*(np.arange(n) for n in reference.shape), indexing="ij")
    places = [z, *(axis + 1.5 * move / move.std() for axis, move in zip((y, x), moves, strict=True))]
    warped: Label = ndimage.map_coordinates(reference, places, order=0, mode="nearest")
    return warped


def surface_distance_call(prediction: Label, reference: Label) -> Callable[[], None]:
    """Dice, HD95 and average surface distance by surface-distance."""
    import surface_distance as tool

    def call() -> None:
        for value in LABELS.values():
            masks = reference == value, prediction == value
            tool.compute_dice_coefficient(*masks)
            found = tool.compute_surface_distances(*masks, SPACING)
            tool.compute_robust_hausdorff(found, 95)
            tool.compute_average_surface_distance(found)

    return call


def medpy_call(prediction: Label, reference: Label) -> Callable[[], None]:
    """The same by medpy."""
    from medpy.metric import binary

    def call() -> None:
        for value in LABELS.values():
            masks = prediction == value, reference == value
            binary.dc(*masks)
            binary.hd95(*masks, SPACING)
            binary.assd(*masks, SPACING)

    return call


def monai_call(prediction: Label, reference: Label) -> Callable[[], None]:
    """The same by MONAI."""
    import torch
    from monai import metrics

    def one_hot(label: Label) -> torch.Tensor:
        return torch.from_numpy(np.stack([label == value for value in LABELS.values()])[None]).float()

    def call() -> None:
        both = {"y_pred": one_hot(prediction), "y": one_hot(reference), "include_background": True}
        metrics.compute_dice(**both)
        metrics.compute_hausdorff_distance(**both, percentile=95, spacing=list(SPACING))
        metrics.compute_average_surface_distance(**both, symmetric=True, spacing=list(SPACING))

    return call


def calls(prediction: Label, reference: Label, definition: Definition) -> dict[str, Callable[[], object]]:
    """What is timed, by name; peers that are installed."""
    kind = {"surface": definition.surface, "percentile": definition.percentile}
    found: dict[str, Callable[[], object]] = {
        "utseg pair": lambda: evaluate_pair(prediction, reference, SPACING, LABELS, **kind),
        "utseg everything": lambda: evaluate_stack(prediction, reference, SPACING, LABELS, definition),
    }
    peers = {"surface-distance": surface_distance_call, "medpy": medpy_call, "MONAI": monai_call}
    for name, make in peers.items():
        try:
            found[name] = make(prediction, reference)
        except ImportError as error:
            print(f"{name} is not installed ({error})")
    return found


def alternate(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns after one unmeasured turn."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def print_linear(kind: str, definition: Definition, repeats: int) -> None:
    """The time per slice of ever larger volumes."""
    functions = {}
    for times in (1, 2, 4, 8):
        reference = make_reference(10 * times)
        prediction = make_prediction(reference, kind)
        functions[f"{10 * times} slices"] = lambda p=prediction, r=reference: evaluate_stack(
            p, r, SPACING, LABELS, definition
        )
    for name, seconds in alternate(functions, repeats).items():
        middle = statistics.median(seconds)
        print(f"{name:12} {1e3 * middle:8.1f} ms, {1e3 * middle / int(name.split()[0]):6.2f} ms a slice")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--pair", choices=("warped", "shifted", "noisy"), default="warped")
    parser.add_argument("--surface", choices=("voxels", "area"), default="voxels")
    parser.add_argument("--linear", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    definition = Definition(given.surface, "directed" if given.surface == "area" else "pooled")
    if given.linear:
        print_linear(given.pair, definition, given.repeats)
        return
    reference = make_reference()
    if given.folder:
        import nibabel

        reference = np.asarray(nibabel.load(min(given.folder.glob("*.nii.gz"))).dataobj).T.astype(np.uint8)
    prediction = make_prediction(reference, given.pair)
    functions = calls(prediction, reference, definition)
    seconds = alternate(functions, given.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{' × '.join(map(str, reference.shape))}, {given.pair}, surface={given.surface}")
    print(f"{'':18} {'ms':>8} {'least':>8} {'most':>8} {'pair of it':>11} {'everything of it':>17}")
    for name, values in seconds.items():
        pair, everything = (median[own] / median[name] for own in ("utseg pair", "utseg everything"))
        print(
            f"{name:18} {1e3 * median[name]:8.1f} {1e3 * min(values):8.1f} {1e3 * max(values):8.1f} {pair:11.3f} {everything:17.3f}"
        )


if __name__ == "__main__":
    main()
