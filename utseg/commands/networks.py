"""`utseg_networks`: the table of networks, with what each takes."""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from utseg.commands.cli import run, show_table
from utseg.commands.options import Parser

if TYPE_CHECKING:
    from utseg.planning.survey import NetworkFigures

HEADS = ("network", "parameters", "GMAC", "published", "training GB", "recipe", "what it is")
LEGEND = (
    "GMAC: 10⁹ multiply-accumulates of one forward pass as computed here; published: in the publication's order of operations.\n"
    "training GB: peak of a float32 step at this batch with the recipe's optimizer, as on a CPU, without the device's own overhead."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_networks",
        "The networks that utseg_train -m knows: parameters, multiply-accumulates of a forward pass, peak memory of a training step. "
        "Without a dataset: at the setting of UTNet's publication, one channel, four classes, 256 × 256, batch 32, no auxiliary outputs.",
        "utseg_networks -d MnM -pl cpu",
    )
    dataset = "preprocessed dataset: as the network would be with its plan's patch, batch and sizes"
    parser.dataset(dataset, or_the_only_one=False)
    parser.plan()
    parser.value("-m", "models", "NETWORK", "these only", nargs="+")
    parser.flag("--csv", "comma-separated values in place of the table")
    parser.workers()
    return run(parser, _networks, argv)


def _networks(arguments: argparse.Namespace) -> None:
    from utseg.steps.surveying import networks

    table = networks(
        arguments.models or (),
        dataset=arguments.dataset,
        home=arguments.home,
        planner=arguments.planner,
        workers=arguments.workers,
    )
    if arguments.csv:
        writer = csv.DictWriter(sys.stdout, list(asdict(table.rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, table.rows))
    else:
        show_table(table.setting, HEADS, map(_row, table.rows), range(1, 5), LEGEND)


def _row(row: "NetworkFigures") -> list[str]:
    figures = f"{row.gmac:.1f}", f"{row.published_gmac:.1f}", f"{row.memory_gb:.1f}"
    return [row.name, f"{row.parameters:,}", *figures, row.recipe, row.what]
