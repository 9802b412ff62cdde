"""Memory of a large cohort's whole walk, and of the training loader as time goes by.

    python benchmarks/memory.py walk FOLDER [--subjects 200] [--matrix 128] [--only COMMAND …]
    python benchmarks/memory.py loader PLAN_FOLDER [--minutes 60] [--workers 0] [--pace .35]

`walk` makes a phantom, and types every command from plan to report, each with its defaults but two epochs; of each it prints seconds
and the peak memory of its largest process, workers among them, as the kernel counts it. `loader` makes batches as training does, one
in `--pace` seconds (0: as fast as it can), and prints the memory of this process and its workers ten times.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

PLANNER, MODEL, NAME = "cpu", "UTNet", "Phantom"


def steps(folder: Path, subjects: int, matrix: int) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    raw, out = folder / "raw" / NAME, folder / "out"
    size = ("--subjects", subjects, "--matrix", matrix, "--frames", 2)
    model = ("-d", NAME, "-m", MODEL, "-pl", PLANNER)
    for words in (
        ("make_phantom", raw, *size),
        ("plan_and_preprocess", *model),
        ("train", "2d", "fold0", *model, "--epochs", 2, "--overwrite"),
        ("predict", "-i", raw, "-o", out / "masks", *model, "-f", "fold0"),
        ("evaluate", "-p", out / "masks", "-g", raw, "-o", out / "scores", "--only-referenced"),
        ("report", out / "scores", "-o", out / "report.html"),
    ):
        yield tuple(map(str, words))


def walk(folder: Path, subjects: int, matrix: int, only: Sequence[str]) -> None:
    """Types the commands, and prints a line for each."""
    for command, *words in steps(folder, subjects, matrix):
        if only and command not in only:
            continue
        code = f"import sys; from utseg.commands.{command} import main; sys.exit(main())"
        began = time.perf_counter()
        environment = os.environ | {"UTSEG_HOME": str(folder)}
        process = os.posix_spawn(sys.executable, [sys.executable, "-c", code, *words, "--quiet"], environment)
        _, status, usage = os.wait4(process, 0)  # ru_maxrss: of it or of a child that it waited for
        seconds = time.perf_counter() - began
        print(f"{command:20s} {seconds:6.0f} s {usage.ru_maxrss / 1024:6.0f} MB", flush=True)
        if status:
            raise SystemExit(f"utseg_{command} failed; its message stands above")


def resident_mb(process: int | str = "self") -> float:
    """Memory of a process and of its children, in MB, pages of the file cache and shared ones included."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    own = int(status.split("VmRSS:")[1].split()[0]) / 1024
    children = Path(f"/proc/{process}/task").glob("*/children")
    return own + sum(resident_mb(child) for path in children for child in path.read_text().split())


def loader(plan_folder: Path, minutes: float, workers: int, pace: float) -> None:
    """Makes batches for that time."""
    from utseg.augment.loader import training_batches
    from utseg.planning.plan import read_plan
    from utseg.preprocess.slices import SliceStore

    store, plan = SliceStore(plan_folder), read_plan(plan_folder)
    records = [store.case_record(case_id) for case_id in store.case_ids()]
    settings = {"seed": 0, "first_iteration": 0, "iterations": 10**9, "workers": workers}
    once = 1 + sum(len(record.slices) for record in records) // plan.batch_size
    with training_batches(store, records, plan, **settings) as batches:
        for _ in islice(batches, 2 * once):  # until the cache has what it keeps
            pass
        began, done = time.monotonic(), 0
        print(f"after two passes of {once} batches: {resident_mb():.1f} MB", flush=True)
        for part in range(1, 11):
            while time.monotonic() - began < part * minutes * 6:
                next(batches)
                done += 1
                time.sleep(pace)  # a training step, while the next batches are made
            print(f"{part * minutes / 10:.0f} min, {done} batches: {resident_mb():.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("walk", "loader"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--matrix", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0)
    options = parser.parse_args()
    if options.what == "walk":
        walk(options.folder.absolute(), options.subjects, options.matrix, options.only)
    else:
        loader(options.folder, options.minutes, options.workers, options.pace)


if __name__ == "__main__":
    main()
