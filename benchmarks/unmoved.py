"""Show that a change of the code moved no number and no file: run the commands on small data before and after, and compare.

    python benchmarks/unmoved.py record FILE              # from the root of a checkout
    python benchmarks/unmoved.py compare FILE             # runs again, prints what differs, exit code 1 if anything does
    python benchmarks/unmoved.py against REV              # records a git revision beside this tree, then compares
    python benchmarks/unmoved.py against main --only networks slices --work FOLDER

Only console scripts are used, found in the tree's `pyproject.toml`, so code may move freely between two records. One thread, fixed seeds;
numbers agree bit for bit on one machine. Left out of the comparison: times, dates, paths, versions and checksums, whose files are
compared themselves. `--only` names parts (`--help` lists them); what they need is run too. `--work` keeps the files that were compared.
"""

import argparse
import difflib
import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHOWN_ENTRIES, SHOWN_LINES = 12, 4
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def describe_tree(tree: Path, folder: Path) -> Path:
    """A folder with the metadata of the tree as if it were installed, so that its own entry points are found, and no older ones."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    return folder


def start_walk(tree: Path, work: Path, only: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Starts the commands of a tree in a process of its own; the record will be `work/record.json`."""
    work.mkdir(parents=True, exist_ok=True)
    metadata = describe_tree(tree, work / "metadata")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("UTSEG_", "PYTHON"))}
    environment = kept | THREADS | {"PYTHONHASHSEED": "0", "COLUMNS": "120", "TZ": "UTC"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (metadata, tree)))
    words = [sys.executable, str(HERE / "unmoved_walk.py"), str(tree), str(work), *only]
    return subprocess.Popen(words, env=environment, cwd=work)


def record(trees: dict[str, Path], work: Path, only: Sequence[str]) -> list[dict[str, Any]]:
    """Runs the walks of trees, named for their folders, to their end, side by side. None is left where one fails or is interrupted."""
    walks = {name: start_walk(tree, work / name, only) for name, tree in trees.items()}
    try:
        failed = [name for name, walk in walks.items() if walk.wait()]
    finally:
        for walk in walks.values():
            walk.kill()
    if failed:
        logs = ", ".join(f"{work / name / 'log.txt'} (--work keeps it)" for name in failed)
        raise SystemExit(f"the commands could not be run to the end: {logs}")
    made = [json.loads((work / name / "record.json").read_text()) for name in walks]
    about = [{"revision": revision(tree), "machine": machine()} for tree in trees.values()]
    return [one | own for one, own in zip(about, made, strict=True)]


def revision(tree: Path) -> str:
    """The commit of a tree, marked where files of it are changed."""
    words = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine() -> dict[str, str]:
    """What numbers depend on beside the code."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "SimpleITK", "matplotlib")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By part, each entry's state: same, differs, gone or new. Only parts that both records have."""
    parts = [part for part in before["parts"] if part in after["parts"]]
    found: dict[str, dict[str, str]] = {part: {} for part in parts}
    old, new = before["entries"], after["entries"]
    for name in [*old, *(name for name in new if name not in old)]:
        part = name.partition("/")[0]
        if part in found:
            state = "new" if name not in old else "gone" if name not in new else "differs"
            found[part][name] = "same" if name in old and old[name] == new.get(name) else state
    return found


def report(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Prints each part's counts and what differs in it. Whether all is the same."""
    if before.get("machine") != after.get("machine"):
        print(
            f"recorded with {before.get('machine')}, now {after.get('machine')}: numbers may differ for that"
        )
    found = differences(before, after)
    for part, states in found.items():
        moved = {name: state for name, state in states.items() if state != "same"}
        counts = [f"{len(states) - len(moved)} same"]
        counts += [
            f"{list(moved.values()).count(state)} {word}"
            for state, word in (("differs", "differ"), ("gone", "gone"), ("new", "new"))
            if state in moved.values()
        ]
        print(f"{part + ':':16}{', '.join(counts)}")
        for name, state in list(moved.items())[:SHOWN_ENTRIES]:
            print(f"  {state:8}{name}")
            for line in changed_lines(name, before, after) if state == "differs" else ():
                print(f"          {line}")
        if len(moved) > SHOWN_ENTRIES:
            print(f"  … and {len(moved) - SHOWN_ENTRIES} more")
    total = sum(len(states) for states in found.values())
    same = sum(state == "same" for states in found.values() for state in states.values())
    print(
        f"{same} of {total} entries are the same ({before.get('revision')} against {after.get('revision')})"
    )
    return total > 0 and same == total


def changed_lines(name: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The first lines that differ between two texts, or two lists of numbers."""
    if isinstance(before["entries"][name], list):
        old, new = ([str(value) for value in one["entries"][name]] for one in (before, after))
    else:
        old, new = (one["texts"].get(name, "").splitlines() for one in (before, after))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=0))[2:]
    changed = [line[:160] for line in lines if not line.startswith("@@")]
    more = [f"… {len(changed) - SHOWN_LINES} lines more"] if len(changed) > SHOWN_LINES else []
    return changed[:SHOWN_LINES] + more


def against(name: str, work: Path, only: Sequence[str]) -> bool:
    """Compares a git revision, checked out beside this tree, with this tree."""
    tree = work / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), name], check=True)
    try:
        before, after = record({"before": tree, "after": ROOT}, work, only)
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    return report(before, after)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    from unmoved_walk import PARTS

    parser = argparse.ArgumentParser(
        description="Show that a change of the code moved no number and no file.",
        epilog=f"parts: {', '.join(PARTS)}",
    )
    parser.add_argument("what", choices=("record", "compare", "against"))
    parser.add_argument("target", metavar="FILE|REV", help="the record, or a git revision")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=[], metavar="PART")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="a new folder that is kept")
    arguments = parser.parse_args(argv)
    if arguments.work and arguments.work.exists():
        parser.error(f"{arguments.work} is there already")
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder) / "work").resolve()
        if arguments.what == "against":
            return 0 if against(arguments.target, work, arguments.only) else 1
        path = Path(arguments.target)
        before = json.loads(path.read_text()) if arguments.what == "compare" else None
        (made,) = record({"now": ROOT}, work, arguments.only)
        if before is not None:
            return 0 if report(before, made) else 1
        path.write_text(json.dumps(made, indent=1) + "\n")
        print(f"{len(made['entries'])} entries of {len(made['parts'])} parts: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
