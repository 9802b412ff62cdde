"""What all commands share: common options, logging, exit codes, one `error: …` line for each thing that is wrong.

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

from utseg.errors import UsageError, UtsegError
from utseg.home import Home, typed_path

if TYPE_CHECKING:
    from utseg.cluster import DaskExecutor

logger = logging.getLogger("utseg")
INTERRUPTED = 75
INTERRUPTED_MESSAGE = (
    "interrupted; run the command again to go on (utseg_train and utseg_predict: with --resume)"
)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that mean something: not those of flags, nor of options that are required or left out."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
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
        "--home",
        type=file_or_folder,
        metavar="DIR",
        help="home folder; else UTSEG_HOME, else ./utseg_data",
        default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--debug", action="store_true", help="full traceback on errors", default=argparse.SUPPRESS
    )
    parser.add_argument(
        "--quiet", action="store_true", help="errors and warnings only", default=argparse.SUPPRESS
    )
    return parser


def home_of(arguments: argparse.Namespace) -> Home:
    """The home folders that the command line and the environment name."""
    return Home.locate(getattr(arguments, "home", None))


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds `-np N`."""
    parser.add_argument(
        "-np",
        dest="workers",
        type=positive,
        metavar="N",
        help="worker processes; default: one a core",
        default=argparse.SUPPRESS,
    )


def add_dask(parser: argparse.ArgumentParser) -> None:
    """Adds `--dask ADDRESS`, which `cluster_of` reads."""
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on a Dask cluster that shares these paths: its scheduler as tcp://HOST:8786, or the scheduler's file",
        default=argparse.SUPPRESS,
    )


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
    if not hasattr(arguments, "dask"):
        yield None
        return
    if hasattr(arguments, "workers"):
        raise UsageError(
            "-np and --dask: -np counts processes on this machine, a cluster has its own; leave one out"
        )
    from utseg.cluster import dask_executor

    with dask_executor(arguments.dask, writes=writes, reads=reads, gpu=gpu, stop_work=stop_work) as executor:
        yield executor


def file_or_folder(text: str) -> Path:
    """A path for argparse: every option that names a file or folder has this type."""
    try:
        return typed_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text}")
    return value


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses, runs the body, returns the exit code: 0 done, 1 failed, 2 wrong usage, 75 interrupted.

    `--debug` adds the traceback of an error before its line, and changes nothing else.
    """
    arguments = parser.parse_args(argv)
    _configure_logging(quiet=getattr(arguments, "quiet", False))
    debug = getattr(arguments, "debug", False)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return body(arguments) or 0
    except UtsegError as error:
        if debug:
            traceback.print_exc()
        for note in getattr(error, "__notes__", ()):
            logger.warning("%s", note)
        for line in error.lines():
            sys.stderr.write(f"error: {' '.join(line.split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {INTERRUPTED_MESSAGE}\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 — a defect of ours, whatever it is: one line and exit code 1
        if debug:
            traceback.print_exc()
        sys.stderr.write(
            f"error: unexpected {type(error).__name__}: {' '.join(str(error).split())}; run again with --debug and report it\n"
        )
        return 1


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
