"""Memory and work that a training step needs, counted on tensors without values rather than guessed from a constant.

float32 and SGD with momentum are assumed; mixed precision needs less. The device's context, workspaces of convolution libraries and
fragmentation come on top: planners leave room for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utseg.planning.dry_run import dry_run, taken_settings

GB = 1024**3
MEASURED_BATCH = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Gigabytes (1024³ bytes). `activations_gb` is the peak of all that a step holds besides parameters, their gradients and momentum."""

    parameters_gb: float
    gradients_gb: float
    optimizer_gb: float
    activations_gb: float

    @property
    def total_gb(self) -> float:
        """All at once, as in the middle of a training step."""
        return self.parameters_gb + self.gradients_gb + self.optimizer_gb + self.activations_gb

    def describe(self) -> str:
        """The parts in words, for a reason."""
        return (
            f"parameters {self.parameters_gb:.2f}, gradients {self.gradients_gb:.2f}, momentum {self.optimizer_gb:.2f}, "
            f"activations {self.activations_gb:.2f} GB"
        )


def training_memory(
    network_name: str,
    *,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    batch_size: int,
    settings: Mapping[str, Any],
) -> MemoryEstimate:
    """What a training step of a registered network needs. Settings that the network does not have are left out.

    Activations are measured for a batch of two and grow with the batch in proportion, so any batch size costs one dry run of the network.
    """
    figures = dry_run(
        network_name,
        in_channels=in_channels,
        num_classes=num_classes,
        patch_size=patch_size,
        batch_size=MEASURED_BATCH,
        settings=settings,
    )
    trainable = figures.trainable_bytes / GB
    return MemoryEstimate(
        parameters_gb=figures.state_bytes / GB,
        gradients_gb=trainable,
        optimizer_gb=trainable,
        activations_gb=figures.peak_bytes / MEASURED_BATCH * batch_size / GB,
    )


def forward_gmac(
    network_name: str,
    *,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    settings: Mapping[str, Any],
) -> float:
    """10⁹ multiply-accumulates of one patch's forward pass, auxiliary outputs too. A training step takes about three times as many.

    Settings that the network does not have are left out. Raises SettingError for a wrong one.
    """
    import torch

    from utseg.networks import build_network, forward_macs

    with torch.device("meta"):
        network = build_network(
            network_name,
            in_channels=in_channels,
            num_classes=num_classes,
            **taken_settings(network_name, settings),
        )
        image_BCHW = torch.empty(1, in_channels, *patch_size)
    return forward_macs(network, image_BCHW).computed / 1e9
