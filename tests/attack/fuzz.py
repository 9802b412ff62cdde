"""Changed files through every reader of strangers' files: each is read, and right, or refused in one line.

    python benchmarks/attack.py fuzz [READER …] --count 3000 [--first 0] [--seed 0] [--shared ../shared] -o FOLDER

Input N of a reader depends on the seed and N alone. A find is anything else than a UtsegError in one short line: another
exception, a result that is not right, more than 5 s of CPU or 1 GiB of memory, a dead process.
FOLDER/finds.csv lists it, its file lies beside.
"""

import argparse
import csv
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from attack.faults import in_fork
from attack.readers import Reader, make_readers
from utseg.errors import LONGEST_LINE, UtsegError

CPU_SECONDS = 5.0
MEMORY_BYTES = 2**30
CHUNK = 250
ACCEPTED, REFUSED = "accepted", "refused"


class Hang(BaseException):
    """One input takes too long."""


def _hang(signum: int, frame: object) -> None:
    raise Hang


def read_changed(name: str, reader: Reader, seed: int, number: int, base: Path) -> str:
    """ACCEPTED, REFUSED, or what was found. The changed file stays in `base`, a copy of the reader's folder."""
    rng = Random(f"{seed} {name} {number}")
    data = reader.change(rng.choice(reader.originals), rng)
    path = base / reader.place
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        reader.read(path)
    except UtsegError as error:
        lines = error.lines()
        longest = max(lines, key=len, default="")
        return (
            REFUSED
            if lines and len(longest) <= LONGEST_LINE + 50
            else f"LONG LINE of {len(longest)}: {longest[:200]}"
        )
    except Hang:
        return f"HANG {traceback.format_exc()[-600:]}"
    except Exception as error:  # noqa: BLE001 — whatever a reader lets through is a find
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "/utseg/" in frame.filename] or list(where)
        return (
            f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}: {str(error)[:200]}"
        )
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ACCEPTED


def read_many(name: str, reader: Reader, seed: int, numbers: Sequence[int], base: Path) -> dict[str, Any]:
    """Counts, and finds by number, under limits for time and memory: for a process of its own."""
    signal.signal(signal.SIGVTALRM, _hang)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counts: Counter[str] = Counter()
    finds = {}
    for number in numbers:
        (base / "number").write_text(str(number))
        verdict = read_changed(name, reader, seed, number, base)
        counts[verdict if verdict in (ACCEPTED, REFUSED) else "found"] += 1
        if verdict not in (ACCEPTED, REFUSED):
            finds[str(number)] = verdict
    return {"counts": counts, "finds": finds}


def fuzz(
    name: str, reader: Reader, seed: int, numbers: range, place: Path
) -> tuple[Counter[str], dict[str, str]]:
    """All numbers, some at a time in a fork; the one at which a fork dies is a find, and those after it are read by the next."""
    counts, finds = Counter[str](), dict[str, str]()
    base = place / name
    shutil.copytree(reader.base, base)
    for data in reader.originals:
        (base / reader.place).write_bytes(data)
        sound = in_fork(lambda: [reader.read(base / reader.place)] and "read")
        assert sound == "read", f"{name}: what is sound is refused: {sound}"
    todo = list(numbers)
    while todo:
        some = todo[:CHUNK]
        answer = in_fork(lambda: read_many(name, reader, seed, some, base), seconds=600)  # noqa: B023 — ends before the next
        if "died" in answer:
            number = int((base / "number").read_text())
            counts["found"] += 1
            finds[str(number)] = f"DIED {answer['died']}"
            todo = [each for each in todo if each > number]
            continue
        counts.update(answer["counts"])
        finds |= answer["finds"]
        todo = todo[CHUNK:]
    shutil.rmtree(base)
    return counts, finds


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzzes, writes finds, prints counts; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    numbers = range(arguments.first, arguments.first + arguments.count)
    total: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        (arguments.output / "finds.csv").open("a", newline="") as table,
    ):
        readers = make_readers(Path(folder), arguments.shared)
        for name in arguments.readers or readers:
            started, reader = time.perf_counter(), readers[name]
            counts, finds = fuzz(name, reader, arguments.seed, numbers, Path(folder) / "work")
            for number, verdict in finds.items():
                csv.writer(table).writerow((name, arguments.seed, number, verdict))
                rng = Random(f"{arguments.seed} {name} {number}")
                data = reader.change(rng.choice(reader.originals), rng)
                (
                    arguments.output / f"{name}-{arguments.seed}-{number}{Path(reader.place).suffix}"
                ).write_bytes(data)
            table.flush()
            total += counts
            print(
                f"{name}: {sum(counts.values())} in {time.perf_counter() - started:.0f} s: {dict(counts)}",
                flush=True,
            )
            for verdict, times in Counter(verdict[:160] for verdict in finds.values()).most_common(8):
                print(f"   {times} × {verdict}", flush=True)
    print(f"{total.total()} inputs: {dict(total)}")
    return int(total["found"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
