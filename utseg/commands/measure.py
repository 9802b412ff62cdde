"""`utseg_measure`: volumes over the cycle, ejection fraction and mass from masks, without reference labels."""

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utseg.cardiac.volumes import BASAL_RULES
from utseg.commands.cli import run
from utseg.commands.options import Parser

if TYPE_CHECKING:
    from utseg.measure.record import CineMeasures, MeasuresRecord

logger = logging.getLogger("utseg")
SHOWN = ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g", "rv_ef_percent")
HEADS = ("cine", "ED", "ES", "EDV ml", "ESV ml", "EF %", "mass g", "RV EF %", "to check")
AGREED = ("lv_ef_percent", "rv_ef_percent", "lv_edv_ml", "lv_esv_ml", "lv_mass_g")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_measure",
        "Measure hearts in masks, without references: volumes of every frame, ED and ES found, EF, stroke volume, mass, and what to doubt.",
        "utseg_measure -i masks -o measures",
    )
    masks = "folder with masks: cines (4-D CASE.nii.gz), or masks of ED and ES of subjects that -d or --table knows"
    images = (
        "the images that the masks are of: a folder, a file, a raw dataset or a part of one; a cines.csv there is the table; not needed "
        "where prediction.json says where they are"
    )
    table = (
        "CSV with a row a cine, read in place of a cines.csv beside the images: cine, subject, heart_rate_bpm, height_m, weight_kg, "
        "vendor, centre, pathology, …"
    )
    numbering = "how the masks number their labels, where nothing beside them says it: LV=1 MYO=2 RV=3"
    rule = "LV cavity counts in all slices, or where myocardium lies along half of its outline"
    parser.path("-i", "masks", masks)
    parser.path("-o", "output", "folder for measures.csv, curves.csv, measures.json and measures.html")
    parser.dataset("raw dataset that knows labels, subjects, phases and groups", or_the_only_one=False)
    parser.value("--labels", "labels", "LABEL", numbering, nargs="+")
    parser.path("--images", "images", images, "PATH", required=False)
    parser.path("--table", "table", table, "FILE", required=False)
    parser.path(
        "-g",
        "references",
        "reference labels at ED and ES, or of whole cines, to compare with",
        required=False,
    )
    parser.flag("--no-pictures", "pages without contours: no images of patients")
    parser.workers()
    parser.add_argument("--basal-rule", choices=BASAL_RULES, default="all", help=rule)
    parser.flag(
        "--dicom",
        "write measures, a figure and the masks of ED and ES as DICOM too, for cines of utseg_import_dicom",
    )
    return run(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> None:
    from utseg.labels import parse_labels
    from utseg.report.measures.write import PAGE_FILE
    from utseg.steps.measuring import measure

    record = measure(
        arguments.masks,
        arguments.output,
        dataset=arguments.dataset,
        home=arguments.home,
        labels=None if arguments.labels is None else parse_labels(arguments.labels),
        images=arguments.images,
        table=arguments.table,
        references=arguments.references,
        basal_rule=arguments.basal_rule,
        dicom=arguments.dicom,
        pictures=arguments.pictures,
        workers=arguments.workers,
    )
    page = arguments.output / PAGE_FILE
    logger.info("%s\nmeasures: %s\npage: %s", measures_table(record), arguments.output, page)


def measures_table(record: "MeasuresRecord") -> str:
    """A plain-text table: a line a cine, then mean EF of every group, and how measures agree with references."""
    width = max(4, *(len(cine.cine) for cine in record.cines))
    form = f"{{:<{width}}}" + "{:>5}{:>5}{:>9}{:>9}{:>7}{:>9}{:>9}  {}"
    lines = [form.format(*HEADS), *(form.format(*_cells(cine)) for cine in record.cines)]
    for found in record.distributions:
        if found.column and found.measure == "lv_ef_percent":
            lines.append(f"LV EF of {found.column} {found.value}: {found.mean:.1f} % (n={found.n})")
    for measure in AGREED:
        agreed = record.agreement.get(measure, {"n": 0})
        if agreed["n"]:
            limits = "" if agreed["limits"] is None else ", limits {:.1f} … {:.1f}".format(*agreed["limits"])
            lines.append(
                f"{measure} against references: bias {agreed['bias']:.1f}{limits}, mean absolute difference {agreed['mae']:.1f} "
                f"{agreed['unit']} (n={agreed['n']})"
            )
    return "\n".join(lines)


def _cells(cine: "CineMeasures") -> list[str]:
    frames = ["" if frame is None else str(frame) for frame in (cine.ed_frame, cine.es_frame)]
    values = ["" if (value := cine.values[key]) is None else f"{value:.1f}" for key in SHOWN]
    checks = dict.fromkeys(flag.name for flag in cine.flags if flag.severity == "check")
    return [cine.cine, *frames, *values, ", ".join(checks) or "-"]
