"""nnU-Net's preprocessing and prediction killed and started again, and ours beside them: what each loses.

    python benchmarks/attack_peer.py OUT --peer-python PYTHON [--kills 5] [--seed 0]

A small made dataset (`peer_phantoms.py`) and a model of each, trained for two iterations on all cases. A command is killed with its whole
process group (SIGKILL) once its first file is there, at a random moment or as soon as a random one of its files is seen, and then typed
again as it was; prediction has `--continue_prediction` and `--resume`. Prints a line a kill, and a row each: files cut off under their
final names; files that a second run left missing or otherwise than an undisturbed run; those of them that are still cut off; second runs
that failed; processes that stayed. One process, one thread. Linux. PYTHON has nnunetv2 2.8.1.
"""

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

from peer_datasets import Peer, run
from peer_phantoms import PHANTOMS, make

from utseg.files import is_temporary

END_S = 240.0
COLUMNS = ("kills", "cut off", "wrong after", "still cut off", "failed", "stayed")
READ = {".json": json.loads, ".gz": gzip.decompress, ".csv": lambda content: content.endswith(b"\n")}


class Attacked:
    """A command, what it writes into its folder undisturbed, and how long it works from its first file on.

    `loose`: what two undisturbed runs write differently, as times are in it; of this only a cut is noticed.
    """

    def __init__(self, words: list[str | Path], folder: Path, log: Path, **variables: str | Path) -> None:
        self.words, self.folder, self.log = [str(word) for word in words], folder, log
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.environment |= {key: str(value) for key, value in variables.items()}
        self.stayed = self.play(fresh=True)[1]
        first = self.files()
        self.work_s, code = self.play(fresh=True)
        self.wanted = self.files()
        assert code == 0 and first.keys() == self.wanted.keys(), f"see {log}"
        self.loose = {name for name, content in first.items() if content != self.wanted[name]}

    def play(self, fresh: bool, moment_s: float = END_S, count: int = sys.maxsize) -> tuple[float, int]:
        """Runs it, from nothing where asked, until its end or a kill; seconds since its first file, exit code."""
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        began = worked_s = 0.0
        with self.log.open("a") as file:
            process = subprocess.Popen(
                self.words, env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
        while process.poll() is None:
            with suppress(FileNotFoundError):  # a temporary folder that is renamed meanwhile
                seen = len(self.names())
                began = began or (time.perf_counter() if seen else 0.0)
                worked_s = time.perf_counter() - began if began else 0.0
                if seen and (seen >= count or worked_s >= moment_s):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.0005)
        time.sleep(0.5)
        states = subprocess.run(["ps", "-o", "stat=", "-s", str(process.pid)], capture_output=True).stdout
        self.stayed = sum(not state.startswith(b"Z") for state in states.split())
        return worked_s, process.returncode

    def names(self) -> list[str]:
        """The files that are there, temporary ones, too; no locks."""
        paths = [path for path in self.folder.rglob("*") if not path.name.startswith(".lock")]
        return [str(path.relative_to(self.folder)) for path in paths if path.is_file()]

    def files(self) -> dict[str, bytes]:
        """The files that are there under their final names."""
        names = [name for name in self.names() if not any(map(is_temporary, Path(name).parts))]
        return {name: (self.folder / name).read_bytes() for name in names}

    def cut(self) -> list[str]:
        return sorted(name for name, content in self.files().items() if self.is_cut(name, content))

    def is_cut(self, name: str, content: bytes) -> bool:
        """Whether a file is neither that of an undisturbed run nor text or packed data that is readable to its end."""
        try:
            read = READ.get(Path(name).suffix, lambda _: False)
            return content != self.wanted.get(name) and not read(content)
        except (ValueError, EOFError, OSError, zlib.error):
            return True

    def attack(self, name: str, by_file: bool, kills: int, rng: Random) -> None:
        """So many kills, each followed by the same command; prints a row of the table."""
        counts = Counter[str]()
        while counts["kills"] < kills:
            moment_s, count = rng.uniform(0, self.work_s), rng.randint(1, len(self.wanted))
            at_s, code = self.play(True, count=count) if by_file else self.play(True, moment_s)
            if code != -signal.SIGKILL:  # it had ended
                continue
            stayed, left, cut = self.stayed, self.files(), self.cut()
            code, after, still = self.play(fresh=False)[1], self.files(), self.cut()
            wrong = {each for each in self.wanted.keys() - self.loose if after.get(each) != self.wanted[each]}
            wrong |= self.loose - after.keys()
            found = (1, len(cut), len(wrong), len(still), int(code != 0), stayed)
            counts.update(dict(zip(COLUMNS, found, strict=True)))
            told = f"{at_s:.2f} of {self.work_s:.2f} s, {len(left)} of {len(self.wanted)} files, cut {cut}"
            print(f"{name}: {told}; again: {code}, wrong {sorted(wrong)}, cut {still}", flush=True)
        print(f"| {name} | {' | '.join(str(counts[key]) for key in COLUMNS)} |", flush=True)


def attacked(out: Path, python: Path) -> Iterator[tuple[str, Attacked]]:
    """The commands by program and stage, with a model of each to predict with."""
    root, log, peer = make(PHANTOMS["ct"]._replace(cases=(8, 8)), out / "raw"), out / "log", Peer(out, python)
    name, home = peer.link("ct", root, log), out / "home"
    ours, theirs = {"UTSEG_HOME": home, "UTSEG_RAW": root.parent}, ["-d", name[7:10], "-c", "2d"]

    def utseg(command: str, *words: str | Path) -> list[str | Path]:
        return [Path(sys.executable).with_name(f"utseg_{command}"), *words, "-d", name, "-m", "UNet"]

    peer.masks(name, {"epochs": 1, "iterations_per_epoch": 2, "seed": 0}, log, out / "nnunet_first")
    words = [peer.command("nnUNetv2_plan_and_preprocess"), *theirs, "-np", "1", "-npfp", "1"]
    yield "nnU-Net, preprocessing", Attacked(words, peer.out / "preprocessed" / name, log, **peer.variables)
    words = utseg("plan_and_preprocess", "-np", "1")
    yield "utseg, preprocessing", Attacked(words, home / "preprocessed" / name, log, **ours)
    words = [peer.command("nnUNetv2_predict"), *theirs, "-f", "all", "-device", "cpu"]
    words += ["-npp", "1", "-nps", "1", "--continue_prediction"]
    words += ["-i", root / "imagesTs", "-o", masks := out / "nnunet_masks"]
    yield "nnU-Net, prediction", Attacked(words, masks, log, **peer.variables)
    length = ["--epochs", "1", "--overwrite", "--set", "iterations_per_epoch=2"]
    run(utseg("train", "2d", "all", "--device", "cpu", *length), log, **ours)
    words = utseg("predict", "--device", "cpu", "-np", "1", "--resume")
    words += ["-i", root / "imagesTs", "-o", masks := out / "utseg_masks"]
    yield "utseg, prediction", Attacked(words, masks, log, **ours)


def main() -> None:
    """Attack each command in both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5, help="of each command in each way")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(f"| program, stage, moment | {' | '.join(COLUMNS)} |")
    for name, command in attacked(out, arguments.peer_python):
        for by_file, way in enumerate(("random", "a file")):
            rng = Random(f"{arguments.seed} {name} {way}")
            command.attack(f"{name}, {way}", bool(by_file), arguments.kills, rng)


if __name__ == "__main__":
    main()
