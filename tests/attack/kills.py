"""A command is killed at random moments, the whole of it or one worker; what is left, and what the same command makes of it, is judged.

    python benchmarks/attack.py kills [COMMAND …] --count 40 [--seed 0] [--ways alone rename group parent worker] -o FOLDER

Ways: the command without workers, at a random moment or before a random one of its renames; with two workers, its process group, itself
alone, or one of the workers. One to four kills in a
row, then the same command to its end. What has to hold: every file that was there is as it was or as an undisturbed run writes it, and no
new one is cut off; no process stays; the command whose worker was killed goes on, or says `error: ` lines and ends; the same command
again, with --resume where it asks for that, ends with the very files of an undisturbed run, or refuses to write them once more.
"""

import argparse
import csv
import ctypes
import gzip
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from unittest.mock import patch
from zipfile import BadZipFile, ZipFile

from commandline import temporary_files

from attack.faults import TEXT, Undisturbed, differing, files_of, in_fork, signal_after
from utseg.files import is_temporary

WAYS = {"alone": 12, "rename": 8, "group": 5, "parent": 1, "worker": 4}
"""How often each is drawn."""
INLINE = ("alone", "rename")
GOOD = ("killed", "went on", "said so")
BETWEEN_S = 0.002
GONE_S, END_S = 60.0, 240.0  # the time for processes to go away, and for a command that lost a worker to end
PR_SET_CHILD_SUBREAPER = 36


def descendants(of: int) -> dict[int, tuple[int, str]]:
    """The processes below one: their parents and command lines."""
    every = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state != "Z":
                every[int(folder.name)] = int(parent), words
    found: dict[int, tuple[int, str]] = {}
    while new := {
        process: each
        for process, each in every.items()
        if process not in found and (each[0] == of or each[0] in found)
    }:
        found |= new
    return found


def workers_of(process: int) -> list[int]:
    """The processes that do a command's work, without those that start them and those that clean up."""
    return [
        each
        for each, (parent, words) in descendants(process).items()
        if "resource_tracker" not in words and (parent != process or "forkserver" not in words)
    ]


def _unpacks(path: Path) -> bool:
    """Whether a file that the command removes later is whole: its checksum is that of its content."""
    try:
        return (
            bool(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else not ZipFile(path).testzip()
        )
    except (OSError, EOFError, BadZipFile):
        return False


class Kills(Undisturbed):
    """Kills of one command. `duration_s`: of an undisturbed run, or of the shortest one that no kill came in time for, by way."""

    def __init__(self, name: str, place: Path) -> None:
        super().__init__(name, place)
        self.said, self.elsewhere = place / f"{name}.said", place / f"{name}_elsewhere"
        self.elsewhere.mkdir()
        self.duration_s: dict[str, float] = {}

    def chain(self, length: int, rng: Random, ways: Sequence[str]) -> list[tuple[str, float, float, str]]:
        """Up to `length` kills in a row and the command to its end: way, moment, seconds to the end, and verdict of each kill."""
        self._reset()
        kills = []
        for _ in range(length):
            (way,) = rng.choices(ways, [WAYS[each] for each in ways])
            moment = rng.random()
            if way not in self.duration_s:
                self._kill(way, END_S)
                self._reset()
            kill = self._kill(way, moment * self.duration_s[way])
            if kill is not None:
                kills.append((way, *kill))
        if kills and (wrong := self._finish(self.scene.resume and rng.random() < 0.5)):
            kills[-1] = (*kills[-1][:-1], f"{wrong} after {kills[-1][-1]}")
        return [(*kill[:-1], kill[-1].replace(str(self.folder), "…")) for kill in kills]

    def _kill(self, way: str, moment_s: float) -> tuple[float, float, str] | None:
        """Moment (the number of the rename), seconds to the end, verdict. None where the command had ended before."""
        if way == "rename":
            return self._killed_at_rename(moment_s)
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._run(way)
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(child, child)  # as the child does; whichever comes first
        status = self._ended_at(child, started + moment_s)
        workers: list[int] = []
        while status is None and way == "worker" and not workers:
            workers = workers_of(child)
            status = self._ended_at(child, time.perf_counter() + BETWEEN_S)
        moment = time.perf_counter() - started
        if status is not None:
            self.duration_s[way] = min(self.duration_s.get(way, moment), moment)
            return None
        if way == "worker":
            with suppress(ProcessLookupError):
                os.kill(workers[int(moment * 1e6) % len(workers)], signal.SIGKILL)
            status = self._ended_at(child, time.perf_counter() + END_S)
        elif way == "parent":
            os.kill(child, signal.SIGKILL)
        else:
            os.killpg(child, signal.SIGKILL)
        stayed = self._stayed(GONE_S if way != "worker" or status is not None else 0)
        verdict = f"PROCESSES STAYED {stayed}" if stayed else self._verdict(way, status)
        return moment, time.perf_counter() - started - moment, verdict

    def _killed_at_rename(self, step: float) -> tuple[float, float, str] | None:
        renames = self.folder.with_suffix(".renames")
        renames.write_bytes(b"")
        child = os.fork()
        if child == 0:

            def counted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
                def moved(path: Path, target: Path) -> Path:
                    with renames.open("ab") as handle:
                        handle.write(b".")
                    if renames.stat().st_size > step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return move(path, target)

                return moved

            with (
                patch.object(Path, "rename", counted(Path.rename)),
                patch.object(Path, "replace", counted(Path.replace)),
            ):
                self._run("alone")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        count = renames.stat().st_size
        if status != -signal.SIGKILL:
            self.duration_s["rename"] = min(self.duration_s.get("rename", count), count)
            return None
        return count, 0.0, self._verdict("rename", status)

    def _run(self, way: str) -> None:
        """The command, in a process group of its own and an empty folder."""
        os.setpgid(0, 0)
        os.chdir(self.elsewhere)
        said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal_after(int(2 * END_S))
        if way == "alone":
            code, text = self.run_scene(self.scene, self.folder)
            os.write(said, text.encode())
        else:
            from attack.scenes import run_with_workers

            code = run_with_workers(self.scene, self.folder, forked=way != "parent")
        os._exit(code)

    @staticmethod
    def _ended_at(child: int, until: float) -> int | None:
        """The exit code of a child that ends by then."""
        while True:
            process, status = os.waitpid(child, os.WNOHANG)
            if process:
                return os.waitstatus_to_exitcode(status)
            if time.perf_counter() >= until:
                return None
            time.sleep(BETWEEN_S)

    @staticmethod
    def _stayed(seconds: float) -> list[str]:
        """What of the command is still there after so long, which is ended."""
        until = time.perf_counter() + seconds
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                return []
            if time.perf_counter() >= until:
                break
            time.sleep(BETWEEN_S)
        left = descendants(os.getpid())
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        return [words[:80] for _, words in left.values()]

    def _verdict(self, way: str, status: int | None) -> str:
        for left in temporary_files(self.folder):  # a person types again after a while
            os.utime(left, (0, 0))
        now = files_of(self.folder, self.scene.loose)
        lost = [
            name for name in self.before if now.get(name) not in (self.before[name], self.wanted.get(name))
        ]
        if lost or any(self.elsewhere.iterdir()):
            return f"LOST OR CHANGED {lost} {list(self.elsewhere.iterdir())}"
        if cut := [name for name in now if now[name] != self.wanted.get(name) and self._is_cut(name)]:
            return f"HALF WRITTEN {cut}"
        if way != "worker":
            return "killed"
        said = self.said.read_text(errors="replace")
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if (
            "Traceback" in said
            or any("unexpected" in line for line in errors)
            or (status != 0) != bool(errors)
        ):
            return f"SAID {status} {said[-600:]}"
        return "went on" if status == 0 else "said so"

    def _is_cut(self, name: str) -> bool:
        """Whether a new file under its final name is neither that of an undisturbed run nor, as text that grows, whole."""
        path = self.folder / name
        if name in self.before or any(map(is_temporary, path.relative_to(self.folder).parts)):
            return False
        if path.suffix not in TEXT:
            return name in self.wanted or not _unpacks(path)
        text = path.read_text()
        if path.suffix != ".json":
            return not text.endswith(("\n", "</html>"))
        try:
            json.loads(text)
        except ValueError:
            return True
        return False

    def _finish(self, resume: bool) -> str:
        """What is wrong with the same command, typed until it is done; "" where nothing is."""
        more = ("--resume",) if resume else ()
        again = in_fork(lambda: self.run_scene(self.scene, self.folder, *more))
        if isinstance(again, list) and again[0] == 1 and (asked := re.search("--(resume|force)", again[1])):
            again = in_fork(lambda: self.run_scene(self.scene, self.folder, asked.group()))
        after = files_of(self.folder, self.scene.loose)
        whole = (
            after == self.wanted
        )  # as where the kill came after the work, and what is there is not written twice
        if isinstance(again, dict) or (again[0] != 0 and not (whole and again[1].startswith("error: "))):
            return f"AGAIN {again}"
        return "" if whole else f"OTHER FILES {differing(after, self.wanted)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Kills, writes FOLDER/kills.csv, prints counts; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--count", type=int, default=40, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("-o", dest="output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    import torch  # before the forks

    from attack.scenes import SCENES

    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become children of this process
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = 0
    with (
        tempfile.TemporaryDirectory() as place,
        (arguments.output / "kills.csv").open("a", newline="") as table,
    ):
        writer = csv.writer(table)
        for name in arguments.commands or SCENES:
            kills, counts = Kills(name, Path(place)), Counter[str]()
            rng = Random(f"{arguments.seed} {name}")
            ways = [way for way in arguments.ways if way in INLINE or kills.scene.workers]
            while counts.total() < arguments.count:
                for way, moment, end, verdict in kills.chain(rng.randint(1, 4), rng, ways):
                    writer.writerow((name, way, f"{moment:.3f}", f"{end:.2f}", verdict))
                    table.flush()
                    good = verdict in GOOD
                    counts[f"{way}: {verdict if good else 'FOUND'}"] += 1
                    if not good:
                        found += 1
                        print(f"{name}: {way} at {moment:.3f} s: {verdict}", flush=True)
            print(f"{name}: {counts.total()} kills: {dict(counts)}", flush=True)
            shutil.rmtree(kills.folder)
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main())
