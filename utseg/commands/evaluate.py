"""`utseg_evaluate`: scores predictions against references."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utseg.commands.frame import add_workers, home_of, make_parser, run

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_evaluate",
        "Score masks against reference labels: Dice, HD95 and ASSD in native mm, per case and label, summarised per group.",
        "utseg_evaluate -p out -g utseg_data/raw/MnM -o scores",
    )
    parser.add_argument(
        "-p",
        dest="predictions",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with CASE.nii.gz masks",
    )
    parser.add_argument(
        "-g",
        dest="references",
        type=Path,
        required=True,
        metavar="DIR",
        help="reference labels: a folder of CASE.nii.gz, or a raw dataset",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for metrics.csv and summary.json",
    )
    parser.add_argument(
        "-d",
        dest="dataset",
        metavar="NAME",
        help="raw dataset that names labels and groups",
        default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--only-predicted",
        action="store_true",
        help="score the cases that have a prediction, ignore the others",
    )
    parser.add_argument(
        "--only-referenced",
        action="store_true",
        help="score the predictions that have a reference, ignore the others",
    )
    add_workers(parser)
    return run(parser, _evaluate, argv)


def _evaluate(arguments: argparse.Namespace) -> None:
    from utseg.evaluate.references import (
        find_references,
        of_predicted,
        require_references,
        unmatched_predictions,
    )
    from utseg.evaluate.score import evaluate_cases
    from utseg.rawdata import open_dataset

    dataset = None
    if hasattr(arguments, "dataset"):
        name, folder = home_of(arguments).raw_dataset(arguments.dataset)
        dataset = open_dataset(folder, name)
    references = find_references(arguments.references, arguments.predictions, dataset)
    if not arguments.only_referenced:
        require_references(references.cases, arguments.predictions)
    elif extra := unmatched_predictions(references.cases, arguments.predictions):
        logger.warning(
            "%d predictions have no reference and are not scored: %s", len(extra), ", ".join(extra)
        )
    if arguments.only_predicted:
        references = of_predicted(references, arguments.predictions)
    summary = evaluate_cases(
        references.cases,
        arguments.predictions,
        references.labels,
        arguments.output,
        workers=getattr(arguments, "workers", None),
    )
    if logger.isEnabledFor(logging.INFO):
        sys.stdout.write(summary_table(summary) + f"\nscores: {arguments.output}\n")


def summary_table(summary: dict[str, Any]) -> str:
    """A plain-text table of the summary: one line a label, over all cases; then the mean Dice of every group."""
    lines = [f"{'label':<14}{'n':>5}{'Dice':>8}{'95 % interval':>18}{'HD95 mm':>9}{'ASSD mm':>9}{'empty':>7}"]
    for name, label in summary["all"]["labels"].items():
        interval = label["dice"]["interval95"]
        lines.append(
            f"{name:<14}{label['dice']['n']:>5}{_number(label['dice']['mean'], 3):>8}"
            f"{f'{interval[0]:.3f} … {interval[1]:.3f}' if interval else '–':>18}"
            f"{_number(label['hd95_mm']['mean'], 2):>9}{_number(label['assd_mm']['mean'], 2):>9}{sum(label['empty'].values()):>7}"
        )
    for column, groups in summary["groups"].items():
        if len(groups) > 1:
            values = "  ".join(
                f"{value} {_number(group['mean_dice'], 3)} (n={group['cases']})"
                for value, group in groups.items()
            )
            lines.append(f"mean Dice by {column}: {values}")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
