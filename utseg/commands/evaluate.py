"""`utseg_evaluate`: scores predictions against references."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from utseg.commands.cli import cluster_of, make_parser, named_dataset, run
from utseg.commands.options import add_dask, add_dataset, add_flag, add_path, add_workers
from utseg.errors import explained_by

logger = logging.getLogger("utseg")
TOLERANCE_MM = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_evaluate",
        "Score masks against reference labels in native mm: per case, label, slice and region, volumes and ejection fraction, per group.",
        "utseg_evaluate -p out -g utseg_data/raw/MnM -o scores",
    )
    add_path(parser, "-p", "predictions", "folder with CASE.nii.gz masks")
    add_path(parser, "-g", "references", "reference labels: a folder of CASE.nii.gz, or a raw dataset")
    add_path(parser, "-o", "output", "folder for metrics.csv, summary.json, tables.md and the others")
    add_dataset(parser, "raw dataset that names labels and groups of the references", or_the_only_one=False)
    add_flag(parser, "--only-predicted", "score the cases that have a prediction, ignore the others")
    add_flag(parser, "--only-referenced", "score the predictions that have a reference, ignore the others")
    _add_definition(parser)
    add_workers(parser)
    add_dask(parser)
    return run(parser, _evaluate, argv)


def _add_definition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance-mm", type=float, default=TOLERANCE_MM, metavar="MM", help="tolerance of the surface Dice"
    )
    parser.add_argument(
        "--surface",
        choices=("voxels", "area"),
        default="voxels",
        help="surface elements: voxels, each counting the same (as medpy, MONAI), or weighted by area (as surface-distance)",
    )
    parser.add_argument(
        "--percentile",
        choices=("pooled", "directed"),
        default="pooled",
        help="HD95 over both directions together (as medpy), or the larger of the two (as MONAI, surface-distance)",
    )
    add_flag(
        parser,
        "--as-official-utnet",
        "add official_utnet.csv: scored as the official UTNet does (maximum Hausdorff, 500 mm for empties, 1.2 mm, cropped)",
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    from utseg.evaluate.metrics import Definition
    from utseg.evaluate.pairs import files_by_case, require_masks
    from utseg.evaluate.references import find_references, of_predicted
    from utseg.evaluate.score import evaluate_cases
    from utseg.evaluate.sources import check_references

    if arguments.dask is not None:  # workers have a current folder of their own
        arguments.predictions, arguments.references = (
            arguments.predictions.absolute(),
            arguments.references.absolute(),
        )
    definition = Definition(arguments.surface, arguments.percentile, arguments.tolerance_mm)
    references = find_references(arguments.references, arguments.predictions, named_dataset(arguments))
    require_masks(arguments.predictions)
    extra = files_by_case(arguments.predictions).keys() - {case.case_id for case in references.cases}
    if arguments.only_referenced and extra:
        logger.warning(
            "%d predictions have no reference and are not scored: %s", len(extra), ", ".join(sorted(extra))
        )
    if arguments.only_predicted:
        references = of_predicted(references, arguments.predictions)
    check_references(references.cases, arguments.predictions)
    reads = [arguments.references, arguments.predictions]
    with (
        cluster_of(arguments, writes=arguments.output, reads=reads) as executor,
        explained_by(references.warnings),
    ):
        summary = evaluate_cases(
            references.cases,
            arguments.predictions,
            references.labels,
            arguments.output,
            definition=definition,
            as_official_utnet=arguments.as_official_utnet,
            refuse_extra=not arguments.only_referenced,
            mask_labels=references.mask_labels,
            assumed=references.assumed,
            executor=executor,
            workers=arguments.workers,
        )
    if logger.isEnabledFor(logging.INFO):
        sys.stdout.write(summary_table(summary) + f"\nscores: {arguments.output}\n")


def summary_table(summary: dict[str, Any]) -> str:
    """A plain-text table of the summary: a line a label, means over subjects; mean Dice of every group; bias of clinical measures."""
    from utseg.evaluate.tables import label_cells, number

    widths = {
        "label": 14,
        "subjects": 9,
        "cases": 6,
        "Dice": 8,
        "95 % interval": 18,
        "HD95 mm": 9,
        "ASSD mm": 9,
    }
    widths |= {"HD95 2-D": 9, "missed": 7, "extra": 6, "neither": 8}
    columns = ("dice", "dice±", "hd95_mm", "assd_mm", "slice_hd95_mm")
    rows = [list(widths)]
    rows += [[name, *label_cells(label, columns)] for name, label in summary["all"]["labels"].items()]
    lines = [
        "".join(
            cell.rjust(width) if number_ else cell.ljust(width)
            for number_, (cell, width) in enumerate(zip(row, widths.values(), strict=True))
        )
        for row in rows
    ]
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
