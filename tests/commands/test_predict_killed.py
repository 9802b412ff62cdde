"""`utseg_predict` killed at random moments, again and again: with `--resume` it ends with the same files as one run."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commandline import run_here
from rawfiles import make_nifti

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))
from tiny_models import make_run_folder

COMMAND = "import sys; from utseg.commands.predict import main; sys.exit(main())"
KILLS = (signal.SIGKILL, signal.SIGTERM)
INTERRUPTED = 75
RECORDS = {"prediction.json", "quality.csv"}


EXTRAS = ("--save-probabilities", "--save-entropy", "--quiet")


def start(home: Path, source: Path, out: Path) -> subprocess.Popen[bytes]:
    places = ["-i", source, "-o", out, "--home", home, "--device", "cpu", "-np", 1]
    words = [str(word) for word in (*places, *EXTRAS, "--resume")]
    command = [sys.executable, "-c", COMMAND, *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def predict_here(home: Path, source: Path, out: Path, *words: str) -> None:
    places = ("-i", source, "-o", out, "--device", "cpu")
    assert run_here("utseg_predict", *places, *EXTRAS, *words, home=home).returncode == 0


def write_scans(folder: Path) -> None:
    """Three cines, and five volumes."""
    for number in range(8):
        shape = (6, 56, 56) if number > 2 else (3, 6, 56, 56)
        image = np.random.default_rng(number).integers(0, 900, shape).astype(np.int16)
        make_nifti(folder / f"p{number}.nii.gz", image)


def files_of(folder: Path) -> dict[str, bytes]:
    """All but the lock and what a killed process had not finished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".lock", ".tmp-"))
    }


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_files_of_one_run(tmp_path):
    home, scans, one, out = (tmp_path / name for name in ("home", "scans", "one", "out"))
    write_scans(scans)
    folder = make_run_folder(home / "results" / "Tiny", patch_size=(48, 48))
    (folder / "validation").mkdir()
    (folder / "validation" / "summary.json").write_text("{}")
    predict_here(home, scans, one)
    expected = files_of(one)
    entries = json.loads(expected["prediction.json"])["cases"]

    ends: list[int] = []
    draw = random.Random(0)
    for number in KILLS:
        process = start(home, scans, out)
        goal = len(list(out.glob("*.npz"))) + draw.randint(1, 4)
        while process.poll() is None and len(list(out.glob("*.npz"))) < goal:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(number)
        ends.append(process.wait())
        assert ends[-1] in (0, INTERRUPTED if number == signal.SIGTERM else -number)
        left = files_of(out)
        assert all(left[name] == expected[name] for name in left.keys() - RECORDS)
        if "prediction.json" in left:
            assert json.loads(left["prediction.json"])["cases"].items() <= entries.items()
        assert number == signal.SIGKILL or "prediction.json" in left
    assert any(ends), "killed at work, not after it"

    predict_here(home, scans, out, "--resume")
    assert files_of(out) == expected
    assert not list(out.rglob(".tmp-*"))
