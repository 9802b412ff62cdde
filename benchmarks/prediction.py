"""End-to-end prediction against the bare network over the same slices: reading, checking, resampling and writing should hide behind it.

    python benchmarks/prediction.py [--volumes 16] [--base-channels 32]

Volumes of about 10 × 224 × 258 voxels, UTNet with random weights, windows of 256², no mirroring. The bare network gets the windows ready
made, in the batches that prediction uses. The two take turns, since
other work on the machine moves both. Reported: times, ratios, and the peak memory of this process.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

from utseg.case import Case
from utseg.networks import build_network
from utseg.planning.plan import NetworkSettings
from utseg.predict.inputs import find_inputs
from utseg.predict.model import LoadedModel
from utseg.predict.pipeline import predict_cases
from utseg.predict.views import NO_AUGMENTATION
from utseg.predict.windows import default_batch_size, window_grid

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "predict"))
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


def make_model(base_channels: int) -> LoadedModel:
    """UTNet as published, with random weights."""
    network_settings = NetworkSettings(
        base_channels=base_channels,
        levels=4,
        block_list=(1, 2, 3, 4),
        num_blocks=(1, 1, 1, 1),
        num_heads=(4, 4, 4, 4),
        reduce_size=8,
    )
    plan = make_plan(network=network_settings, patch_size=PATCH, clip_percentiles=(5, 98))
    record = make_record(plan)
    torch.manual_seed(0)
    network = build_network("UTNet", in_channels=1, num_classes=4, **record.network_settings)
    return LoadedModel(
        network.eval().requires_grad_(False), record, Path("Benchmark/auto_2d/UTNet/fold0"), ""
    )


@torch.inference_mode()
def bare_seconds(model: LoadedModel, slices: int, size_yx: tuple[int, int]) -> float:
    """Forward passes over so many ready windows."""
    batch = default_batch_size(PATCH, torch.device("cpu"))
    windows_BChw = torch.randn(batch, 1, *size_yx)
    start = time.perf_counter()
    for _ in range(-(-slices // batch)):
        model.network.main_logits(windows_BChw)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--base-channels", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = make_model(arguments.base_channels)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        cases = write_volumes(folder / "in", arguments.volumes)
        shapes = [nibabel.load(case.images[0]).shape for case in cases]
        slices = sum(shape[2] for shape in shapes)
        grid = window_grid((224, 258), PATCH)
        windows = slices * len(grid.starts_yx)
        print(f"{arguments.volumes} volumes, {slices} slices, windows of {grid.window_yx}: {windows}")
        bare_seconds(model, 4, grid.window_yx)
        ratios = []
        before = bare_seconds(model, windows, grid.window_yx)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            predict_cases(cases, [model], folder / "out", tta=NO_AUGMENTATION)
            whole = time.perf_counter() - start
            after = bare_seconds(model, windows, grid.window_yx)
            ratios.append(2 * whole / (before + after))
            print(
                f"bare network {before:.1f} s before, {after:.1f} s after, end to end {whole:.1f} s, ratio {ratios[-1]:.2f}",
                flush=True,
            )
            before = after
    print(f"median ratio {statistics.median(ratios):.2f}")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
