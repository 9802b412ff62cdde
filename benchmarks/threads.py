"""Training and prediction alone and beside busy processes, with a fixed and with an adapted number of threads, in turns.

    python benchmarks/threads.py [--network UNet] [--iterations 60] [--rounds 1] [--busy 1] [--work training prediction preprocessing]

Training steps and predicted slices are those of a cpu plan (base 16, 128², batch 8, float32) on random numbers. The first pieces, in which
a number of threads is found, are part of the time, but not of the second half's. Preprocessing is done by worker processes of one thread
each, so there is nothing to adapt: volumes are resampled by as many processes as cores. Nothing else should run on the machine.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean, median

import numpy as np
import torch

from trainers.utnet import recipe
from utseg.augment.loader import Batch
from utseg.compute.pool import process_pool, run_all
from utseg.compute.threads import Threads
from utseg.inference.windows import default_batch_size, predict_volumes
from utseg.networks import build_network
from utseg.preprocess.case import resample_image
from utseg.training.optimizer import make_optimizer
from utseg.training.step import train_step

PATCH, BATCH = (128, 128), 8
SLICES_YX = (230, 200)
CPU = torch.device("cpu")
Work = Callable[[Threads], list[float]]  # seconds of each piece


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes beside this one that compute all the time."""
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def training(network: str, iterations: int) -> Work:
    """Iterations of training."""
    settings = recipe(network).model_copy(update={"amp": "off"})
    model = build_network(network, in_channels=1, num_classes=4, base_channels=16)
    optimizer = make_optimizer(model, settings.optimizer, pretrained=False)
    rng = np.random.default_rng(0)
    image_BCHW = rng.normal(size=(BATCH, 1, *PATCH)).astype(np.float32)
    batch = Batch(image_BCHW, rng.integers(0, 4, (BATCH, *PATCH), np.uint8), ("",) * BATCH, 0)

    def work(threads: Threads) -> list[float]:
        seconds = []
        for _ in range(iterations):
            began = time.perf_counter()
            with threads.timed():
                train_step(model, optimizer, batch, settings, CPU)
            seconds.append(time.perf_counter() - began)
        return seconds

    return work


def prediction(network: str, slices: int) -> Work:
    """Slices that are predicted, in volumes of two."""
    model = build_network(network, in_channels=1, num_classes=4, base_channels=16)
    rng = np.random.default_rng(0)
    volumes = [rng.normal(size=(1, 2, *SLICES_YX)).astype(np.float32) for _ in range(slices // 2)]

    def work(threads: Threads) -> list[float]:
        seconds, began = [], time.perf_counter()
        for _ in predict_volumes(
            [model],
            volumes,
            patch_size=PATCH,
            batch_size=default_batch_size(PATCH, CPU),
            num_classes=4,
            device=CPU,
            step_size=0.5,
            threads=threads,
        ):
            seconds.append((time.perf_counter() - began) / 2)
            began = time.perf_counter()
        return seconds

    return work


def resampled(seed: int) -> float:
    """What preprocessing computes of a volume, some times over."""
    image_ZYX = np.random.default_rng(seed).normal(size=(10, 256, 216)).astype(np.float32)
    return sum(float(resample_image(image_ZYX, SLICES_YX).mean()) for _ in range(40))


def preprocessing(volumes: int) -> Work:
    """Volumes that are preprocessed; threads are not used."""

    def work(threads: Threads) -> list[float]:
        with process_pool() as pool:
            run_all(resampled, range(2), pool, "start")
            began = time.perf_counter()
            run_all(resampled, range(volumes), pool, "resample")
            return [(time.perf_counter() - began) / volumes]

    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("training", "prediction", "preprocessing")
    parser.add_argument("--network", default="UNet")
    parser.add_argument(
        "--iterations", type=int, default=60, help="of training, slices predicted, volumes preprocessed"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--work", nargs="+", choices=kinds, default=kinds[:2])
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="    %(message)s")
    works = {
        "training": lambda: training(given.network, given.iterations),
        "prediction": lambda: prediction(given.network, given.iterations),
        "preprocessing": lambda: preprocessing(given.iterations),
    }
    for kind in given.work:
        work, adapting = works[kind](), (False, True) if kind != "preprocessing" else (False,)
        found: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for neighbours in (0, given.busy):
                for adapts in adapting:
                    with busy(neighbours), Threads(kind, adapts=adapts) as threads:
                        seconds = work(threads)
                    name = f"{kind}, {'adapted' if adapts else 'fixed'}, {neighbours} busy"
                    found.setdefault(name, []).append(mean(seconds))
                    later = mean(seconds[len(seconds) // 2 :])
                    print(f"{name}: {mean(seconds):.3f} s, in the second half {later:.3f}", flush=True)
        alone = median(next(iter(found.values())))
        for name, means in found.items():
            print(f"{name}: median {median(means):.3f} s, {alone / median(means):.2f} of the speed alone")


if __name__ == "__main__":
    main()
