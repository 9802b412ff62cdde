"""The options that several commands have, one function each, so that all of them say the same.

What is not given is None, or an empty tuple where said. Only the standard library is imported here: `--help` stays quick.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from utseg.errors import UsageError
from utseg.home import typed_path

CONFIGURATIONS = ("2d",)
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def add_path(
    parser: argparse.ArgumentParser,
    flag: str,
    dest: str,
    help: str,
    *,
    metavar: str = "DIR",
    nargs: str | None = None,
    required: bool = True,
) -> None:
    """Adds an option that names a file or folder."""
    parser.add_argument(
        flag, dest=dest, type=file_or_folder, nargs=nargs, required=required, metavar=metavar, help=help
    )


def add_flag(parser: argparse.ArgumentParser, flag: str, help: str) -> None:
    """Adds a flag. `--no-x` switches x off, which else is on."""
    on = not flag.startswith("--no-")
    name = flag.removeprefix("--" if on else "--no-").replace("-", "_")
    parser.add_argument(flag, dest=name, action="store_true" if on else "store_false", help=help)


def add_dataset(parser: argparse.ArgumentParser, help: str, *, or_the_only_one: bool = True) -> None:
    """Adds `-d NAME`."""
    more = "; may be left out where there is only one" if or_the_only_one else ""
    parser.add_argument("-d", dest="dataset", metavar="NAME", help=help + more)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Adds `-pl PLAN`, which `choose_plan_folder` follows."""
    parser.add_argument(
        "-pl",
        dest="planner",
        metavar="PLAN",
        help="plan of the dataset; default: auto, or the only one there",
    )


def add_model_choice(parser: argparse.ArgumentParser, *, or_where: str = "") -> None:
    """Adds -d, -m, -f and -pl, which `chosen_runs` follows. `or_where`: when else -m may be left out, in words."""
    add_trained_dataset(parser)
    parser.add_argument(
        "-m",
        dest="models",
        nargs="+",
        metavar="MODEL",
        help=f"one or more networks; may be left out where one is trained{or_where}",
    )
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="what they were trained on, as fold0 or vendor=A; left out: all folds that are trained",
    )
    parser.add_argument(
        "-pl", dest="planner", metavar="PLAN", help="plan; may be left out where one has trained models"
    )


def add_trained_dataset(parser: argparse.ArgumentParser) -> None:
    """Adds `-d NAME`, a dataset with results."""
    add_dataset(parser, "dataset that the models were trained on")


def chosen_runs(arguments: argparse.Namespace, dataset: Path) -> list[Path]:
    """The runs that `add_model_choice` names, below `results/NAME`."""
    from utseg.predict.model import choose_runs

    return choose_runs(
        dataset, planner=arguments.planner, models=arguments.models or (), folds=arguments.folds or ()
    )


def add_settings(parser: argparse.ArgumentParser, of: str, example: str) -> None:
    """Adds `--set KEY=VALUE …`, as one list of words. `of`: of what a value is changed."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="extend",
        nargs="+",
        metavar="KEY=VALUE",
        default=[],
        help=f"change a value of {of}, as {example}",
    )


def add_length(parser: argparse.ArgumentParser, *, epochs: str, max_time: str) -> None:
    """Adds `--epochs N` and `--max-time TIME`, of which one may be given. The texts: what is as long as that."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=at_least(1), metavar="N", help=epochs)
    length.add_argument("--max-time", dest="max_time_s", type=duration, metavar="TIME", help=max_time)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds `--device NAME`."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto (CUDA where it is there), cpu, cuda or cuda:N"
    )


def add_seed(parser: argparse.ArgumentParser, help: str) -> None:
    """Adds `--seed S`."""
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help=help)


def add_workers(
    parser: argparse.ArgumentParser, help: str = "worker processes; default: one a core", least: int = 1
) -> None:
    """Adds `-np N`."""
    parser.add_argument("-np", dest="workers", type=at_least(least), metavar="N", help=help)


def add_dask(parser: argparse.ArgumentParser) -> None:
    """Adds `--dask ADDRESS`, which `cli.cluster_of` follows."""
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on a Dask cluster that shares these paths: its scheduler as tcp://HOST:8786, or the scheduler's file",
    )


def flags_given(arguments: argparse.Namespace, flags: Mapping[str, str]) -> list[str]:
    """Those of the flags (with the names of their values) that are on the command line."""
    return [flag for flag, name in flags.items() if getattr(arguments, name) is not None]


def check_configuration(name: str, hint: str = "") -> None:
    """Raises UsageError where no configuration is called that."""
    if name not in CONFIGURATIONS:
        raise UsageError(f"no configuration is called {name!r}; there is: {', '.join(CONFIGURATIONS)}{hint}")


def file_or_folder(text: str) -> Path:
    """A path for argparse: every option that names a file or folder has this type."""
    try:
        return typed_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number for argparse."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return value

    return number


def duration(text: str) -> float:
    """Seconds of 90s, 10m, 1h or 1h30m, for argparse."""
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = dict(zip("hms", match.groups(), strict=True)) if match else {}
        seconds = sum(float(value) * SECONDS[unit] for unit, value in parts.items() if value)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m, 1h or 1h30m, found {text!r}")
    return seconds
