"""`utseg_ensemble`: joins folders of saved probabilities into masks of their mean."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import run
from utseg.commands.options import Parser
from utseg.errors import number_of

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_ensemble",
        "Join folders that utseg_predict --save-probabilities wrote: each mask is the likeliest label by the mean of their probabilities.",
        "utseg_ensemble -i utnet unet -o joined",
    )
    inputs = "folders with CASE.npz and prediction.json; their order changes nothing"
    weights = "how much each folder counts, in their order; left out: all the same"
    parser.path("-i", "inputs", inputs, nargs="+")
    parser.path("-o", "output", "folder for the masks and prediction.json")
    parser.add_argument("-w", "--weights", type=float, nargs="+", metavar="WEIGHT", help=weights)
    parser.flag("--save-probabilities", "also write CASE.npz, the mean, float32 (class, z, y, x)")
    parser.workers()
    return run(parser, _ensemble, argv)


def _ensemble(arguments: argparse.Namespace) -> None:
    from utseg.predict.ensemble import ensemble_folders

    record = ensemble_folders(
        arguments.inputs,
        arguments.output,
        weights=arguments.weights,
        save_probabilities=arguments.save_probabilities,
        workers=arguments.workers,
    )
    folders, models = number_of(len(arguments.inputs), "folder"), number_of(len(record.models), "model")
    cases = number_of(len(record.cases), "case")
    logger.info("%s, the mean of %s (%s), in %s", cases, folders, models, arguments.output)
