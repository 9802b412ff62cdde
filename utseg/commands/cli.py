"""What all commands share: parser, logging, exit codes, one `error: …` line for each thing that is wrong.

A command module makes a parser with `make_parser`, and its `main` hands parser and body to `run`. Heavy imports belong into the body, so
that `--help` stays quick.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from utseg.commands.options import file_or_folder
from utseg.errors import UsageError, UtsegError
from utseg.home import Home

if TYPE_CHECKING:
    from rich.console import Console

    from utseg.case import Dataset
    from utseg.compute.cluster import DaskExecutor

logger = logging.getLogger("utseg")
INTERRUPTED = 75
PIPE_WIDTH = 200
INTERRUPTED_MESSAGE = (
    "interrupted; run the command again to go on (utseg_train and utseg_predict: with --resume)"
)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that mean something: not those of flags, nor None or nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, bool) or action.default in (None, "", (), []):
            return action.help
        return super()._get_help_string(action)


def make_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the options that every command has."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--home", type=file_or_folder, metavar="DIR", help="home folder; else UTSEG_HOME, else ./utseg_data"
    )
    parser.add_argument("--debug", action="store_true", help="full traceback on errors")
    parser.add_argument("--quiet", action="store_true", help="errors and warnings only")
    return parser


def home_of(arguments: argparse.Namespace) -> Home:
    """The home folders that the command line and the environment name."""
    return Home.locate(arguments.home)


def home_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """`--home DIR` as it was typed, for a command that is shown or run."""
    return () if arguments.home is None else ("--home", str(arguments.home))


def named_dataset(arguments: argparse.Namespace) -> "Dataset | None":
    """The raw dataset that -d names; None without it."""
    if arguments.dataset is None:
        return None
    from utseg.rawdata import open_dataset

    name, folder = home_of(arguments).raw_dataset(arguments.dataset)
    return open_dataset(folder, name)


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


def console() -> "Console":
    """The terminal; a file or pipe has no width to keep to."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)


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
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _require_outside_raw_data(arguments)
        return body(arguments) or 0
    except UtsegError as error:
        if arguments.debug:
            traceback.print_exc()
        for note in getattr(error, "__notes__", ()):
            logger.warning("%s", note)
        for line in error.lines():
            sys.stderr.write(f"error: {' '.join(line.split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if arguments.debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {INTERRUPTED_MESSAGE}\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 — a defect of ours, whatever it is: one line and exit code 1
        if arguments.debug:
            traceback.print_exc()
        sys.stderr.write(
            f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())}; run again with --debug and report it\n"
        )
        return 1


def _require_outside_raw_data(arguments: argparse.Namespace) -> None:
    """Raises InputError where what a command writes (`-o`) lies in a raw dataset."""
    output = getattr(arguments, "output", None)
    if output is not None:
        from utseg.rawdata import require_outside_datasets

        require_outside_datasets(output)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _configure_logging(quiet: bool) -> None:
    class BelowWarning(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return record.levelno < logging.WARNING

    plain = logging.StreamHandler(sys.stdout)
    plain.addFilter(BelowWarning())
    plain.setFormatter(logging.Formatter("%(message)s"))
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter("warning: %(message)s"))
    logger.handlers[:] = [plain, warnings]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
