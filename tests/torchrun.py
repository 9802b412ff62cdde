"""Starts programs under torchrun on this machine, and finds the processes that it started."""

import os
import subprocess
import sys
import time
from pathlib import Path

QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
TESTS = Path(__file__).parent


def start(*words: object, processes: int = 2, options: tuple[object, ...] = ()) -> subprocess.Popen[str]:
    """torchrun with a program and its arguments; output is piped."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    return subprocess.Popen(
        [str(word) for word in (*command, *options, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
    )


def run(
    *words: object, processes: int = 2, options: tuple[object, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """To its end."""
    return finish(start(*words, processes=processes, options=options))


def finish(process: subprocess.Popen[str], timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """What it said, when it has ended."""
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def rank_process(process: subprocess.Popen[str], rank: int, timeout: float = 60) -> int:
    """The number of the process that is a rank under a torchrun."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, children):
            if f"\0RANK={rank}\0" in "\0" + environment(child):
                return child
        time.sleep(0.02)
    raise AssertionError(f"no rank {rank}")


def environment(process: int) -> str:
    """A process's environment as NAME=value, each ended by NUL; empty where it is gone."""
    try:
        return Path(f"/proc/{process}/environ").read_text(errors="replace")
    except OSError:
        return ""


def is_running(process: int) -> bool:
    """Whether a process is there, and not only waits to be noticed."""
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
