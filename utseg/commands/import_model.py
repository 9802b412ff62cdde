"""`utseg_import_model`: models that others exported, verified, then put where `utseg_predict` finds them."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import home_of, run
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_import_model",
        "Import models from an archive of utseg_export_model. All of it is verified before a model is put in place; nothing in it is run.",
        "utseg_import_model model.zip",
    )
    dataset = "import under this dataset's name; default: the one that the models were trained on"
    parser.paths("archive", "FILE.zip", "the archive")
    parser.value("--as", "dataset", "NAME", dataset)
    parser.flag("--force", "replace models that are there, with all of their runs")
    return run(parser, _import, argv)


def _import(arguments: argparse.Namespace) -> None:
    from utseg.archive import import_model

    results = home_of(arguments).results
    imported = import_model(arguments.archive, results, dataset=arguments.dataset, force=arguments.force)
    for folder in imported.runs:
        logger.info("imported: %s", folder)
    for name in ("licence", "citation", "contact"):
        logger.info("%s: %s", name, getattr(imported.manifest.terms, name) or "not stated")
    logger.info("read %s before you use it", imported.runs[0].parent / "MODEL_CARD.md")
