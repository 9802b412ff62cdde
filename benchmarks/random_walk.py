"""A walk over random datasets: each is made, mutated, planned, trained for an epoch, predicted and scored, and judged by nibabel alone.

    python benchmarks/random_walk.py --count 300 --seed 0 -o FOLDER [--shared ../shared] [--only 17]

Writes FOLDER/walk.csv, one line a dataset: number, base, mutations, what was expected, verdict, command, message. Verdicts:
accepted (and right), refused (in a line), WRONG, CRASH, HANG. Goes on where it stopped. `--only N` repeats one, drawn from seed and number.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from walk.bases import MADE, REAL
from walk.walk import Verdict, draw_walk, run_walk

COLUMNS = ("number", "base", "mutations", "expected", "verdict", "command", "seconds", "message")
SEPARATE_EVERY = 40
"""Every so many datasets the commands run as processes of their own."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--only", type=int, nargs="+")
    arguments = parser.parse_args()
    shared = arguments.shared if arguments.shared.is_dir() else None
    bases = [*MADE, *(REAL if shared else ())]
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = arguments.output / "walk.csv"
    done: set[int] = set()
    if table.exists():
        with table.open(newline="") as handle:
            done = {int(row["number"]) for row in csv.DictReader(handle)}
    else:
        with table.open("w", newline="") as handle:
            csv.writer(handle).writerow(COLUMNS)
    numbers = arguments.only or [
        number for number in range(arguments.first, arguments.first + arguments.count) if number not in done
    ]
    with tempfile.TemporaryDirectory() as place:
        for number in numbers:
            started = time.perf_counter()
            walk = draw_walk(number, arguments.seed, bases)
            try:
                separate = number % SEPARATE_EVERY == SEPARATE_EVERY - 1
                home = Path(place) / f"home{number}"
                verdict = run_walk(walk, home, Path(place) / "cache", shared, separate=separate)
            except Exception:  # noqa: BLE001 — a fault of the walk itself must not end it
                verdict = Verdict("HARNESS", "", traceback.format_exc()[-1500:])
            mutations = "; ".join(f"{name} {parameters}" for name, parameters in walk.mutations)
            seconds = f"{time.perf_counter() - started:.1f}"
            base = walk.base + (" (trained on untouched)" if walk.test_only else "")
            row = (
                number,
                base,
                mutations,
                walk.expect,
                verdict.what,
                verdict.command,
                seconds,
                verdict.message,
            )
            with table.open("a", newline="") as handle:
                csv.writer(handle).writerow(row)
            print(*row[:-1], verdict.message[:400], sep=" | ", flush=True)
    with table.open(newline="") as handle:
        print(Counter(row["verdict"] for row in csv.DictReader(handle)))


if __name__ == "__main__":
    main()
