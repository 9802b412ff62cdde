"""Runs commands within this process, or as processes of their own, and tells a refusal from a crash."""

import io
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

LIMIT_S = 300
SEPARATE_LIMIT_S = 1200  # each starts Python and a pool of its own
COUNTED: dict[Callable[..., Any], Any] = {}


class Hang(BaseException):
    """A command ran past its limit."""


@dataclass
class Commands:
    """Runs commands and keeps what they wrote. `separate`: as processes of their own."""

    home: Path
    separate: bool = False
    code: int = 0
    output: str = ""
    errors: str = ""

    def run(self, name: str, *words: object) -> int:
        arguments = [*map(str, words), "--home", str(self.home)]
        if self.separate:
            call = f"import sys; from utseg.commands.{name} import main; sys.exit(main())"
            result = subprocess.run(
                [sys.executable, "-c", call, *arguments],
                capture_output=True,
                text=True,
                timeout=SEPARATE_LIMIT_S,
                check=False,
                cwd=self.home,
            )
            self.code, self.output, self.errors = result.returncode, result.stdout, result.stderr
            return self.code
        out, err = io.StringIO(), io.StringIO()
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            _time_limit(),
            _without_what_the_data_does_not_decide(),
        ):
            try:
                self.code = import_module(f"utseg.commands.{name}").main(arguments)
            except SystemExit as error:
                self.code = error.code if isinstance(error.code, int) else 1
            except Exception:  # noqa: BLE001 — nothing may leave a command
                self.code = 1
                err.write(traceback.format_exc())
        self.output, self.errors = out.getvalue(), err.getvalue()
        return self.code

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if "error: " in line]

    def broken(self) -> str | None:
        """Why this is no refusal: a traceback, no error line, an exit code that means something else, half-written files."""
        if "Traceback" in self.errors or "error: unexpected" in self.errors:
            return self.errors[-1500:]
        if self.code and (self.code not in (1, 2) or not self.error_lines):
            return f"exit code {self.code}: {self.errors[-600:]}"
        if left := [str(path) for path in self.home.rglob(".tmp-*")]:
            return f"half-written: {left}"
        return None


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_number: int, _frame: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)


@contextmanager
def _without_what_the_data_does_not_decide() -> Iterator[None]:
    """No process pools, which take seconds to start; memory and work of a network counted once; no pictures of a run.

    Each of them is tested elsewhere, and what runs as processes of its own has them all.
    """
    import utseg.training.log
    from planners import cpu
    from utseg.compute import pool
    from utseg.planning import memory

    @contextmanager
    def inline(_workers: int | None = None) -> Iterator[pool.InlineExecutor]:
        yield pool.InlineExecutor()

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*names: Any, **settings: Any) -> Any:
            if function not in COUNTED:
                COUNTED[function] = function(*names, **settings)
            return COUNTED[function]

        return counted

    started = pool.process_pool
    changes = [(memory, "dry_run", once(memory.dry_run)), (cpu, "forward_gmac", once(cpu.forward_gmac))]
    changes.append((utseg.training.log, "draw_progress", lambda *_: b""))
    changes += [
        (module, "process_pool", inline)
        for name, module in list(sys.modules.items())
        if name.startswith("utseg.") and getattr(module, "process_pool", None) is started
    ]
    try:
        with ExitStack() as stack:
            for module, name, value in changes:
                stack.enter_context(mock.patch.object(module, name, value))
            yield
    finally:
        _restore(started, inline)


def _restore(started: Any, inline: Any) -> None:
    for name, module in list(sys.modules.items()):  # those that were imported meanwhile
        if name.startswith("utseg.") and getattr(module, "process_pool", None) is inline:
            module.process_pool = started  # type: ignore[attr-defined]
