"""`utseg_import_dicom`: folders from a scanner or a CD → 4-D cines that the other commands read, and a table of them."""

import argparse
import logging
from collections.abc import Sequence

from utseg.commands.cli import run
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_import_dicom",
        "Find the short-axis cine in each study of a DICOM folder, by geometry, and write it as 4-D NIfTI in scanner coordinates. Subjects "
        "get codes: names, ids and dates are written nowhere.",
        "utseg_import_dicom CD -o cines",
    )
    parser.paths("folder", "IN", "folder with DICOM files at any depth, of any names")
    parser.path("-o", "output", "new folder for CINE.nii.gz, cines.csv, left_out.csv and sources/")
    codes = (
        "also write which patient id each code stands for, readable by you alone; not into the output folder"
    )
    parser.path("--codes", "codes", codes, "FILE.csv", required=False)
    parser.workers()
    return run(parser, _import, argv)


def _import(arguments: argparse.Namespace) -> None:
    from utseg.dicom.importing import import_dicom
    from utseg.errors import CaseErrors

    record = import_dicom(
        arguments.folder, arguments.output, codes=arguments.codes, workers=arguments.workers
    )
    logger.info("cines: %s", arguments.output)
    if record.problems:
        raise CaseErrors(record.problems)
