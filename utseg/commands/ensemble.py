"""`utseg_ensemble`: joins folders of saved probabilities into masks of their mean."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.frame import add_workers, file_or_folder, make_parser, run

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_ensemble",
        "Join folders that utseg_predict --save-probabilities wrote: each mask is the likeliest label by the mean of their probabilities.",
        "utseg_ensemble -i utnet unet -o joined",
    )
    parser.add_argument(
        "-i",
        dest="inputs",
        type=file_or_folder,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders with CASE.npz and prediction.json; their order changes nothing",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=file_or_folder,
        required=True,
        metavar="DIR",
        help="folder for the masks and prediction.json",
    )
    parser.add_argument(
        "-w",
        "--weights",
        dest="weights",
        type=float,
        nargs="+",
        metavar="WEIGHT",
        default=argparse.SUPPRESS,
        help="how much each folder counts, in their order; left out: all the same",
    )
    parser.add_argument(
        "--save-probabilities",
        action="store_true",
        help="also write CASE.npz, the mean, float32 (class, z, y, x)",
    )
    add_workers(parser)
    return run(parser, _ensemble, argv)


def _ensemble(arguments: argparse.Namespace) -> None:
    from utseg.predict.ensemble import ensemble_folders

    record = ensemble_folders(
        arguments.inputs,
        arguments.output,
        weights=getattr(arguments, "weights", None),
        save_probabilities=arguments.save_probabilities,
        workers=getattr(arguments, "workers", None),
    )
    logger.info(
        "%d cases, the mean of %d folders (%d models), are in %s",
        len(record.cases),
        len(arguments.inputs),
        len(record.models),
        arguments.output,
    )
