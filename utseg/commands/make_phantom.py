"""`utseg_make_phantom`: writes a synthetic multi-vendor cine cohort in the native M&Ms layout."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import make_parser, run
from utseg.commands.options import add_seed, add_workers, at_least, file_or_folder

logger = logging.getLogger("utseg")
MATRICES = {"tiny": 56, "small": 192, "full": 256}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = make_parser(
        "utseg_make_phantom",
        "Writes a synthetic multi-vendor cine cohort in the native M&Ms layout: to demonstrate and test on, and for nothing else.",
        "utseg_make_phantom utseg_data/raw/Phantom --subjects 24 --seed 0",
    )
    made.add_argument("out", type=file_or_folder, metavar="OUT", help="a new or empty folder")
    made.add_argument(
        "--subjects", type=at_least(1), default=24, metavar="N", help="number of subjects, at least 4"
    )
    made.add_argument(
        "--frames", type=at_least(1), default=10, metavar="N", help="frames of each cine, at least 2"
    )
    add_seed(made, "the same seed gives the same files")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--size", choices=sorted(MATRICES), default="small", help="how large the images are")
    size.add_argument(
        "--matrix", type=at_least(1), metavar="N", help="about so many columns, instead of --size"
    )
    made.add_argument(
        "--slices",
        type=at_least(1),
        metavar="N",
        help="slices of each stack; default: as many as the heart needs",
    )
    add_workers(made)
    return made


def body(arguments: argparse.Namespace) -> None:
    """Makes the cohort and says what is there."""
    from utseg.phantom.cohort import make_phantom
    from utseg.phantom.examination import PhantomSettings
    from utseg.rawdata import require_outside_datasets

    require_outside_datasets(arguments.out.absolute().parent)
    matrix = arguments.matrix or MATRICES[arguments.size]
    settings = PhantomSettings(arguments.subjects, arguments.frames, matrix, arguments.slices, arguments.seed)
    if make_phantom(arguments.out, settings, workers=arguments.workers) == "made":
        logger.info(
            "%s: %d synthetic subjects, made to demonstrate and test on", arguments.out, arguments.subjects
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run(parser(), body, argv)
