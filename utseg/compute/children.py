"""Commands of this package as processes of their own, for threads that wait for them: here, or on a worker of a cluster.

A child lives no longer than the process that started it, however that ends: it holds a pipe to it. What it does is its own affair.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

ANNOUNCEMENTS = (signal.SIGUSR1, signal.SIGUSR2)
"""Of the end of a job's time on a cluster, to all its processes: the parent tells its children what to do."""
_children: set["subprocess.Popen[bytes]"] = set()
_guard = threading.RLock()  # a signal's handler may stop children while one is being started


def run_child(
    module: str,
    words: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> int:
    """Runs `python -m MODULE WORDS…` to its end, its output appended to the log, and returns its exit code, negative for a signal's.

    environment: on top of this process's. folder: the child's current one. KeyboardInterrupt, and `stop_children` from another thread,
    ask it to save and end.
    """
    with log.open("ab") as output, _guard:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,  # held open: it closes when this process ends, however it ends
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process, which passes it on
        )
        _children.add(child)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        return child.wait()
    finally:
        with _guard:
            _children.discard(child)
        if child.stdin is not None:
            child.stdin.close()


def stop_children() -> None:
    """Asks all children of this process, once each, to save and end."""
    with _guard:
        children = list(_children)
        _children.clear()
    for child in children:
        if child.poll() is None:
            child.terminate()


def live_as_child() -> None:
    """For the child's first line: SIGTERM raises KeyboardInterrupt, until something else handles it; it ends when its parent has."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    for number in ANNOUNCEMENTS:
        signal.signal(number, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Waits for the pipe from the parent to close, and ends at once: nobody would take what this process does any more."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
