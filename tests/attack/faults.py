"""Every Nth write, open, rename, fsync and mkdir of a command fails, each in a process of its own; what is left is judged.

    python benchmarks/attack.py faults [COMMAND …] [--every 1] [--errors ENOSPC EIO EACCES] -o FOLDER

What has to hold: the folder has no temporary file, and no file that is neither as before nor as an undisturbed run writes it; the command
says one line that starts with `error: ` and is no defect, or ends well with everything done; the same command again ends with the very
files of an undisturbed run.
"""

import argparse
import csv
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from commandline import temporary_files

SOURCE = Path(__file__).with_suffix(".c")
KINDS = ("open", "write", "rename", "fsync", "mkdir")
ERRORS = ("ENOSPC", "EIO", "EACCES")
MOST = 2000
GOOD = ("refused", "done")
TIMES = re.compile(
    rb'\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:\d\d)?|"\w*(?:seconds|_s|_gb)": ?[\d.e+-]+|"git_revision": ?"[^"]*"'
)
TEXT = (".json", ".csv", ".html", ".md", ".tex", ".toml")
Tree = dict[str, str]


def compiled(folder: Path) -> Path | None:
    """The library that makes calls fail; None where there is no compiler, or no Linux."""
    library, compiler = folder / "libfaults.so", shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def files_of(folder: Path, loose: Sequence[str] = ()) -> Tree:
    """Checksums of all files below a folder but locks and `loose` ones; times, memory and the revision in text are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if (
            path.is_file()
            and not path.name.startswith(".lock")
            and not any(re.search(each, name) for each in loose)
        ):
            data = path.read_bytes()
            found[name] = hashlib.sha256(TIMES.sub(b"", data) if path.suffix in TEXT else data).hexdigest()[
                :12
            ]
    return found


def in_fork(work: Callable[[], Any], seconds: int = 120) -> Any:
    """What `work` returns, as JSON, computed in a fork of this process. `died` where it ends otherwise."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            signal_after(seconds)
            answer = work()
        except BaseException:  # noqa: BLE001 — goes to the parent
            answer = {"died": traceback.format_exc()[-1500:]}
        with os.fdopen(write, "w") as handle:
            json.dump(answer, handle)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as handle:
        text = handle.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"died": f"exit {code}"}


def signal_after(seconds: int) -> None:
    """Ends this process by SIGALRM."""
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


class Undisturbed:
    """A command's scene in the folder `place`: its files before and after an undisturbed run, and the run's modules, imported."""

    def __init__(self, name: str, place: Path) -> None:
        from attack.scenes import SCENES, run_scene

        self.name, self.scene, self.run_scene = name, SCENES[name], run_scene
        self.origin, self.folder = place / f"{name}_origin", place / name
        failed = in_fork(lambda: self.scene.make(self.folder) and None)
        assert failed is None, failed
        self.folder.rename(self.origin)
        self.before = files_of(self.origin)
        undisturbed = in_fork(self._undisturbed)
        assert "died" not in undisturbed, undisturbed["died"]
        self.wanted = undisturbed["files"]
        for module in undisturbed["modules"]:  # once, and not in every fork
            with suppress(Exception):
                import_module(module)

    def _undisturbed(self) -> dict[str, Any]:
        self._reset()
        known = set(sys.modules)
        code, said = self.run_scene(self.scene, self.folder)
        assert code == 0, said
        modules = [name for name in sys.modules if name not in known and "__" not in name]
        return {"files": files_of(self.folder, self.scene.loose), "modules": modules}

    def _reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.origin, self.folder, copy_function=shutil.copy2)


class Attack(Undisturbed):
    """All faults of one command."""

    def strike(self, kind: str, number: int, error: str) -> tuple[str, str]:
        """The file whose operation failed, "" where the command has fewer; and the verdict, a find where it is not in GOOD."""
        self._reset()
        outcome = in_fork(lambda: self._struck(kind, number, error))
        if "died" in outcome:
            return outcome.get("file", "?"), f"DIED {outcome['died']}"
        if not outcome["file"]:
            return "", ""
        verdict = self._verdict(outcome["code"], outcome["said"])
        again = in_fork(lambda: self.run_scene(self.scene, self.folder))
        if isinstance(again, dict) or again[0]:
            verdict = f"{verdict}; AGAIN {again}"
        elif (after := files_of(self.folder, self.scene.loose)) != self.wanted:
            verdict = f"{verdict}; OTHER FILES {differing(after, self.wanted)}"
        return outcome["file"], verdict.replace(str(self.folder), "…")

    def _struck(self, kind: str, number: int, error: str) -> dict[str, Any]:
        library = ctypes.CDLL(None)
        library.attack_fired.restype = ctypes.c_char_p
        where = os.fsencode(self.folder)
        library.attack_arm(where, KINDS.index(kind), ctypes.c_long(number), getattr(errno, error))
        try:
            code, said = self.run_scene(self.scene, self.folder)
        finally:
            library.attack_disarm()
        fired = os.fsdecode(library.attack_fired())
        return {"code": code, "said": said, "file": fired and os.path.relpath(fired, self.folder)}

    def _verdict(self, code: int, said: str) -> str:
        now = files_of(self.folder, self.scene.loose)
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if "Traceback" in said:
            return f"TRACEBACK {said[-400:]}"
        if temporary_files(self.folder):
            return f"TEMPORARY FILES {[path.name for path in temporary_files(self.folder)]}"
        gone = [name for name in self.before if not (self.folder / name).exists()]
        if gone:
            return f"LOST {gone}"
        if code == 0:
            return (
                "done" if now == self.wanted else f"SAID NOTHING {differing(now, self.wanted)}: {said[-300:]}"
            )
        if len(errors) != 1 or "unexpected" in errors[0]:
            return f"NOT ONE PROPER LINE {errors}"
        return "refused"


def differing(one: Tree, other: Tree) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))[:9]


def main(argv: Sequence[str] | None = None) -> int:
    """Strikes, writes FOLDER/faults.csv, prints counts; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--every", type=int, default=1, help="strike at the 1st and every so many further")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--errors", nargs="+", choices=ERRORS, default=ERRORS, help="these in turn")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    import torch  # before the forks

    from attack.scenes import SCENES

    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = 0
    with (
        tempfile.TemporaryDirectory() as place,
        (arguments.output / "faults.csv").open("a", newline="") as table,
    ):
        writer = csv.writer(table)
        for name in arguments.commands or SCENES:
            attack, counts = Attack(name, Path(place)), Counter[str]()
            for kind in arguments.kinds:
                for turn, number in enumerate(range(arguments.first, MOST, arguments.every)):
                    started = time.perf_counter()
                    error = arguments.errors[turn % len(arguments.errors)]
                    file, verdict = attack.strike(kind, number, error)
                    if not file:
                        break
                    seconds = f"{time.perf_counter() - started:.2f}"
                    writer.writerow((name, kind, number, error, file, verdict, seconds))
                    table.flush()
                    counts[verdict.split(" ")[0].rstrip(";")] += 1
                    if verdict not in GOOD:
                        found += 1
                        print(f"{name}: {kind} {number} ({error}) of {file}: {verdict}", flush=True)
            print(f"{name}: {counts.total()} faults: {dict(counts)}", flush=True)
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main())
