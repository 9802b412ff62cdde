"""Runs the installed commands as a user does, and reads exit code, output and files."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from utseg.compute.pool import InlineExecutor

SCRIPTS = Path(sys.executable).parent
POOLS = ("preprocess.dataset", "evaluate.score", "study.data", "report.cases", "compute.pool")


def run_command(
    name: str,
    *words: object,
    home: Path | None = None,
    timeout: float = 240,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a console script to its end."""
    place = [] if home is None else ["--home", str(home)]
    return subprocess.run(
        [str(SCRIPTS / name), *map(str, words), *place],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )


def run_here(name: str, *words: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same in this process alone, which spares the start of others."""
    place = [] if home is None else ["--home", str(home)]
    main = import_module(f"utseg.commands.{name.removeprefix('utseg_')}").main
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        for module in POOLS:
            pool = f"utseg.{module}.process_pool"
            stack.enter_context(patch(pool, lambda workers=None: nullcontext(InlineExecutor())))
        stack.enter_context(patch("utseg.predict.pipeline.WITHOUT_POOL", 1000))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        code = main([*map(str, words), *place])
    return subprocess.CompletedProcess([name, *map(str, words)], code, out.getvalue(), err.getvalue())


def killed_at(step: int, name: str, *words: object, home: Path | None = None) -> bool:
    """Runs a command in a fork of this process, which ends before that one of its renames. Returns whether it came so far."""
    child = os.fork()
    if child == 0:
        done: list[Path] = []

        def counted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
            def moved(path: Path, target: Path) -> Path:
                done.append(path)
                return os._exit(9) if len(done) == step else move(path, target)

            return moved

        with (
            patch.object(Path, "rename", counted(Path.rename)),
            patch.object(Path, "replace", counted(Path.replace)),
        ):
            os._exit(run_here(name, *words, home=home).returncode)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def assert_refused(
    result: subprocess.CompletedProcess[str], *expected: str, code: int = 1, lines: int | None = 1
) -> None:
    """One `error: …` line each (`lines` in all, None for any number), every expected word among them, and no traceback."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    assert errors and (lines is None or len(errors) == lines), result.stderr
    for word in expected:
        assert any(word in line for line in errors), (word, result.stderr)


def temporary_files(folder: Path) -> list[Path]:
    """What a stopped writer left behind."""
    return list(folder.rglob(".tmp-*")) if folder.exists() else []
