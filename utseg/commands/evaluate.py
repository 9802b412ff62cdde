"""`utseg_evaluate`: scores predictions against references."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from utseg.commands.cli import cluster_of, run
from utseg.commands.options import Parser

logger = logging.getLogger("utseg")
TOLERANCE_MM = 2.0
HEADS = [
    *("label", "subjects", "cases", "Dice", "95 % interval", "HD95 mm", "ASSD mm", "HD95 2-D"),
    *("missed", "extra", "neither"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_evaluate",
        "Score masks against reference labels in native mm: per case, label, slice and region, volumes and ejection fraction, per group.",
        "utseg_evaluate -p out -g utseg_data/raw/MnM -o scores",
    )
    parser.path("-p", "predictions", "folder with masks: CASE.nii.gz, or pictures")
    parser.path(
        "-g", "references", "reference labels: a folder of CASE.nii.gz or of pictures, or a raw dataset"
    )
    parser.path("-o", "output", "folder for metrics.csv, summary.json, tables.md and the others")
    parser.dataset("raw dataset that names labels and groups of the references", or_the_only_one=False)
    numbering = "how masks and references number their labels, where nothing beside them says it: LV=1 MYO=2 RV=3, or 1 2 3"
    parser.value("--labels", "labels", "LABEL", numbering, nargs="+")
    parser.flag("--only-predicted", "score the cases that have a prediction, ignore the others")
    parser.flag("--only-referenced", "score the predictions that have a reference, ignore the others")
    _add_definition(parser)
    parser.workers()
    parser.dask()
    return run(parser, _evaluate, argv)


def _add_definition(parser: Parser) -> None:
    surface = "surface elements: voxels, each counting the same (as medpy, MONAI), or weighted by area (as surface-distance)"
    percentile = (
        "HD95 over both directions together (as medpy), or the larger of the two (as MONAI, surface-distance)"
    )
    official = "add official_utnet.csv: scored as the official UTNet does (maximum Hausdorff, 500 mm for empties, 1.2 mm, cropped)"
    tolerance = "tolerance of the surface Dice"
    parser.add_argument("--tolerance-mm", type=float, default=TOLERANCE_MM, metavar="MM", help=tolerance)
    parser.add_argument("--surface", choices=("voxels", "area"), default="voxels", help=surface)
    parser.add_argument("--percentile", choices=("pooled", "directed"), default="pooled", help=percentile)
    parser.flag("--as-official-utnet", official)


def _evaluate(arguments: argparse.Namespace) -> None:
    from utseg.evaluate.metrics import Definition
    from utseg.labels import parse_labels
    from utseg.steps.scoring import evaluate

    if arguments.dask is not None:  # workers have a current folder of their own
        arguments.predictions = arguments.predictions.absolute()
        arguments.references = arguments.references.absolute()
    reads = [arguments.references, arguments.predictions]
    with cluster_of(arguments, writes=arguments.output, reads=reads) as executor:
        summary = evaluate(
            arguments.predictions,
            arguments.references,
            arguments.output,
            dataset=arguments.dataset,
            home=arguments.home,
            labels=None if arguments.labels is None else parse_labels(arguments.labels),
            only_predicted=arguments.only_predicted,
            only_referenced=arguments.only_referenced,
            definition=Definition(arguments.surface, arguments.percentile, arguments.tolerance_mm),
            as_official_utnet=arguments.as_official_utnet,
            workers=arguments.workers,
            executor=executor,
        )
    logger.info("%s\nscores: %s", summary_table(summary), arguments.output)


def summary_table(summary: dict[str, Any]) -> str:
    """A plain-text table of the summary: a line a label, means over subjects; mean Dice of every group; bias of clinical measures."""
    from utseg.evaluate.tables import label_cells, number, to_text

    columns = ("dice", "dice±", "hd95_mm", "assd_mm", "slice_hd95_mm")
    rows = [
        HEADS,
        *([name, *label_cells(label, columns)] for name, label in summary["all"]["labels"].items()),
    ]
    lines = to_text(rows)
    for column, groups in summary["groups"].items():
        if len(groups) > 1:
            values = "  ".join(
                f"{value} {number(group['mean_dice'], 3)} (n={group['subjects']})"
                for value, group in groups.items()
            )
            lines.append(f"mean Dice by {column}: {values}")
    if summary["clinical"]:
        values = "  ".join(
            f"{measure.replace('_', ' ')} {number(found['bias'], 1)} {found['unit']} (n={found['n']})"
            for measure, found in summary["clinical"]["all"].items()
        )
        lines.append(f"bias of clinical measures: {values}")
    return "\n".join(lines)
