"""Run a Python module as a child process, here or on a cluster's worker; it ends with its parent. Nothing is retried here.

The parent calls `run_child`, the child's module `as_child`. The child's input is a pipe to its parent: once that is closed, by
`stop_children` or by the parent's end, the child saves and ends. How it ended stands in a file that the parent names.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utseg.errors import CaseErrors, FolderBusy, Interrupted, UtsegError, WorkerError
from utseg.files import read_json, write_json

logger = logging.getLogger("utseg")
RESULT = "UTSEG_CHILD_RESULT"  # the variable with the path of the child's result
RAISED_AGAIN = {error.__name__: error for error in (FolderBusy, Interrupted, WorkerError)}
SAVE_S = 60.0  # for a child to save and end
_children: set["subprocess.Popen[bytes]"] = set()
_guard = threading.Lock()


def run_child(
    module: str,
    words: Sequence[str],
    log: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> list[str]:
    """Runs `python -m MODULE WORDS…` to its end and returns its warnings. Its output is appended to the log.

    environment: on top of this process's. folder: the child's current one.
    Raises Interrupted and FolderBusy as the child did, CaseErrors with the lines of any other error, WorkerError where the child died.
    """
    with tempfile.TemporaryDirectory() as temporary:
        result = Path(temporary, "result.json")
        written = log or Path(temporary, "log")
        code = _run_to_end(
            [sys.executable, "-m", module, *words],
            written,
            {**os.environ, **(environment or {}), RESULT: str(result)},
            folder,
        )
        report = read_json(result) if result.is_file() else _without_result(code, written)
    if report["error"] is None:
        return list(report["warnings"])
    if report["error"] in RAISED_AGAIN:
        see = f"; see {log}" if log and report["error"] == WorkerError.__name__ else ""
        raise RAISED_AGAIN[report["error"]]("; ".join(report["lines"]) + see)
    raise CaseErrors(report["lines"])


def _run_to_end(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None
) -> int:
    with log.open("ab") as output, _guard:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process, which decides
        )
        _children.add(child)
    try:
        return child.wait()
    finally:
        with _guard:
            _children.discard(child)
            _close_pipe(child)


def _without_result(code: int, log: Path) -> dict[str, Any]:
    """The report of a child that could not write one."""
    if code in (-signal.SIGTERM, -signal.SIGINT):
        return {"error": Interrupted.__name__, "lines": ["it was stopped"]}
    if code < 0:
        memory = ", most often for lack of memory: run fewer at once (-np), or plan smaller"
        line = f"its process was killed by {signal.Signals(-code).name}{memory if code == -9 else ''}"
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        line = f"its process ended with code {code}: {lines[-1] if lines else 'it wrote nothing'}"
    return {"error": WorkerError.__name__, "lines": [line]}


def stop_children() -> None:
    """Asks all children of this process to save and end."""
    with _guard:
        for child in _children:
            _close_pipe(child)


def _close_pipe(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin is not None
    child.stdin.close()


def as_child(work: Callable[[], object]) -> int:
    """Does the work of a child process and reports to the parent how it ended. Returns the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings = _log_to_output()
    error: UtsegError | None = None
    try:
        work()
    except KeyboardInterrupt:
        error = Interrupted("it was stopped")
    except UtsegError as wrong:
        error = wrong
    except Exception as defect:  # noqa: BLE001 — a defect of ours, or of somebody's network, which the parent reports
        traceback.print_exc()
        error = WorkerError(f"unexpected {type(defect).__name__}: {defect}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lines = [" ".join(line.split()) for line in error.lines()] if error else []
    for line in lines:
        logger.error("%s", line)
    report = {"error": type(error).__name__ if error else None, "lines": lines, "warnings": warnings}
    write_json(Path(os.environ[RESULT]), report)
    return error.exit_code if error else 0


def _log_to_output() -> list[str]:
    """The log goes to the output, which the parent keeps. Returns the warnings, a list that grows."""
    warnings: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            warnings.append(record.getMessage())
        return True

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(keep)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    return warnings


def _end_with_parent() -> None:
    """Waits for the pipe from the parent to close, then has this process save and end."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_S)
    os._exit(1)
