"""End-to-end prediction against the bare network over the same slices: reading, checking, resampling and writing should hide behind it.

    python benchmarks/prediction.py [--volumes 16] [--base-channels 32] [--members 5]
    python benchmarks/prediction.py --volumes 64 --rounds 1 --no-bare      # peak memory alone

Volumes of about 10 × 224 × 258 voxels, UTNet with random weights, windows of 256², no mirroring. The bare network gets the windows ready
made, in the batches that prediction uses. The two take turns, since other work on the machine moves both. Reported: times, ratios, and
the peak memory of this process and of its workers together. `--members`: that many networks, of which the mean is taken.
"""

import argparse
import contextlib
import logging
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch

from utseg.case import Case
from utseg.inference.grid import window_grid
from utseg.inference.views import NO_AUGMENTATION
from utseg.inference.windows import default_batch_size
from utseg.planning.task import planned_task
from utseg.predict.inputs import find_inputs
from utseg.predict.model import LoadedModel
from utseg.predict.pipeline import predict_cases

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "predict"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_models import make_plan, make_record

SPACING_MM = 1.25  # that of the plan
PATCH = (256, 256)


def write_volumes(folder: Path, number: int) -> tuple[Case, ...]:
    """Blurred noise with a bright disc, oblique, as compressed 16-bit NIfTI."""
    rng = np.random.default_rng(0)
    for index in range(number):
        slices, rows, columns = int(rng.integers(8, 13)), 224, 258
        y, x = np.mgrid[:rows, :columns]
        disc = (y - 110) ** 2 + (x - 130) ** 2 < 40**2
        image = rng.normal(300, 40, (slices, rows, columns)) + 400 * disc
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * (SPACING_MM, SPACING_MM, 8)
        nibabel.save(
            nibabel.Nifti1Image(image.astype(np.int16).T, affine), folder / f"case{index:03d}.nii.gz"
        )
    return find_inputs(folder, ("cine-MRI",)).cases


def make_model(base_channels: int, seed: int) -> LoadedModel:
    """UTNet as published, with random weights."""
    network_settings = {
        "base_channels": base_channels,
        "levels": 4,
        "block_list": (1, 2, 3, 4),
        "num_blocks": (1, 1, 1, 1),
        "num_heads": (4, 4, 4, 4),
        "reduce_size": 8,
    }
    plan = make_plan(network=network_settings, patch_size=PATCH, clip_percentiles=(5, 98))
    record = make_record(plan)
    torch.manual_seed(seed)
    network = planned_task(plan).build()
    return LoadedModel(
        network.eval().requires_grad_(False), record, Path(f"Benchmark/auto_2d/UTNet/fold{seed}"), str(seed)
    )


@torch.inference_mode()
def bare_seconds(models: list[LoadedModel], slices: int, size_yx: tuple[int, int]) -> float:
    """Forward passes over so many ready windows."""
    batch = default_batch_size(PATCH, torch.device("cpu"))
    windows_BChw = torch.randn(batch, 1, *size_yx)
    start = time.perf_counter()
    for _ in range(-(-slices // batch)):
        for model in models:
            model.network.main_logits(windows_BChw)
    return time.perf_counter() - start


def peak_mb() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Workers(threading.Thread):
    """Watches the memory that the processes below this one hold together; `peak_mb` is the largest sum (shared pages count in each)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0

    def run(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, sum(map(resident_mb, below(os.getpid()))))
            time.sleep(0.2)


def below(parent: int) -> Iterator[int]:
    """All descendants of a process."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                children.append(int(stat.parent.name))
    for child in children:
        yield child
        yield from below(child)


def resident_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--base-channels", type=int, default=32)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-bare", action="store_true")
    arguments = parser.parse_args()
    workers = Workers()
    workers.start()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    models = [make_model(arguments.base_channels, seed) for seed in range(arguments.members)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        cases = write_volumes(folder / "in", arguments.volumes)
        slices = sum(nibabel.load(case.images[0]).shape[2] for case in cases)
        grid = window_grid((224, 258), PATCH, models[0].record.plan.step_size)
        windows = slices * len(grid.starts_yx)
        print(f"{arguments.volumes} volumes, {slices} slices, windows of {grid.window_yx}: {windows}")

        def bare() -> float:
            return 0.0 if arguments.no_bare else bare_seconds(models, windows, grid.window_yx)

        ratios = []
        bare_seconds(models, 4, grid.window_yx)
        before = bare()
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            predict_cases(cases, models, folder / "out", tta=NO_AUGMENTATION)
            whole = time.perf_counter() - start
            after = bare()
            print(f"end to end {whole:.1f} s", flush=True)
            if not arguments.no_bare:
                ratios.append(2 * whole / (before + after))
                print(
                    f"bare network {before:.1f} s before, {after:.1f} s after, ratio {ratios[-1]:.2f}",
                    flush=True,
                )
            before = after
    if ratios:
        print(f"median ratio {statistics.median(ratios):.2f}")
    print(f"peak memory of this process {peak_mb():.0f} MB, of all others together {workers.peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
