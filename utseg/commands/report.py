"""`utseg_report`: scores and runs as one HTML file."""

import argparse
import logging
import shlex
from collections.abc import Sequence

from utseg.commands.cli import home_of, home_words, named_dataset, run
from utseg.commands.options import Parser
from utseg.errors import UsageError, explained_by

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
    from utseg.report import write_report, write_study_report

    is_study = _is_study(arguments)
    dataset = named_dataset(arguments)
    words = ["utseg_report", *map(str, arguments.paths), "-o", str(arguments.output)]
    words += ["-d", arguments.dataset] if dataset else []
    words += [] if arguments.pictures else ["--no-pictures"]
    settings = {
        "home": home_of(arguments),
        "pictures": arguments.pictures,
        "command": shlex.join([*words, *home_words(arguments)]),
        "workers": arguments.workers,
    }
    with explained_by(dataset.warnings if dataset else ()):
        if is_study:
            report = write_study_report(arguments.paths[0], arguments.output, **settings)
        else:
            report = write_report(arguments.paths, arguments.output, dataset=dataset, **settings)
    for notice in report.notices:
        logger.warning("%s", notice)
    size = report.path.stat().st_size / 1e6
    held = f"{report.cases} cases, {report.pictured} with pictures, {size:.1f} MB"
    logger.info("report: %s (%s)\ntables: %s", report.path, held, report.tables)


def _is_study(arguments: argparse.Namespace) -> bool:
    """Whether the path is a study's folder. Raises UsageError where a study and other paths, or a dataset, are named."""
    from utseg.study.record import STUDY_FILE

    studies = [path for path in arguments.paths if (path / STUDY_FILE).is_file()]
    if studies and (len(arguments.paths) > 1 or arguments.dataset is not None):
        raise UsageError(
            f"{studies[0]}: a study has a report of its own: name its folder alone, without other paths and without -d"
        )
    return bool(studies)
