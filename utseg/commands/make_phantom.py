"""`utseg_make_phantom`: writes a synthetic multi-vendor cine cohort in the native M&Ms layout."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from utseg.commands.cli import run
from utseg.commands.options import Parser, at_least

logger = logging.getLogger("utseg")
MATRICES = {"tiny": 56, "small": 192, "full": 256}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_make_phantom",
        "Writes a synthetic multi-vendor cine cohort in the native M&Ms layout: to demonstrate and test on, and for nothing else.",
        "utseg_make_phantom utseg_data/raw/Phantom --subjects 24 --seed 0",
    )
    number: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    parser.paths("out", "OUT", "a new or empty folder")
    parser.add_argument("--subjects", default=24, help="number of subjects, at least 4", **number)
    parser.add_argument("--frames", default=10, help="frames of each cine, at least 2", **number)
    parser.seed("the same seed gives the same files")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", choices=sorted(MATRICES), default="small", help="how large the images are")
    size.add_argument("--matrix", help="about so many columns, instead of --size", **number)
    parser.add_argument(
        "--slices", help="slices of each stack; default: as many as the heart needs", **number
    )
    parser.flag(
        "--dicom",
        "each subject's examination as DICOM, as a scanner or a CD has it, with the true volumes in truth.csv",
    )
    parser.workers()
    return run(parser, _make, argv)


def _make(arguments: argparse.Namespace) -> None:
    from utseg.phantom.cohort import make_phantom
    from utseg.phantom.examination import PhantomSettings
    from utseg.rawdata import require_outside_datasets

    require_outside_datasets(arguments.out.absolute().parent)
    matrix = arguments.matrix or MATRICES[arguments.size]
    settings = PhantomSettings(
        arguments.subjects, arguments.frames, matrix, arguments.slices, arguments.seed, arguments.dicom
    )
    if make_phantom(arguments.out, settings, workers=arguments.workers) == "made":
        said = "%s: %d synthetic subjects, made to demonstrate and test on"
        logger.info(said, arguments.out, arguments.subjects)
