"""`utseg_demo`: the whole walk on a synthetic cohort: the commands that a user would type are shown and run, one after the other.

Every command keeps what is finished, so that a second run goes on where the first one stopped. What the scores say about segmenting
people: nothing (the phantom's README).
"""

import argparse
import logging
import shlex
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from utseg.commands.cli import home_of, home_words, run
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")
NAME = "Phantom"
PLANNER = "cpu"
MODEL = "UTNet"
SELECTION = "vendor=A,B"
COHORT = ("--frames", "8")
# A fixed number of iterations, so that every machine gets the same figures; small patches, to be done in minutes.
PATCH = ("--set", "patch_size=96,96", "focus=true")  # which hold every heart of the cohort
TRAINING = ("--epochs", "10", "--set", "iterations_per_epoch=40", "validate_every=5")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_demo",
        "Make a synthetic cine cohort of four vendors, train on two of them, segment and score all four. Six minutes on two cores. "
        "Run again, it keeps what is finished.",
        "utseg_demo --home utseg_data",
    )
    parser.seed("seed of the cohort and of the training")
    parser.workers()
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
    vendors = read_json(testing / "scores" / SUMMARY_FILE)["groups"]["vendor"]
    names = {case.groups["vendor"]: case.groups["vendor_name"] for case in cases}
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    logger.info(
        f"\nDice on the test subjects (synthetic: it says that the software works, nothing about patients)\n"
        f"{score_table(vendors, names)}\n\n"
        f"pictures: {_shown(testing / 'pictures')} ({', '.join(path.name for path in pictures)}: each vendor's test case of median Dice)\n"
        f"scores:   {_shown(testing / 'scores')}\n"
        f"report:   {_shown(testing / 'report.html')}\n"
        f"time:     {minutes} min {seconds} s"
    )
    return 0


def _steps(arguments: argparse.Namespace) -> list[tuple[str, list[str | Path]]]:
    """What each step does, and its command."""
    from utseg.training.record import RUN_FILE

    home, where = home_of(arguments), home_words(arguments)
    raw, results = home.raw / NAME, home.results / NAME
    workers = [] if arguments.workers is None else ["-np", str(arguments.workers)]
    seed = ["--seed", str(arguments.seed)]
    begun = (results / f"{PLANNER}_2d" / MODEL / SELECTION / RUN_FILE).is_file()
    model = ["-d", NAME, "-m", MODEL, "-pl", PLANNER]
    training = [*model, *TRAINING, *seed, *(["--resume"] if begun else [])]
    masks, scores = results / "testing" / "masks", results / "testing" / "scores"
    ending = [*workers, *where]
    planning = ["-d", NAME, "-pl", PLANNER, *PATCH, *ending]
    predicting = [*model, "-f", SELECTION, "--resume", *ending]
    report = results / "testing" / "report.html"
    predict: list[str | Path] = ["utseg_predict", "-i", raw / "Testing", "-o", masks, *predicting]
    evaluate: list[str | Path] = ["utseg_evaluate", "-p", masks, "-g", raw / "Testing", "-o", scores, *ending]
    return [
        ("a synthetic cine cohort of four vendors", ["utseg_make_phantom", raw, *COHORT, *seed, *workers]),
        ("look at every scan, plan the training, make the slices", ["utseg_plan_and_preprocess", *planning]),
        (f"train {MODEL} on vendors A and B", ["utseg_train", "2d", SELECTION, *training, *where]),
        ("segment the test subjects of all four vendors", predict),
        ("score the masks against the references", evaluate),
        ("all of it in one page", ["utseg_report", scores, "-o", report, *ending]),
    ]


def _shown(word: str | Path) -> str:
    """As a user would type it: paths below the current folder are relative."""
    if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
        return str(word.relative_to(Path.cwd()))
    return str(word)
