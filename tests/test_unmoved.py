"""`benchmarks/unmoved.py`: the same code gives the same record, and what changes is seen, named and counted by part."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "benchmarks" / "unmoved.py"


@pytest.fixture
def digest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from unmoved_digest import digest_bytes

    return lambda name, data, work="/tmp/here": digest_bytes(name, data, Path(work)).value


def unmoved(*words: object, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(script), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)


def test_the_same_tree_is_the_same_and_another_is_seen(tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    assert unmoved("record", first, "--only", "raw").returncode == 0
    again = unmoved("compare", first, "--only", "raw")
    assert again.returncode == 0, again.stdout
    count = len(json.loads(first.read_text())["entries"])
    assert count > 30
    assert f"{count} of {count} entries are the same" in again.stdout

    changed = tmp_path / "changed"
    for name in ("utseg", "planners", "trainers", "benchmarks", "tests"):
        shutil.copytree(PROJECT / name, changed / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (PROJECT / "pyproject.toml").read_text()
    old = '"utseg.commands.make_phantom:main"'
    assert old in text
    (changed / "pyproject.toml").write_text(text.replace(old, '"seeded:main"'))
    (changed / "seeded.py").write_text(
        "from utseg.commands.make_phantom import main as make\n\n\ndef main(argv):\n    return make([*argv, '--seed', '5'])\n"
    )
    moved = unmoved("compare", first, "--only", "raw", script=changed / "benchmarks" / "unmoved.py")
    assert moved.returncode == 1
    assert "differs raw/Phantom/Training/Labeled/PH000/PH000_sa.nii.gz" in moved.stdout
    assert "raw/Hearts" not in moved.stdout  # which the phantom's seed does not touch


def test_a_failed_command_is_an_entry(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copytree(SCRIPT.parent, tree / "benchmarks")
    shutil.copytree(PROJECT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "pyproject.toml").write_text(
        '[project]\nname = "utseg"\nversion = "1"\nscripts = { utseg_make_phantom = "broken:main" }\nentry-points = {}\n'
    )
    (tree / "broken.py").write_text(
        "import sys\n\n\ndef main(argv):\n    sys.stderr.write('error: nothing works\\n')\n    return 1\n"
    )
    out = tmp_path / "record.json"
    done = unmoved("record", out, "--only", "raw", script=tree / "benchmarks" / "unmoved.py")
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    failed = [name for name in record["entries"] if "failed: utseg_make_phantom" in name]
    assert len(failed) == 1
    assert record["texts"][failed[0]] == "error: nothing works"


def test_paths_dates_times_checksums_and_versions_are_not_compared(digest) -> None:
    before = {
        "where": "/tmp/here/raw",
        "seconds": 1.5,
        "versions": {"torch": "1"},
        "sha": "a" * 64,
        "dice": 0.5,
    }
    after = {
        "where": "/tmp/there/raw",
        "seconds": 2.5,
        "versions": {"torch": "2"},
        "sha": "b" * 64,
        "dice": 0.5,
    }
    as_bytes = [json.dumps(value).encode() for value in (before, after, after | {"dice": 0.5000001})]
    first = digest("run.json", as_bytes[0])
    assert first == digest("run.json", as_bytes[1], "/tmp/there")
    assert first != digest("run.json", as_bytes[2], "/tmp/there")
    assert digest("a.md", b"made 2026-11-29 11:34 UTC by utseg 0.1.0") == digest(
        "a.md", b"made 2025-01-02 01:04 UTC by utseg 0.2.0"
    )
    assert digest("a.csv", b"case,training_seconds\na,1.5\n") == digest(
        "a.csv", b"case,training_seconds\na,2\n"
    )
    assert digest("a.csv", b"case,dice\na,1.5\n") != digest("a.csv", b"case,dice\na,2\n")


def test_arrays_are_compared_by_value_type_and_shape(digest) -> None:
    def npz(array: np.ndarray, *, compressed: bool = False) -> str:
        buffer = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(buffer, image=array)
        return digest("a.npz", buffer.getvalue())

    values = np.arange(6, dtype=np.float32)
    assert npz(values) == npz(values, compressed=True)
    assert npz(values) != npz(np.nextafter(values, np.float32(9)))
    assert npz(values) != npz(values.reshape(2, 3))
    assert npz(values) != npz(values.astype(np.float64))
