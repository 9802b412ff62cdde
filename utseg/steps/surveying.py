"""`networks`: what each network takes, at the setting of UTNet's publication or of a dataset's plan."""

from collections.abc import Sequence
from dataclasses import dataclass

from utseg.compute import pool
from utseg.errors import UsageError, number_of
from utseg.extensions import find
from utseg.home import FilePath, Home, choose_plan_folder, split_plan_name
from utseg.networks import network_names
from utseg.planning.memory import StepKind
from utseg.planning.override import override_for
from utseg.planning.plan import read_plan
from utseg.planning.survey import NetworkFigures, published_task, survey
from utseg.planning.task import NetworkTask, planned_task
from utseg.training.recipe import find_recipe


@dataclass(frozen=True)
class NetworksTable:
    """The figures of networks, the smallest first, and in words the input that they are of."""

    setting: str
    rows: tuple[NetworkFigures, ...]


def networks(
    names: Sequence[str] = (),
    *,
    dataset: str | None = None,
    home: FilePath | None = None,
    planner: str | None = None,
    workers: int | None = None,
) -> NetworksTable:
    """Parameters, 10⁹ multiply-accumulates of a forward pass, and GB of a training step of the named networks, or of all.

    dataset: preprocessed, below `home`: as the networks would be with its plan (`planner`). Without it: one channel, four classes,
    256 × 256 pixels, batch 32. Raises UsageError for names that do not exist, and for a planner without a dataset.
    """
    names = list(dict.fromkeys(names or network_names()))
    for name in names:
        find("networks", name)
    tasks, where = _tasks(names, dataset, home, planner)
    kinds = [StepKind(find_recipe(name).optimizer.name) for name in names]
    with pool.process_pool(
        min(pool.available_cores() if workers is None else workers, len(names))
    ) as executor:
        rows = sorted(executor.map(survey, tasks, kinds), key=lambda row: (row.parameters, row.name))
    one = tasks[0]
    channels, (height, width) = number_of(one.in_channels, "channel"), one.patch_size
    setting = f"{channels}, {one.num_classes} classes, {height} × {width} pixels, batch {one.batch_size}"
    return NetworksTable(f"{where}{setting}", tuple(rows))


def _tasks(
    names: Sequence[str], dataset: str | None, home: FilePath | None, planner: str | None
) -> tuple[list[NetworkTask], str]:
    """What each network is sized for, and which plan's that is."""
    if dataset is None:
        if planner is not None:
            raise UsageError(f"-pl {planner}: say with -d which dataset's plan that is")
        return [published_task(name) for name in names], ""
    found, preprocessed = Home.locate(home).preprocessed_dataset(dataset)
    planned_by, configuration = split_plan_name(planner or "")
    folder = choose_plan_folder(preprocessed, planned_by or None, configuration)
    plan = read_plan(folder)
    return [planned_task(override_for(plan, name, {})) for name in names], f"{found}, {folder.name}: "
