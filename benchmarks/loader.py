"""Patches per second of the training loader in one process, beside nnU-Net's on the same slices where its Python is given.

    python benchmarks/loader.py PLAN_FOLDER [--patch 256] [--batch 16] [--rounds 7] [--always] [--with KIND …] [--workers N]
        [--peer-python PYTHON]

PLAN_FOLDER is `preprocessed/NAME/PLAN_2d`. Augmentation is the plan's; with --always every kind that plans use happens on every patch,
mirroring too; with --with blur or resolution these do, which plans leave out. One thread each; slices are in
memory for both; rounds alternate, so that a noisy machine hits both, and the figure is the ratio of medians. The peer runs its own
loader and default 2-D transforms (blur and low resolution among them, which are off in ours) in `loader_peer.py`, without the smaller
targets of deep supervision.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from utseg.augment.loader import SliceLoader, list_slices, training_batches
from utseg.planning.plan import Plan, read_plan
from utseg.preprocess.slices import SliceStore

KINDS = ("rotation", "scale", "noise", "brightness", "contrast", "gamma", "histogram")
LEFT_OUT = ("blur", "resolution")


def adapted_plan(plan: Plan, patch: int, batch: int, always: bool, extra: Sequence[str]) -> Plan:
    """The plan with another patch and batch size, and with all its kinds of augmentation, and others, on every patch where asked."""
    augmentation = plan.augmentation
    kinds = [*(KINDS if always else ()), *extra]
    certain: dict[str, Any] = {f"{kind}_probability": 1.0 for kind in kinds}
    certain |= {"mirror_axes": ("y", "x")} if always else {}
    augmentation = augmentation.model_copy(update=certain)
    changes = {"patch_size": (patch, patch), "batch_size": batch, "augmentation": augmentation}
    return plan.model_copy(update=changes)


@contextmanager
def peer(
    python: str | None, store: SliceStore, plan: Plan, batches: int
) -> Iterator[subprocess.Popen[str] | None]:
    """The peer's process, ready: it answers each line with the seconds of one round."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        for case_id in store.case_ids():
            image, label = store.read_case(store.case_record(case_id))
            np.savez(Path(folder) / f"{case_id}.npz", image=image, label=label)
        settings = {"patch": plan.patch_size, "batch": plan.batch_size, "batches": batches}
        script = Path(__file__).with_name("loader_peer.py")
        process = subprocess.Popen(
            [python, str(script), folder, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ask(process: subprocess.Popen[str]) -> float:
    """Seconds of one round of the peer."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise SystemExit("the peer ended; its message stands above")


def rounds_of(loader: Iterator[object], batches: int) -> Iterator[float]:
    """Seconds of round after round."""
    while True:
        begin = time.perf_counter()
        for _ in range(batches):
            next(loader)
        yield time.perf_counter() - begin


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan_folder", type=Path)
    parser.add_argument("--patch", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=20, help="batches a round")
    parser.add_argument("--always", action="store_true")
    parser.add_argument("--with", dest="extra", nargs="+", choices=LEFT_OUT, default=[])
    parser.add_argument("--workers", type=int, help="measure through this many worker processes instead")
    parser.add_argument("--peer-python")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = SliceStore(options.plan_folder)
    plan = adapted_plan(
        read_plan(options.plan_folder), options.patch, options.batch, options.always, options.extra
    )
    records = [store.case_record(case_id) for case_id in store.case_ids()]
    slices = list_slices(records, plan)
    settings = {"seed": 0, "first_iteration": 0, "iterations": 10**9, "workers": options.workers or 0}
    patches = options.batches * options.batch
    with (
        peer(options.peer_python, store, plan, options.batches) as other,
        training_batches(store, records, plan, **settings) as through_workers,
    ):
        direct = SliceLoader(store, slices, plan, seed=0)
        ours = rounds_of(
            map(direct.make_batch, count()) if options.workers is None else through_workers, options.batches
        )
        for _ in range(2 + len(slices) // patches):  # until all slices are in memory
            next(ours)
        if other:
            ask(other)
        ours_s, theirs_s = [], []
        for _ in range(options.rounds):
            ours_s.append(next(ours))
            if other:
                theirs_s.append(ask(other))
    report("utseg", patches, ours_s)
    if theirs_s:
        report("nnU-Net", patches, theirs_s)
        print(f"ratio of medians: {statistics.median(theirs_s) / statistics.median(ours_s):.2f}")


def report(name: str, patches: int, seconds: list[float]) -> None:
    """One line: median, slowest and fastest round."""
    rates = [patches / value for value in seconds]
    print(f"{name:8s} {statistics.median(rates):6.0f} slices/s ({min(rates):.0f} to {max(rates):.0f})")


if __name__ == "__main__":
    main()
