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
Words = list[str | Path]
Step = tuple[str, Words]
NAME = "Phantom"
CLINIC = "clinic"
PLANNER = "cpu"
MODEL = "UTNet"
SELECTION = "vendor=A,B"
COHORT = ("--frames", "8")
EXAMINATIONS = ("--subjects", "4", "--frames", "8")  # one of each vendor
OTHER_SEED = 1000  # added to the cohort's: hearts that no training saw
# A fixed number of iterations, so that every machine gets the same figures; small patches, to be done in minutes.
PATCH = ("--set", "patch_size=96,96", "focus=true")  # which hold every heart of the cohort
TRAINING = ("--epochs", "10", "--set", "iterations_per_epoch=30", "validate_every=5")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_demo",
        "Make a synthetic cine cohort of four vendors, train on two of them, segment and score all four. Five minutes on two cores. "
        "Run again, it keeps what is finished.",
        "utseg_demo --home utseg_data --clinic",
    )
    parser.flag(
        "--clinic",
        "go on from the scanner to the ejection fraction: DICOM of four others, masks of every frame, measures, a page, DICOM back",
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
    steps = _steps(arguments)
    if code := _run(steps, arguments, first=1):
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
    return _clinic(arguments, first=len(steps) + 1) if arguments.clinic else 0


def _run(steps: Sequence[Step], arguments: argparse.Namespace, *, first: int) -> int:
    """Shows and runs commands, one after the other; the exit code of the first that fails, else 0."""
    for number, (what, words) in enumerate(steps, start=first):
        logger.info("\n%d. %s\n   $ %s", number, what, shlex.join(map(_shown, words)))
        name, *rest = map(str, words)
        rest += ["--quiet"] if arguments.quiet else []
        rest += ["--debug"] if arguments.debug else []
        command = import_module(f"utseg.commands.{name.removeprefix('utseg_')}")
        if code := int(command.main(rest)):
            return code
    return 0


def _clinic(arguments: argparse.Namespace, *, first: int) -> int:
    """From examinations as DICOM to measures, and what they ought to be."""
    from utseg.demo.clinic import measured_against_truth

    started = time.monotonic()
    folder = home_of(arguments).results / NAME / CLINIC
    if code := _run(_clinic_steps(arguments, folder), arguments, first=first):
        return code
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    logger.info(
        f"\nEjection fractions of four synthetic hearts, and what their formulas say (nothing about patients)\n"
        f"{measured_against_truth(folder)}\n\n"
        f"pages:    {_shown(folder / 'measures' / 'measures.html')}\n"
        f"tables:   {_shown(folder / 'measures')} (measures.csv, curves.csv, measures.json)\n"
        f"DICOM:    {_shown(folder / 'masks' / 'dicom')} (every frame's masks), {_shown(folder / 'measures' / 'dicom')} (measures)\n"
        f"time:     {minutes} min {seconds} s"
    )
    return 0


def _clinic_steps(arguments: argparse.Namespace, folder: Path) -> list[Step]:
    """What each step of the clinic's walk does, and its command. An import that is there is whole, and kept."""
    from utseg.demo.clinic import CINES, CODES, MASKS, MEASURES, SCANNER
    from utseg.dicom.sources import CINES_FILE

    where = home_words(arguments)
    workers = [] if arguments.workers is None else ["-np", str(arguments.workers)]
    seed = ["--seed", str(arguments.seed + OTHER_SEED)]
    scanner, cines, masks = folder / SCANNER, folder / CINES, folder / MASKS
    phantom: Words = ["utseg_make_phantom", scanner, "--dicom", *EXAMINATIONS, *seed, *workers]
    importing: Words = ["utseg_import_dicom", scanner, "-o", cines, "--codes", folder / CODES, *workers]
    model = ["-d", NAME, "-m", MODEL, "-pl", PLANNER, "-f", SELECTION]
    predicting: Words = ["utseg_predict", "-i", cines, "-o", masks, *model, "--dicom-seg", "--resume"]
    predicting += [*workers, *where]
    measuring: Words = ["utseg_measure", "-i", masks, "--images", cines, "-o", folder / MEASURES, "--dicom"]
    steps: list[Step] = [("four examinations as scanners export them", phantom)]
    if not (cines / CINES_FILE).is_file():
        steps.append(("find the short-axis cine of each", importing))
    return [
        *steps,
        ("segment every frame; masks also as DICOM", predicting),
        ("volumes over the cycle, ED and ES, ejection fraction, mass; a page each, and DICOM", measuring),
    ]


def _steps(arguments: argparse.Namespace) -> list[Step]:
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
    predicting: Words = [*model, "-f", SELECTION, "--resume", *ending]
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
