"""`utseg_networks`: the table of networks, with what each takes."""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from utseg.commands.cli import console, home_of, make_parser, run
from utseg.commands.options import add_dataset, add_flag, add_plan, add_workers

if TYPE_CHECKING:
    from utseg.planning.survey import NetworkFigures
    from utseg.planning.task import NetworkTask


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_networks",
        "The networks that utseg_train -m knows: parameters, multiply-accumulates of a forward pass, peak memory of a training step. "
        "Without a dataset: at the setting of UTNet's publication, one channel, four classes, 256 × 256, batch 32, no auxiliary outputs.",
        "utseg_networks -d MnM -pl cpu",
    )
    add_dataset(
        parser,
        "preprocessed dataset: as the network would be with its plan's patch, batch and sizes",
        or_the_only_one=False,
    )
    add_plan(parser)
    parser.add_argument("-m", dest="models", nargs="+", metavar="NETWORK", help="these only")
    add_flag(parser, "--csv", "comma-separated values in place of the table")
    add_workers(parser)
    return run(parser, _networks, argv)


def _networks(arguments: argparse.Namespace) -> int:
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
        _write_csv(rows)
    else:
        _print_table(rows, title)
    return 0


def _tasks(arguments: argparse.Namespace, names: Sequence[str]) -> "tuple[list[NetworkTask], str]":
    """What each network is sized for, and in words."""
    from utseg.errors import UsageError
    from utseg.home import choose_plan_folder
    from utseg.planning.plan import read_plan
    from utseg.planning.survey import published_task
    from utseg.planning.task import for_network, planned_task

    if arguments.dataset is None:
        if arguments.planner is not None:
            raise UsageError(f"-pl {arguments.planner}: say with -d which dataset's plan that is")
        tasks = [published_task(name) for name in names]
        return tasks, _in_words(tasks[0])
    dataset, preprocessed = home_of(arguments).preprocessed_dataset(arguments.dataset)
    folder = choose_plan_folder(preprocessed, arguments.planner, "2d")
    plan = read_plan(folder)
    tasks = [planned_task(for_network(plan, name)) for name in names]
    return tasks, f"{dataset}, {folder.name}: {_in_words(tasks[0])}"


def _in_words(task: "NetworkTask") -> str:
    height, width = task.patch_size
    channels = "1 channel" if task.in_channels == 1 else f"{task.in_channels} channels"
    return f"{channels}, {task.num_classes} classes, {height} × {width} pixels, batch {task.batch_size}"


def _write_csv(rows: "Sequence[NetworkFigures]") -> None:
    writer = csv.DictWriter(sys.stdout, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row))


def _print_table(rows: "Iterable[NetworkFigures]", title: str) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("network", no_wrap=True)
    for heading in ("parameters", "GMAC", "published", "training GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            f"{row.gmac:.1f}",
            f"{row.published_gmac:.1f}",
            f"{row.memory_gb:.1f}",
            row.recipe,
            row.what,
        )
    terminal = console()
    terminal.print(table)
    terminal.print(
        "GMAC: 10⁹ multiply-accumulates of one forward pass as computed here; published: in the publication's order of operations.\n"
        "training GB: peak of a float32 step at this batch with the recipe's optimizer, as on a CPU, without the device's own overhead."
    )
