"""Plan and preprocess a raw dataset in the nnU-Net layout, from process start to process end; beside nnU-Net where it is installed.

    python benchmarks/plan_and_preprocess.py FOLDER [-np 2] [-pl auto] [--peer-python PYTHON] [--repeat 1]

Both check every file's integrity, take fingerprint and plan, and preprocess for 2-D. Prints wall seconds, their ratio, and the largest
resident memory of any one process besides the main one. PYTHON is the interpreter of an environment with nnU-Net 2.8.1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

POLL_SECONDS = 0.02
PEER_NAME = "Dataset001_Peer"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="raw dataset in the nnU-Net layout")
    parser.add_argument("-np", dest="workers", type=int, default=2)
    parser.add_argument("-pl", dest="planner", default="auto")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    folder, ours, peers = arguments.folder.absolute(), [], []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory() as home:
            ours.append(measured(*our_command(folder, Path(home), arguments.workers, arguments.planner)))
        if arguments.peer_python:
            with tempfile.TemporaryDirectory() as home:
                peers.append(
                    measured(*peer_command(folder, Path(home), arguments.workers, arguments.peer_python))
                )
    mine = report(f"utseg_plan_and_preprocess -pl {arguments.planner}", ours)
    if peers:
        theirs = report("nnUNetv2_plan_and_preprocess -c 2d", peers)
        print(f"ratio of wall time: {mine / theirs:.2f}")


def our_command(folder: Path, home: Path, workers: int, planner: str) -> tuple[list[str], dict[str, str]]:
    """The command line and what it needs in the environment."""
    command = [str(Path(sys.executable).parent / "utseg_plan_and_preprocess"), "-d", folder.name]
    command += ["-pl", planner, "-np", str(workers), "--home", str(home)]
    return command, {"UTSEG_RAW": str(folder.parent)}


def peer_command(folder: Path, home: Path, workers: int, python: Path) -> tuple[list[str], dict[str, str]]:
    """The same for nnU-Net, which wants a number in the dataset's name and three folders; images and labels are linked."""
    raw = home / "raw" / PEER_NAME
    raw.mkdir(parents=True)
    for name in ("imagesTr", "labelsTr"):
        (raw / name).symlink_to(folder / name)
    shutil.copy(folder / "dataset.json", raw)
    variables = {f"nnUNet_{part}": str(home / part) for part in ("raw", "preprocessed", "results")}
    command = [str(python.parent / "nnUNetv2_plan_and_preprocess"), "-d", "1", "-c", "2d"]
    command += ["-np", str(workers), "-npfp", str(workers), "--verify_dataset_integrity"]
    return command, variables


def measured(command: list[str], variables: dict[str, str]) -> tuple[float, float]:
    """Wall seconds of a command, and the peak MB of its largest process besides the main one."""
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        peak = 0.0
        while process.poll() is None:
            peak = max([peak, *(peak_mb(pid) for pid in descendants(process.pid))])
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{log.read()}")
    return seconds, peak


def descendants(pid: int) -> list[int]:
    """Children, and theirs, of a running process (Linux)."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(child) for child in children.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *descendants(child)]
    return found


def peak_mb(pid: int) -> float:
    """Largest resident memory so far of a process, 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024 if "VmHWM" in fields else 0.0


def report(name: str, figures: list[tuple[float, float]]) -> float:
    """Prints the median of several runs, and returns its seconds."""
    seconds, peak = median(s for s, _ in figures), max(p for _, p in figures)
    print(f"{name:<42} {seconds:6.1f} s wall, largest worker {peak:5.0f} MB  ({len(figures)} runs)")
    return seconds


if __name__ == "__main__":
    main()
