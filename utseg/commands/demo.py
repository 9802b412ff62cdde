"""`utseg_demo`: the whole walk on a synthetic cohort: the commands that a user would type are shown and run, one after the other.

Every command keeps what is finished, so that a second run goes on where the first one stopped. What the scores say about segmenting
people: nothing (the phantom's README).
"""

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from utseg.commands.cli import home_of, home_words, make_parser, run
from utseg.commands.options import add_seed, add_workers, duration

logger = logging.getLogger("utseg")
NAME = "Phantom"
PLANNER = "cpu"
MODEL = "UTNet"
SELECTION = "vendor=A,B"
COHORT = ("--frames", "8")
TRAINING: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_demo",
        "Make a synthetic cine cohort of four vendors, train on two of them, segment and score all four. Six minutes on two cores. "
        "Run again, it keeps what is finished.",
        "utseg_demo --home utseg_data",
    )
    parser.add_argument(
        "--max-time",
        dest="max_time_s",
        type=duration,
        default=285.0,
        metavar="TIME",
        help="of the training, as 285s or 10m; default: 285s",
    )
    add_seed(parser, "seed of the cohort and of the training")
    add_workers(parser)
    return run(parser, _demo, argv)


def _demo(arguments: argparse.Namespace) -> int:
    from utseg.demo.results import draw_pictures, score_table
    from utseg.files import read_json
    from utseg.rawdata import open_dataset
    from utseg.training.record import SUMMARY_FILE

    started = time.monotonic()
    home = home_of(arguments)
    testing = home.results / NAME / "testing"
    for number, (what, words) in enumerate(_steps(arguments), start=1):
        logger.info("\n%d. %s\n   $ %s", number, what, shlex.join(map(_shown, words)))
        name, *rest = map(str, words)
        rest += ["--quiet"] if arguments.quiet else []
        rest += ["--debug"] if arguments.debug else []
        command = import_module(f"utseg.commands.{name.removeprefix('utseg_')}")
        if code := int(command.main(rest)):
            return code
    dataset = open_dataset(home.raw / NAME, NAME)
    cases = [case for case in dataset.cases if case.partition == "testing" and case.label is not None]
    pictures = draw_pictures(cases, dataset.labels, testing)
    if not logger.isEnabledFor(logging.INFO):
        return 0
    vendors = read_json(testing / "scores" / SUMMARY_FILE)["groups"]["vendor"]
    names = {case.groups["vendor"]: case.groups["vendor_name"] for case in cases}
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    sys.stdout.write(
        f"\nDice on the test subjects (synthetic: it says that the software works, nothing about patients)\n"
        f"{score_table(vendors, names)}\n\n"
        f"pictures: {_shown(testing / 'pictures')} ({', '.join(path.name for path in pictures)}: each vendor's test case of median Dice)\n"
        f"scores:   {_shown(testing / 'scores')}\n"
        f"report:   {_shown(testing / 'report.html')}\n"
        f"time:     {minutes} min {seconds} s\n"
    )
    return 0


def _steps(arguments: argparse.Namespace) -> list[tuple[str, list[str | Path]]]:
    """What each step does, and its command."""
    from utseg.training.record import RUN_FILE

    home, where = home_of(arguments), home_words(arguments)
    raw, results = home.raw / NAME, home.results / NAME
    masks, scores = results / "testing" / "masks", results / "testing" / "scores"
    workers = [] if arguments.workers is None else ["-np", str(arguments.workers)]
    seed = ["--seed", str(arguments.seed)]
    begun = (results / f"{PLANNER}_2d" / MODEL / SELECTION / RUN_FILE).is_file()
    model = ["-d", NAME, "-m", MODEL, "-pl", PLANNER]
    length = TRAINING or ("--max-time", f"{arguments.max_time_s:g}s")
    training = [*model, *length, *seed, *(["--resume"] if begun else [])]
    predicting = [*model, "-f", SELECTION, "--resume"]
    return [
        (
            "a synthetic cine cohort of four vendors",
            ["utseg_make_phantom", raw, *COHORT, *seed, *workers],
        ),
        (
            "look at every scan, plan the training, make the slices",
            ["utseg_plan_and_preprocess", "-d", NAME, "-pl", PLANNER, *workers, *where],
        ),
        (
            f"train {MODEL} on vendors A and B",
            ["utseg_train", "2d", SELECTION, *training, *where],
        ),
        (
            "segment the test subjects of all four vendors",
            ["utseg_predict", "-i", raw / "Testing", "-o", masks, *predicting, *workers, *where],
        ),
        (
            "score the masks against the references",
            ["utseg_evaluate", "-p", masks, "-g", raw / "Testing", "-o", scores, *workers, *where],
        ),
        (
            "all of it in one page",
            ["utseg_report", scores, "-o", results / "testing" / "report.html", *workers, *where],
        ),
    ]


def _shown(word: str | Path) -> str:
    """As a user would type it: paths below the current folder are relative."""
    if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
        return str(word.relative_to(Path.cwd()))
    return str(word)
