"""The parser of every command: options that several commands have are its methods, so that all of them say the same.

What is not given is None, or an empty tuple where said. Only the standard library is imported here: `--help` stays quick.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utseg.device import DEVICES
from utseg.errors import LARGEST_COUNT, LARGEST_SEED, LONGEST_S, MOST_WORKERS, UsageError, shortened
from utseg.home import typed_path

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
Group = argparse._MutuallyExclusiveGroup


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that mean something: not those of flags, nor None or nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, bool) or action.default in (None, "", (), []):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser with the options that every command has, and a method for each that several have."""

    def __init__(self, name: str, description: str, example: str) -> None:
        epilog = f"example: {example}"
        super().__init__(name, None, description, epilog, allow_abbrev=False, formatter_class=_Formatter)
        self.path("--home", "home", "home folder; else UTSEG_HOME, else ./utseg_data", required=False)
        self.flag("--debug", "full traceback on errors")
        self.flag("--quiet", "errors and warnings only")

    def value(self, flag: str, dest: str, metavar: str, help: str, **settings: Any) -> None:
        """Adds an option with a value; `settings` are those of argparse."""
        self.add_argument(flag, dest=dest, metavar=metavar, help=help, **settings)

    def path(self, flag: str, dest: str, help: str, metavar: str = "DIR", **settings: Any) -> None:
        """Adds an option that names a file or folder, which has to be given."""
        self.value(flag, dest, metavar, help, type=file_or_folder, **{"required": True} | settings)

    def paths(self, dest: str, metavar: str, help: str, nargs: str | None = None) -> None:
        """Adds a file or folder, or several, without a flag."""
        self.add_argument(dest, type=file_or_folder, metavar=metavar, help=help, nargs=nargs)

    def flag(self, flag: str, help: str, group: Group | None = None) -> None:
        """Adds a flag; `--no-x` switches x off, which else is on. `group`: those of which one may be given."""
        on = not flag.startswith("--no-")
        name = flag.removeprefix("--" if on else "--no-").replace("-", "_")
        (group or self).add_argument(flag, dest=name, action="store_true" if on else "store_false", help=help)

    def dataset(self, help: str, *, or_the_only_one: bool = True) -> None:
        """Adds `-d NAME`."""
        more = "; may be left out where there is only one" if or_the_only_one else ""
        self.value("-d", "dataset", "NAME", help + more)

    def trained_dataset(self) -> None:
        """Adds `-d NAME`, a dataset with results."""
        self.dataset("dataset that the models were trained on")

    def plan(self, help: str = "plan of the dataset; default: auto, or the only one there") -> None:
        """Adds `-pl PLAN`, which `choose_plan_folder` follows."""
        self.value("-pl", "planner", "PLAN", help)

    def model_choice(self, or_where: str = "") -> None:
        """Adds -d, -m, -f and -pl, the fields of `ModelChoice`. `or_where`: when else -m may be left out, in words."""
        self.trained_dataset()
        models = f"one or more networks; may be left out where one is trained{or_where}"
        folds = "what they were trained on, as fold0 or vendor=A; left out: all folds that are trained"
        self.value("-m", "models", "MODEL", models, nargs="+")
        self.value("-f", "folds", "FOLD", folds, nargs="+")
        self.plan("plan, as auto or (2.5-D) auto_2.5d; may be left out where one has trained models")

    def settings(self, of: str, example: str) -> None:
        """Adds `--set KEY=VALUE …`, as one list of words. `of`: of what a value is changed."""
        help = f"change a value of {of}, as {example}"
        self.value("--set", "settings", "KEY=VALUE", help, action="extend", nargs="+", default=[])

    def length(self, *, epochs: str, max_time: str) -> None:
        """Adds `--epochs N` and `--max-time TIME`, of which one may be given. The texts: what is as long as that."""
        length = self.add_mutually_exclusive_group()
        length.add_argument("--epochs", type=at_least(1), metavar="N", help=epochs)
        length.add_argument("--max-time", dest="max_time_s", type=duration, metavar="TIME", help=max_time)

    def device(self) -> None:
        """Adds `--device NAME`."""
        help = f"{DEVICES}; auto: CUDA where it is there, else mps, Apple's GPUs"
        self.value("--device", "device", "NAME", help, default="auto")

    def seed(self, help: str) -> None:
        """Adds `--seed S`."""
        self.value("--seed", "seed", "S", help, type=at_least(0, LARGEST_SEED), default=0)

    def workers(
        self, help: str = "worker processes, 0 for none beside this one; default: one a core", least: int = 0
    ) -> None:
        """Adds `-np N`."""
        self.value("-np", "workers", "N", help, type=at_least(least, MOST_WORKERS))

    def dask(self) -> None:
        """Adds `--dask ADDRESS`, which `cli.cluster_of` follows."""
        help = "work on a Dask cluster that shares these paths: its scheduler as tcp://HOST:8786, or the scheduler's file"
        self.value("--dask", "dask", "ADDRESS", help)


def file_or_folder(text: str) -> Path:
    """A path for argparse: every option that names a file or folder has this type."""
    try:
        return typed_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least(least: int, most: int = LARGEST_COUNT) -> Callable[[str], int]:
    """The type of a whole number for argparse."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            expected = f"of at least {least}" if value < least else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number {expected}, found {shortened(text)!r}")
        return value

    return number


def share(text: str) -> float:
    """A share above 0, at most 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, found {text!r}")
    return value


def duration(text: str) -> float:
    """Seconds of 90s, 10m, 1h or 1h30m, for argparse."""
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = dict(zip("hms", match.groups(), strict=True)) if match else {}
        seconds = sum(float(value) * SECONDS[unit] for unit, value in parts.items() if value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 90s, 10m, 1h or 1h30m, found {shortened(text)!r}"
        )
    return seconds
