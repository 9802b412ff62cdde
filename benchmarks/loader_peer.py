"""nnU-Net's loader and its default 2-D augmentation, timed round by round for `loader.py`, which starts this with nnU-Net's Python.

    PYTHON benchmarks/loader_peer.py FOLDER '{"patch": [256, 256], "batch": 16, "batches": 20}'

FOLDER has an npz a volume: image (C, Z, H, W), label (Z, H, W). Rotation and mirroring are what its trainer takes for a square 2-D patch.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

POSITIONS_PER_LABEL = 10_000


class Volumes:
    """Volumes in memory behind the part of its dataset class that the loader uses."""

    def __init__(self, folder: Path) -> None:
        self._volumes = {}
        rng = np.random.default_rng(0)
        for path in sorted(folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as file:
                image, label = file["image"], file["label"].astype(np.int16)[None]
            locations = {}
            for value in range(1, int(label.max()) + 1):
                places = np.argwhere(label == value)
                locations[value] = rng.permutation(places)[:POSITIONS_PER_LABEL]
            self._volumes[path.stem] = image, label, None, {"class_locations": locations}
        self.identifiers = list(self._volumes)

    def load_case(self, name: str) -> tuple:
        return self._volumes[name]


def main() -> None:
    settings = json.loads(sys.argv[2])
    torch.set_num_threads(1)
    patch = tuple(settings["patch"])
    volumes = Volumes(Path(sys.argv[1]))
    rotation = (-np.pi, np.pi)
    loader = nnUNetDataLoader(
        volumes,
        settings["batch"],
        get_patch_size(patch, rotation, rotation, rotation, (0.85, 1.25)),
        patch,
        SimpleNamespace(all_labels=[1, 2, 3], has_ignore_label=False),
        oversample_foreground_percent=0.33,
        transforms=nnUNetTrainer.get_training_transforms(patch, rotation, None, (0, 1), False),
    )
    for _ in sys.stdin:
        begin = time.perf_counter()
        for _ in range(settings["batches"]):
            next(loader)
        print("seconds", time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
