"""`utseg_report`: scores and runs as one HTML file."""

import argparse
import logging
import shlex
from collections.abc import Sequence

from utseg.commands.cli import home_words, run
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_report",
        "Write one self-contained HTML file about scores, runs or a study: tables with intervals, charts, pictures, every case's slices. "
        "Several are compared. Its tables lie beside it as CSV, Markdown and LaTeX.",
        "utseg_report scores_utnet scores_unet -o report.html",
    )
    paths = "a scores folder, a run of utseg_train, or a folder above some; or the folder of one study of utseg_study"
    images = "raw dataset that has the images, where the scores do not say so"
    parser.paths("paths", "PATH", paths, nargs="+")
    parser.path("-o", "output", "the file to write; its tables go beside it, into FILE_tables", "FILE.html")
    parser.dataset(images, or_the_only_one=False)
    parser.flag("--no-pictures", "tables and charts only: no images of patients")
    parser.workers()
    return run(parser, _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    from utseg.steps.reporting import report

    words = ["utseg_report", *map(str, arguments.paths), "-o", str(arguments.output)]
    words += ["-d", arguments.dataset] if arguments.dataset else []
    words += [] if arguments.pictures else ["--no-pictures"]
    written = report(
        arguments.paths,
        arguments.output,
        dataset=arguments.dataset,
        home=arguments.home,
        pictures=arguments.pictures,
        command=shlex.join([*words, *home_words(arguments)]),
        workers=arguments.workers,
    )
    for notice in written.notices:
        logger.warning("%s", notice)
    size = written.path.stat().st_size / 1e6
    held = f"{written.cases} cases, {written.pictured} with pictures, {size:.1f} MB"
    logger.info("report: %s (%s)\ntables: %s", written.path, held, written.tables)
