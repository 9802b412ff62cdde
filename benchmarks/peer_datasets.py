"""Datasets as nnU-Net's users have them, unedited: by utseg's commands, and by nnU-Net's own 2-D at equal iterations.

    python benchmarks/peer_datasets.py OUT --peer-python PYTHON [--datasets regions ignore ct rgb v1 decathlon] [--seeds 0 1]
                                           [--epochs 10] [--iterations-per-epoch 20] [--model nnUNetTrainer] [--augment-as-peer]

Made datasets (`peer_phantoms.py`) are planned, trained on, predicted and scored by the commands of the README, with nothing done by hand
between. Patch, batch and network are what nnU-Net 2.8.1 plans (`--set`; its network is checked to be ours), of the recipe what
`--model` says; augmentation is what utseg plans from the data, or, with `--augment-as-peer`, in nnU-Net's ranges and mirrored along
both axes, in training and prediction. nnU-Net reads the same folders; those in the spelling of v1 and the Decathlon it reads through its
own converters, since it takes no other. Held-back cases are predicted by both and scored by one function. One thread. Prints a row a
dataset and seed: mean Dice of both, and by label; writes OUT/peer_datasets.csv, and goes on where it stopped. PYTHON has nnunetv2 2.8.1.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from peer_phantoms import PHANTOMS, Phantom, make
from PIL import Image

from utseg.networks.nnunet_topology import plan_topology

KEY = ("dataset", "way", "seed", "iterations")
COLUMNS = (*KEY, "ours", "theirs", "ours_by_label", "theirs_by_label", "seconds")
PEER = Path(__file__).with_name("peer_datasets_peer.py")
PEER_AUGMENTATION = """
mirror_axes=y,x rotation_deg=180 rotation_probability=0.2 scale_range=0.7,1.4 scale_probability=0.2 noise_sd_range=0,0.1
noise_probability=0.1 blur_sd_mm_range=0.75,1.5 blur_probability=0.1 brightness_probability=0 contrast_range=0.75,1.25
contrast_probability=0.15 gamma_probability=0.37 resolution_range=0.5,1 resolution_probability=0.125 histogram_probability=0
"""
CONVERTERS = {"v1": "nnUNetv2_convert_old_nnUNet_dataset", "decathlon": "nnUNetv2_convert_MSD_dataset"}


def run(command: Sequence[str | Path], log: Path, **variables: str | Path) -> None:
    """Runs a command with its output in a log; ends where it fails."""
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in variables.items()}
    )
    with log.open("a") as file:
        print("$", *command, file=file, flush=True)
        done = subprocess.run([str(word) for word in command], env=environment, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}; see {log}")


class Peer:
    """nnU-Net, in folders of its own; the raw datasets are linked there, or converted by its own commands."""

    def __init__(self, out: Path, python: Path) -> None:
        self.python, self.out = python.absolute(), out / "nnunet"
        self.variables = {f"nnUNet_{part}": self.out / part for part in ("raw", "preprocessed", "results")}
        self.variables |= {"nnUNet_n_proc_DA": Path("1"), "nnUNet_def_n_proc": Path("1")}

    def command(self, name: str) -> Path:
        return self.python.parent / name

    def link(self, key: str, root: Path, log: Path) -> str:
        """Links or converts a raw dataset where it is not there yet; the name that it has there."""
        raw = self.out / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        number, _, words = root.name.removeprefix("Dataset").removeprefix("Task").partition("_")
        name = f"Dataset{int(number):03d}_{words}"
        if not (raw / name).exists():
            if key == "v1":
                run([self.command(CONVERTERS[key]), root, name], log, **self.variables)
            elif key == "decathlon":
                run([self.command(CONVERTERS[key]), "-i", root, "-np", "1"], log, **self.variables)
            else:
                (raw / name).symlink_to(root)
        return name

    def masks(self, name: str, settings: Mapping[str, int], log: Path, to: Path) -> dict[str, Any]:
        """Plans, trains and predicts what the converted or linked dataset has as imagesTs; its 2-D plan."""
        images = self.out / "raw" / name / "imagesTs"
        if not (to / "done").is_file():
            run([self.python, PEER, name, images, to, json.dumps(settings)], log, **self.variables)
            (to / "done").touch()
        plans = json.loads((self.out / "preprocessed" / name / "nnUNetPlans.json").read_text())
        planned: dict[str, Any] = plans["configurations"]["2d"]
        return planned


def ours(
    root: Path,
    planned: Mapping[str, Any],
    arguments: argparse.Namespace,
    settings: Mapping[str, int],
    out: Path,
    log: Path,
) -> Path:
    """The walk of the README by our commands; the folder of masks."""
    model = arguments.model
    patch = tuple(int(size) for size in planned["patch_size"])
    network = planned["architecture"]["arch_kwargs"]
    spacing = tuple(float(size) for size in planned["spacing"])
    topology = plan_topology((patch[0], patch[1]), (spacing[0], spacing[1]))
    assert [list(stride) for stride in topology.strides] == network["strides"], "the same stages"
    assert [list(kernel) for kernel in topology.kernels] == network["kernel_sizes"], "the same kernels"
    features = network["features_per_stage"]
    assert features == [min(32 * 2**stage, 512) for stage in range(len(features))], "the same channels"
    name, seed = root.name, settings["seed"]
    masks, scores = out / f"{log.stem}_masks", out / f"{log.stem}_scores"

    def utseg(command: str, *words: str | Path) -> None:
        script = Path(sys.executable).parent / f"utseg_{command}"
        run([script, *words], log, UTSEG_HOME=out.parent / "home", UTSEG_RAW=root.parent)

    values = [f"patch_size={patch[0]},{patch[1]}", f"batch_size={planned['batch_size']}"]
    values += ["network.base_channels=32", "network.aux_loss=true", "initial_foreground=0"]
    utseg("plan_and_preprocess", "-d", name, "-m", "nnUNet", "-np", "1", "--set", *values)
    length = [f"iterations_per_epoch={settings['iterations_per_epoch']}", "amp=off"]
    if arguments.augment_as_peer:
        length += [f"augmentation.{value}" for value in PEER_AUGMENTATION.split()]
    words = ["2d", "all", "-d", name, "-m", model, "--epochs", str(settings["epochs"]), "--seed", str(seed)]
    utseg("train", *words, "--overwrite", "--device", "cpu", "--set", *length)
    words = ["-i", root / "imagesTs", "-o", masks, "-d", name, "-m", model, "-np", "1"]
    utseg("predict", *words, "--device", "cpu")
    utseg("evaluate", "-p", masks, "-g", root / "labelsTs", "-o", scores, "-d", name, "-np", "1")
    return masks


def read(path: Path) -> NDArray[np.generic]:
    """The values of a mask, as they lie."""
    return np.asarray(Image.open(path) if path.suffix == ".png" else nibabel.load(path).dataobj)


def dice(phantom: Phantom, masks: Path, references: Path) -> dict[str, float]:
    """Mean over the cases of the Dice of each label or region; a case in which neither mask has it counts nowhere."""
    labels = phantom.about["labels"]
    if phantom.older:
        labels = {name: int(value) for value, name in labels.items()}
    found: dict[str, list[float]] = {
        name: [] for name, value in labels.items() if value != 0 and name != "ignore"
    }
    for path in sorted(references.iterdir()):
        mask, reference = read(masks / path.name), read(path)
        for name, scores in found.items():
            a, b = np.isin(mask, labels[name]), np.isin(reference, labels[name])
            if total := a.sum() + b.sum():
                scores.append(2 * float((a & b).sum() / total))
    return {name: fmean(scores) for name, scores in found.items()}


def row_key(key: str, seed: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    """What a row of the table is of: dataset, how ours was trained, seed, iterations."""
    way = arguments.model + ("_augmented_as_peer" if arguments.augment_as_peer else "")
    return key, way, str(seed), str(arguments.epochs * arguments.iterations_per_epoch)


def compared(key: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """One dataset and seed by both: a row of the table."""
    phantom, out = PHANTOMS[key], arguments.out / key
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"{'_'.join(row_key(key, seed, arguments)[1:])}.log"
    root = make(phantom, arguments.out / "raw")
    peer = Peer(arguments.out, arguments.peer_python)
    settings = {
        "epochs": arguments.epochs,
        "iterations_per_epoch": arguments.iterations_per_epoch,
        "seed": seed,
    }
    masks = out / f"nnunet_{seed}_{arguments.epochs}x{arguments.iterations_per_epoch}"
    start = time.perf_counter()
    planned = peer.masks(peer.link(key, root, log), settings, log, masks)
    theirs = dice(phantom, masks, root / "labelsTs")
    middle = time.perf_counter()
    mine = dice(phantom, ours(root, planned, arguments, settings, out, log), root / "labelsTs")
    seconds = f"{time.perf_counter() - middle:.0f} {middle - start:.0f}"
    means = (f"{fmean(scores.values()):.4f}" for scores in (mine, theirs))
    by_label = (json.dumps({k: round(v, 4) for k, v in scores.items()}) for scores in (mine, theirs))
    return dict(zip(COLUMNS, (*row_key(key, seed, arguments), *means, *by_label, seconds), strict=True))


def main() -> None:
    """Compare what is not compared yet, and show all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", default=list(PHANTOMS), choices=list(PHANTOMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations-per-epoch", type=int, default=20)
    parser.add_argument("--model", default="nnUNetTrainer")
    parser.add_argument("--augment-as-peer", action="store_true")
    arguments = parser.parse_args()
    arguments.out = arguments.out.absolute()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "peer_datasets.csv"
    rows: list[dict[str, object]] = list(csv.DictReader(table.open())) if table.is_file() else []
    done = {tuple(row[column] for column in KEY) for row in rows}
    for seed, key in product(arguments.seeds, arguments.datasets):
        if row_key(key, seed, arguments) in done:
            continue
        rows.append(compared(key, seed, arguments))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    for row in rows:
        difference = float(str(row["ours"])) - float(str(row["theirs"]))
        print(*(row[column] for column in KEY), row["ours"], row["theirs"], f"{difference:+.4f}")
        print("   ", row["ours_by_label"], row["theirs_by_label"], row["seconds"])


if __name__ == "__main__":
    main()
