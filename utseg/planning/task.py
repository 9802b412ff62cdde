"""`NetworkTask`: all that is needed to build a network, and to count its memory and work."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from utseg.errors import SettingError
from utseg.networks import build_network, known_settings
from utseg.planning.plan import Plan

if TYPE_CHECKING:
    from utseg.networks.network import SegmentationNetwork


@dataclass(frozen=True)
class NetworkTask:
    """A network of the registry, with settings that it has, and the batches that it trains on: patches are (y, x) in pixels."""

    network_name: str
    in_channels: int
    num_classes: int
    patch_size: tuple[int, int]
    batch_size: int
    settings: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash(json.dumps(asdict(self), sort_keys=True))

    def build(self, device: str = "cpu") -> "SegmentationNetwork":
        """The network, freshly initialised, in training mode; on "meta" it takes no memory. Raises SettingError for a wrong setting."""
        import torch

        for key in ("in_channels", "num_classes"):
            if key in self.settings:
                raise SettingError(
                    f"network {self.network_name} has no setting {key!r}: it follows from the data"
                )
        with torch.device(device):
            return build_network(
                self.network_name, in_channels=self.in_channels, num_classes=self.num_classes, **self.settings
            )

    def input_axes(self) -> dict[str, tuple[int, ...]]:
        """The tensors of the network that have an entry for each input channel, by name, and along which axes.

        Found by comparing it for two and for three channels, as some networks repeat a single one.
        """
        two, three = (replace(self, in_channels=count).build("meta").state_dict() for count in (2, 3))
        found = {
            name: tuple(axis for axis, size in enumerate(tensor.shape) if size != three[name].shape[axis])
            for name, tensor in two.items()
        }
        return {name: axes for name, axes in found.items() if axes}


def network_task(
    network_name: str,
    settings: Mapping[str, Any],
    *,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    spacing_yx_mm: tuple[float, float],
    batch_size: int,
) -> NetworkTask:
    """The task of a network. One that has settings for patch and spacing is told them."""
    sizes = known_settings(network_name, {"patch_size": patch_size, "spacing_yx_mm": spacing_yx_mm})
    return NetworkTask(network_name, in_channels, num_classes, patch_size, batch_size, {**sizes, **settings})


def planned_task(plan: Plan) -> NetworkTask:
    """What a plan asks of its network."""
    return network_task(
        plan.network_name,
        plan.network,
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        patch_size=plan.patch_size,
        spacing_yx_mm=plan.preprocessing.spacing_yx_mm,
        batch_size=plan.batch_size,
    )


def for_network(plan: Plan, network_name: str) -> Plan:
    """The plan for another network, which takes the settings of the planned one that it has too, by name."""
    if network_name == plan.network_name:
        return plan
    network = known_settings(network_name, plan.network)
    left_out = {f"network.{key}" for key in plan.network.keys() - network.keys()}
    reasons = {key: reason for key, reason in plan.reasons.items() if key not in left_out}
    return plan.model_copy(update={"network_name": network_name, "network": network, "reasons": reasons})
