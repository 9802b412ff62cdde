"""`utseg_report`: scores and runs as one HTML file."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

from utseg.commands.cli import home_of, home_words, make_parser, named_dataset, run
from utseg.commands.options import add_dataset, add_flag, add_path, add_workers, file_or_folder
from utseg.errors import explained_by

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_report",
        "Write one self-contained HTML file about scores, runs or a study: tables with intervals, charts, pictures, every case's slices. "
        "Several are compared. Its tables lie beside it as CSV, Markdown and LaTeX.",
        "utseg_report scores_utnet scores_unet -o report.html",
    )
    parser.add_argument(
        "paths",
        type=file_or_folder,
        nargs="+",
        metavar="PATH",
        help="a scores folder, a run of utseg_train, or a folder above some; or the folder of one study of utseg_study",
    )
    add_path(
        parser,
        "-o",
        "output",
        "the file to write; its tables go beside it, into FILE_tables",
        metavar="FILE.html",
    )
    add_dataset(
        parser, "raw dataset that has the images, where the scores do not say so", or_the_only_one=False
    )
    add_flag(parser, "--no-pictures", "tables and charts only: no images of patients")
    add_workers(parser)
    return run(parser, _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    from utseg.report import write_report, write_study_report

    is_study = _is_study(arguments)
    dataset = named_dataset(arguments)
    words = ["utseg_report", *map(str, arguments.paths), "-o", str(arguments.output)]
    words += ["-d", arguments.dataset] if dataset else []
    words += [] if arguments.pictures else ["--no-pictures"]
    words += home_words(arguments)
    settings = {
        "home": home_of(arguments),
        "pictures": arguments.pictures,
        "command": shlex.join(words),
        "workers": arguments.workers,
    }
    if is_study:
        report = write_study_report(arguments.paths[0], arguments.output, **settings)
    else:
        with explained_by(dataset.warnings if dataset else ()):
            report = write_report(arguments.paths, arguments.output, dataset=dataset, **settings)
    for notice in report.notices:
        logger.warning("%s", notice)
    if logger.isEnabledFor(logging.INFO):
        size = report.path.stat().st_size / 1e6
        sys.stdout.write(
            f"report: {report.path} ({report.cases} cases, {report.pictured} with pictures, {size:.1f} MB)\ntables: {report.tables}\n"
        )


def _is_study(arguments: argparse.Namespace) -> bool:
    """Whether the path is a study's folder. Raises UsageError where a study and other paths, or a dataset, are named."""
    from utseg.errors import UsageError
    from utseg.study.record import STUDY_FILE

    studies = [path for path in arguments.paths if (path / STUDY_FILE).is_file()]
    if studies and (len(arguments.paths) > 1 or arguments.dataset is not None):
        raise UsageError(
            f"{studies[0]}: a study has a report of its own: name its folder alone, without other paths and without -d"
        )
    return bool(studies)
