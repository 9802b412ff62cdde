"""What all commands share: logging, exit codes, one `error: …` line for each thing that is wrong.

A command's `main` makes a `Parser` and hands it to `run` with a body. Heavy imports belong into the body, so that `--help` stays quick.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from utseg.errors import LONGEST_LINE, UsageError, UtsegError, shortened
from utseg.home import Home

if TYPE_CHECKING:
    from utseg.compute.cluster import DaskExecutor

logger = logging.getLogger("utseg")
INTERRUPTED = 75
PIPE_WIDTH = 200
OF_THE_DISK = tuple(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ESTALE")
    if hasattr(errno, name)
)  # Windows has no EDQUOT
INTERRUPTED_MESSAGE = (
    "interrupted; run the command again to go on (utseg_train and utseg_predict: with --resume)"
)


def home_of(arguments: argparse.Namespace) -> Home:
    """The home folders that the command line and the environment name."""
    return Home.locate(arguments.home)


def home_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """`--home DIR` as it was typed, for a command that is shown or run."""
    return () if arguments.home is None else ("--home", str(arguments.home))


def values_for(request: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the fields of a dataclass, by name."""
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()
    }
    return {field.name: given[field.name] for field in fields(request) if field.name in given}


@contextmanager
def cluster_of(
    arguments: argparse.Namespace,
    *,
    writes: Path | None,
    reads: Sequence[Path],
    gpu: bool = False,
    stop_work: Callable[[], object] | None = None,
) -> "Iterator[DaskExecutor | None]":
    """The executor that `--dask` asks for, with the settings of `dask_executor`; None without it.

    Raises UsageError with `-np` too, and what `dask_executor` raises.
    """
    if arguments.dask is None:
        yield None
        return
    if arguments.workers is not None:
        raise UsageError(
            "-np and --dask: -np counts processes on this machine, a cluster has its own; leave one out"
        )
    from utseg.compute.cluster import dask_executor

    with dask_executor(arguments.dask, writes=writes, reads=reads, gpu=gpu, stop_work=stop_work) as executor:
        yield executor


def show_table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Container[int], note: str = ""
) -> None:
    """Prints a table and a note; columns in `numbers` are aligned right. A file or pipe has no width to keep to."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    terminal = Console()
    terminal = terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)
    terminal.print(table)
    if note:
        terminal.print(note)


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses, runs the body, returns the exit code: 0 done, 1 failed, 2 wrong usage, 75 interrupted.

    `--debug` adds the traceback of an error before its line, and changes nothing else.
    """
    arguments = parser.parse_args(argv)
    _configure_logging(quiet=arguments.quiet)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _require_outside_raw_data(arguments)
        return body(arguments) or 0
    except BrokenPipeError:
        _let_go_of_stdout()
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 — a defect of ours too is one line and exit code 1
        if arguments.debug:
            traceback.print_exc()
        code, lines = _code_and_lines(error)
        for note in getattr(error, "__notes__", ()):
            logger.warning("%s", note)
        sys.stderr.writelines(f"error: {' '.join(line.split())}\n" for line in lines)
        return code
    finally:
        signal.signal(signal.SIGTERM, before)


def _code_and_lines(error: BaseException) -> tuple[int, list[str]]:
    if isinstance(error, UtsegError):
        return error.exit_code, error.lines()
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, [INTERRUPTED_MESSAGE]
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        where = f"{error.filename}: " if error.filename else ""
        return 1, [
            f"{where}{error.strerror}; see to the disk and its permissions, then run the command again"
        ]
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return 1, [f"{shortened(str(error.filename))}: {error.strerror}; choose a shorter name"]
    said = shortened(str(error), LONGEST_LINE)
    return 1, [f"unexpected {type(error).__name__}: {said}; run again with --debug and report it"]


def _require_outside_raw_data(arguments: argparse.Namespace) -> None:
    """Raises InputError where what a command writes (`-o`) lies in a raw dataset."""
    output = getattr(arguments, "output", None)
    if output is not None:
        from utseg.rawdata import require_outside_datasets

        require_outside_datasets(output)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Stdout(logging.StreamHandler[TextIO]):
    """Standard output, whose reader may go away, as `head` does: the work goes on, and what it says goes nowhere."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 — logging's name
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            _let_go_of_stdout()
        else:
            super().handleError(record)


def _let_go_of_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _configure_logging(quiet: bool) -> None:
    plain, warnings = _Stdout(sys.stdout), logging.StreamHandler(sys.stderr)
    plain.addFilter(lambda record: record.levelno < logging.WARNING)
    plain.setFormatter(logging.Formatter("%(message)s"))
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter("warning: %(message)s"))
    logger.handlers[:] = [plain, warnings]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
