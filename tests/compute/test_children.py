"""Child processes: warnings and errors come back as they are, stopped ones end, dead ones are named."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utseg.compute.children import as_child, run_child, stop_children
from utseg.errors import CaseErrors, FolderBusy, Interrupted, WorkerError

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def work(kind: str) -> None:
    """What the child does."""
    import logging

    logging.getLogger("utseg").warning("a warning of %s", kind)
    if kind == "lines":
        raise CaseErrors(["error: first", "second\nthird"])
    if kind == "busy":
        raise FolderBusy("another run is there")
    if kind == "defect":
        raise KeyError("x")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        sys.exit(3)
    if kind == "long":
        Path("begun").touch()
        time.sleep(60)


def child(kind: str, **settings: Path) -> list[str]:
    return run_child("test_children", [kind], environment=HERE, **settings)


def test_warnings_and_errors_come_back_as_they_are(tmp_path):
    log = tmp_path / "log"
    assert child("nothing") == ["a warning of nothing"]
    with pytest.raises(CaseErrors) as refused:
        child("lines", log=log)
    assert refused.value.lines() == ["error: first", "second third"]
    assert "a warning of lines" in log.read_text() and "second third" in log.read_text()
    with pytest.raises(FolderBusy, match="another run is there"):
        child("busy")


def test_a_defect_and_a_death_are_named_with_the_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(WorkerError, match=f"unexpected KeyError: 'x'; see {log}"):
        child("defect", log=log)
    assert "Traceback" in log.read_text()
    with pytest.raises(WorkerError, match="killed by SIGKILL, most often for lack of memory"):
        child("killed")
    with pytest.raises(WorkerError, match=r"ended with code 3: .*a warning of exit"):
        child("exit")


def test_a_child_that_is_stopped_ends_as_one_to_be_run_again(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(child, "long", folder=tmp_path)
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        stop_children()
        assert isinstance(running.exception(30), Interrupted)


if __name__ == "__main__":
    sys.exit(as_child(lambda: work(sys.argv[1])))
