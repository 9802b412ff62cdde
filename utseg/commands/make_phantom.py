"""`utseg_make_phantom`: writes a synthetic multi-vendor cine cohort in the native M&Ms layout."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.frame import add_workers, file_or_folder, make_parser, positive, run

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
        "--subjects", type=positive, default=24, metavar="N", help="number of subjects, at least 4"
    )
    made.add_argument(
        "--frames", type=positive, default=10, metavar="N", help="frames of each cine, at least 2"
    )
    made.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same files")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--size", choices=sorted(MATRICES), default="small", help="how large the images are")
    size.add_argument("--matrix", type=positive, metavar="N", help="about so many columns, instead of --size")
    made.add_argument(
        "--slices",
        type=positive,
        metavar="N",
        help="slices of each stack; default: as many as the heart needs",
    )
    add_workers(made)
    return made


def body(arguments: argparse.Namespace) -> None:
    """Makes the cohort and says what is there."""
    from utseg.phantom.cohort import make_phantom

    outcome = make_phantom(
        arguments.out,
        subjects=arguments.subjects,
        frames=arguments.frames,
        matrix=arguments.matrix or MATRICES[arguments.size],
        slices=arguments.slices,
        seed=arguments.seed,
        workers=getattr(arguments, "workers", None),
    )
    if outcome == "made":
        logger.info(
            "%s: %d synthetic subjects, made to demonstrate and test on", arguments.out, arguments.subjects
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run(parser(), body, argv)
