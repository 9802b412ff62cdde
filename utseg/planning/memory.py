"""Memory and work that a training step needs, counted on tensors without values rather than guessed from a constant.

The device's context, workspaces of convolution libraries and fragmentation come on top: USABLE_SHARE leaves room for them.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from utseg.planning.dry_run import dry_run
from utseg.planning.task import NetworkTask

GB = 1024**3
MEASURED_BATCH = 2
USABLE_SHARE = 0.9


@dataclass(frozen=True)
class StepKind:
    """How a network is trained, as far as the memory of a step depends on it. `averaged`: a running average of the weights is held.

    `precision`: what the network computes in: float32, bfloat16 or float16.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    averaged: bool = False
    precision: str = "float32"
    gpu: bool = False

    def in_words(self) -> str:
        """For a reason."""
        return f"{self.optimizer} in {self.precision} on a {'GPU' if self.gpu else 'CPU'}"


@dataclass(frozen=True)
class MemoryEstimate:
    """Gigabytes (1024³ bytes). `weights_gb`: parameters and buffers, and their average; `optimizer_gb`: momentum, of AdamW two moments.

    `activations_gb` is the peak of all that a step holds besides.
    """

    weights_gb: float
    gradients_gb: float
    optimizer_gb: float
    activations_gb: float

    @property
    def total_gb(self) -> float:
        """All at once, as in the middle of a training step."""
        return self.weights_gb + self.gradients_gb + self.optimizer_gb + self.activations_gb

    def in_words(self) -> str:
        """The parts, for a reason."""
        return (
            f"weights {self.weights_gb:.2f}, gradients {self.gradients_gb:.2f}, optimizer {self.optimizer_gb:.2f}, "
            f"activations {self.activations_gb:.2f} GB"
        )


def training_memory(task: NetworkTask, kind: StepKind) -> MemoryEstimate:
    """What a training step needs. Raises SettingError for a wrong setting.

    Activations are measured for a batch of two and grow with the batch in proportion, so any batch size costs one dry run of the network.
    """
    figures = dry_run(
        replace(task, batch_size=MEASURED_BATCH), half=kind.precision != "float32", gpu=kind.gpu
    )
    trainable = figures.trainable_bytes / GB
    return MemoryEstimate(
        weights_gb=figures.state_bytes / GB * (1 + kind.averaged),
        gradients_gb=trainable,
        optimizer_gb=trainable * (2 if kind.optimizer == "adamw" else 1),
        activations_gb=figures.peak_bytes / MEASURED_BATCH * task.batch_size / GB,
    )


def largest_batch(task: NetworkTask, kind: StepKind, memory_gb: float, *, step: int = 1) -> int:
    """The largest batch, up to the task's, in steps, that the usable share of the memory holds; 0 where it holds none."""
    sizes = range(task.batch_size, 0, -step)
    usable = USABLE_SHARE * memory_gb
    fitting = (
        size for size in sizes if training_memory(replace(task, batch_size=size), kind).total_gb <= usable
    )
    return next(fitting, 0)


@lru_cache(maxsize=256)
def forward_gmac(task: NetworkTask) -> float:
    """10⁹ multiply-accumulates of one patch's forward pass, auxiliary outputs too. A training step takes about three times as many."""
    import torch

    from utseg.networks import forward_macs

    with torch.device("meta"):
        image_BCHW = torch.empty(1, task.in_channels, *task.patch_size)
    return forward_macs(task.build("meta"), image_BCHW).computed / 1e9
