"""`utseg_import_model`: models that others exported, verified, then put where `utseg_predict` finds them."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import home_of, make_parser, run
from utseg.commands.options import add_flag, file_or_folder

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_import_model",
        "Import models from an archive of utseg_export_model. All of it is verified before a model is put in place; nothing in it is run.",
        "utseg_import_model model.zip",
    )
    parser.add_argument("archive", type=file_or_folder, metavar="FILE.zip", help="the archive")
    parser.add_argument(
        "--as",
        dest="dataset",
        metavar="NAME",
        help="import under this dataset's name; default: the one that the models were trained on",
    )
    add_flag(parser, "--force", "replace models that are there, with all of their runs")
    return run(parser, _import, argv)


def _import(arguments: argparse.Namespace) -> None:
    from utseg.archive import import_model

    imported = import_model(
        arguments.archive, home_of(arguments).results, dataset=arguments.dataset, force=arguments.force
    )
    for folder in imported.runs:
        logger.info("imported: %s", folder)
    terms = imported.manifest.terms
    for name, text in (("licence", terms.licence), ("citation", terms.citation), ("contact", terms.contact)):
        logger.info("%s: %s", name, text or "not stated")
    logger.info("read %s before you use it", imported.runs[0].parent / "MODEL_CARD.md")
