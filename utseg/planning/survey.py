"""What networks are and cost: parameters, multiply-accumulates, peak memory of a training step. Nothing is allocated or trained."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utseg.extensions import find
from utseg.planning.memory import training_memory
from utseg.planning.plan import Plan


@dataclass(frozen=True)
class Task:
    """What a network is sized for. `settings` are values that networks take where they have settings of those names."""

    in_channels: int
    num_classes: int
    patch_size: tuple[int, int]
    batch_size: int
    settings: Mapping[str, Any]


PUBLISHED_TASK = Task(1, 4, (256, 256), 32, {"aux_loss": False})
"""One channel, four classes, 256 × 256, batch 32: the setting of UTNet's publication, each network with its own defaults."""


@dataclass(frozen=True)
class NetworkFigures:
    """One network. Counts of multiply-accumulates are of one patch's forward pass: as computed here, and in the publication's order of
    operations. `memory_gb` (1024³ bytes) is the peak of a float32 training step at the task's patch and batch. `what` is one sentence.
    """

    name: str
    recipe: str
    parameters: int
    gmac: float
    published_gmac: float
    memory_gb: float
    what: str


def task_of(plan: Plan) -> Task:
    """What a plan asks of a network."""
    return Task(
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        patch_size=plan.patch_size,
        batch_size=plan.batch_size,
        settings=values_for_network(plan),
    )


def values_for_network(plan: Plan) -> dict[str, Any]:
    """What a network may take from a plan, by the names of its settings: the planned network, and what it is to look at."""
    return plan.network.model_dump() | {
        "patch_size": plan.patch_size,
        "spacing_yx_mm": plan.preprocessing.spacing_yx_mm,
    }


def survey(name: str, task: Task) -> NetworkFigures:
    """The figures of a registered network, in a second or two. Raises UsageError for an unknown name, SettingError for a wrong setting."""
    import torch

    from utseg.networks import build_network, count_parameters, forward_macs
    from utseg.planning.dry_run import taken_settings

    registered = find("networks", name)
    with torch.device("meta"):
        network = build_network(
            name,
            in_channels=task.in_channels,
            num_classes=task.num_classes,
            **taken_settings(name, task.settings),
        )
        macs = forward_macs(network, torch.empty(1, task.in_channels, *task.patch_size))
    memory = training_memory(
        name,
        in_channels=task.in_channels,
        num_classes=task.num_classes,
        patch_size=task.patch_size,
        batch_size=task.batch_size,
        settings=task.settings,
    )
    return NetworkFigures(
        name=name,
        recipe=network.family,
        parameters=count_parameters(network),
        gmac=macs.computed / 1e9,
        published_gmac=macs.published / 1e9,
        memory_gb=memory.total_gb,
        what=(inspect.getdoc(registered) or "").partition("\n")[0],
    )
