"""`utseg_networks`: the table of networks, with what each takes."""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from utseg.commands.cli import home_of, run, show_table
from utseg.commands.options import Parser
from utseg.errors import UsageError, number_of

if TYPE_CHECKING:
    from utseg.planning.survey import NetworkFigures
    from utseg.planning.task import NetworkTask

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
    from utseg.compute.pool import available_cores, process_pool
    from utseg.extensions import find
    from utseg.networks import network_names
    from utseg.planning.memory import StepKind
    from utseg.planning.survey import survey
    from utseg.training.recipe import find_recipe

    names = list(dict.fromkeys(arguments.models or network_names()))
    for name in names:
        find("networks", name)
    tasks, title = _tasks(arguments, names)
    kinds = [StepKind(find_recipe(name).optimizer.name) for name in names]
    workers = min(arguments.workers or available_cores(), len(names))
    with process_pool(workers) as executor:
        rows = list(executor.map(survey, tasks, kinds))
    rows.sort(key=lambda row: (row.parameters, row.name))
    if arguments.csv:
        writer = csv.DictWriter(sys.stdout, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    else:
        show_table(title, HEADS, map(_row, rows), range(1, 5), LEGEND)


def _tasks(arguments: argparse.Namespace, names: Sequence[str]) -> "tuple[list[NetworkTask], str]":
    """What each network is sized for, and in words."""
    from utseg.home import choose_plan_folder, split_plan_name
    from utseg.planning.plan import read_plan
    from utseg.planning.survey import published_task
    from utseg.planning.task import for_network, planned_task

    where = ""
    if arguments.dataset is not None:
        dataset, preprocessed = home_of(arguments).preprocessed_dataset(arguments.dataset)
        planner, configuration = split_plan_name(arguments.planner or "")
        folder = choose_plan_folder(preprocessed, planner or None, configuration)
        plan = read_plan(folder)
        tasks = [planned_task(for_network(plan, name)) for name in names]
        where = f"{dataset}, {folder.name}: "
    elif arguments.planner is None:
        tasks = [published_task(name) for name in names]
    else:
        raise UsageError(f"-pl {arguments.planner}: say with -d which dataset's plan that is")
    one = tasks[0]
    height, width = one.patch_size
    channels = number_of(one.in_channels, "channel")
    return (
        tasks,
        f"{where}{channels}, {one.num_classes} classes, {height} × {width} pixels, batch {one.batch_size}",
    )


def _row(row: "NetworkFigures") -> list[str]:
    figures = f"{row.gmac:.1f}", f"{row.published_gmac:.1f}", f"{row.memory_gb:.1f}"
    return [row.name, f"{row.parameters:,}", *figures, row.recipe, row.what]
