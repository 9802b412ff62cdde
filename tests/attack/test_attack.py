"""Samples of the three attacks; `benchmarks/attack.py` has all of it. None may lose, let in, crash or hang."""

import os
import shutil
import subprocess
import sys

import pytest
from commandline import killed_at

from attack.faults import compiled
from attack.fuzz import ACCEPTED, REFUSED, read_changed
from attack.readers import make_readers
from attack.scenes import SCENES, run_scene

EACH = 25


def test_a_command_whose_nth_call_fails_says_a_line_and_finishes_when_typed_again(tmp_path):
    library = compiled(tmp_path)
    if library is None:
        pytest.skip("needs Linux and a C compiler")
    words = ("-m", "attack.faults", "evaluate", "--every", "9", "-o", str(tmp_path / "out"))
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "'refused'" in done.stdout, (done.stdout, done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_command_that_is_killed_is_finished_when_typed_again(tmp_path):
    words = ("-m", "attack.kills", "evaluate", "--count", "5", "-o", str(tmp_path / "out"))
    ways = ("--ways", "alone", "rename", "worker")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *words, *ways], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "killed" in done.stdout, (done.stdout, done.stderr)


SPOKEN_BY = {
    "predict": "out/quality.csv",
    "ensemble": "both/quality.csv",
    "measure": "out/measures.json",
    "report": "page/r.html",
}


@pytest.mark.parametrize("command", SPOKEN_BY)
def test_killed_at_its_second_file_nothing_older_speaks_of_what_is_new(command, tmp_path):
    folder, scene = tmp_path / "work", SCENES[command]
    scene.make(folder)
    spoken = folder / SPOKEN_BY[command]
    assert run_scene(scene, folder)[0] == 0 and spoken.stat().st_size > 100
    assert killed_at(2, scene.command, *scene.words(folder))
    assert not spoken.exists() or (spoken.name == "quality.csv" and "p0" not in spoken.read_text())
    assert run_scene(scene, folder)[0] == 0 and spoken.is_file()


@pytest.mark.parametrize("room", ["images", "datasets", "dicom"])
def test_changed_files_are_read_or_refused_in_a_line(room, tmp_path):
    for name, reader in make_readers(tmp_path / "sound", None, room).items():
        base = shutil.copytree(reader.base, tmp_path / name)
        verdicts = [read_changed(name, reader, 1, number, base) for number in range(EACH)]
        found = {
            number: verdict for number, verdict in enumerate(verdicts) if verdict not in (ACCEPTED, REFUSED)
        }
        assert not found and REFUSED in verdicts, (name, found)
