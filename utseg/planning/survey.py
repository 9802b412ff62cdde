"""Count parameters, multiply-accumulates and training memory of each network. Nothing is allocated or trained."""

import inspect
from dataclasses import dataclass
from functools import lru_cache

from utseg.networks import count_parameters, forward_macs, known_settings, network_class
from utseg.planning.memory import StepKind, training_memory
from utseg.planning.task import NetworkTask


@dataclass(frozen=True)
class NetworkFigures:
    """One network. Counts of multiply-accumulates are of one patch's forward pass: as computed here, and in the publication's order of
    operations. `memory_gb` (1024³ bytes) is the peak of a training step at the task's patch and batch. `what` is one sentence.
    """

    name: str
    recipe: str
    parameters: int
    gmac: float
    published_gmac: float
    memory_gb: float
    what: str


def published_task(name: str) -> NetworkTask:
    """One channel, four classes, 256 × 256, batch 32, no auxiliary outputs: the setting of UTNet's publication."""
    return NetworkTask(name, 1, 4, (256, 256), 32, known_settings(name, {"aux_loss": False}))


@lru_cache(maxsize=256)
def survey(task: NetworkTask, kind: StepKind) -> NetworkFigures:
    """The figures of a network, in a second or two. Raises UsageError for an unknown name, SettingError for a wrong setting."""
    import torch

    network = task.build("meta")
    with torch.device("meta"):
        macs = forward_macs(network, torch.empty(1, task.in_channels, *task.patch_size))
    return NetworkFigures(
        name=task.network_name,
        recipe=network.family,
        parameters=count_parameters(network),
        gmac=macs.computed / 1e9,
        published_gmac=macs.published / 1e9,
        memory_gb=training_memory(task, kind).total_gb,
        what=(inspect.getdoc(network_class(task.network_name)) or "").partition("\n")[0],
    )
