"""Networks by name, under one contract.

A network is found through the entry points `utseg.networks`, is built with keyword-only settings, maps an image (B, C, H, W) of any
size to logits (B, classes, H, W), and has `main_logits(x)` for inference, which leaves the auxiliary heads out. Importing this package
does not import torch. It does not train, and knows no checkpoints of ours: those are `utseg.training`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from utseg.errors import SettingError
from utseg.extensions import find, names
from utseg.settings import expectation

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from utseg.networks.macs import Macs
    from utseg.networks.network import SegmentationNetwork


def network_names() -> list[str]:
    """The registered names, sorted."""
    return names("networks")


def network_settings(name: str) -> dict[str, Any]:
    """What `--set network.KEY=VALUE` may set, with each default. UsageError for an unknown network."""
    network = find("networks", name)
    given = {"in_channels", "num_classes", *getattr(network, "fixed", ())}
    parameters = inspect.signature(network).parameters.values()
    settable = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given)
    return {p.name: None if p.default is p.empty else p.default for p in settable}


def known_settings(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that a network has settings for, by name."""
    return {key: values[key] for key in network_settings(name) if key in values}


def network_class(name: str) -> type[SegmentationNetwork]:
    """The registered network. Raises UsageError for an unknown name, SettingError for what is no network of ours. Imports torch."""
    from utseg.networks.network import SegmentationNetwork

    registered = find("networks", name)
    if not (isinstance(registered, type) and issubclass(registered, SegmentationNetwork)):
        raise SettingError(
            f"network {name} is {registered!r}; it has to derive from utseg.networks.network.SegmentationNetwork"
        )
    return registered


def build_network(name: str, *, in_channels: int, num_classes: int, **settings: Any) -> SegmentationNetwork:
    """A freshly initialised network, in training mode, on the CPU.

    Settings are those that `network_settings(name)` lists, checked by the types that the network gives them. Raises UsageError for an
    unknown name, SettingError for a wrong key or value; both say what there is instead.
    """
    known = network_settings(name)
    for key in settings:
        if key not in known:
            raise SettingError(
                f"network {name} has no setting {key!r}; there are: {', '.join(sorted(known)) or 'none'}"
            )
    network, checked = network_class(name), {}
    for key, value in {"in_channels": in_channels, "num_classes": num_classes, **settings}.items():
        try:
            checked[key] = _checked(_setting_types(name).get(key, ANYTHING), value)
        except ValidationError as error:
            problem = error.errors()[0]
            path, found = ".".join(map(str, (key, *problem["loc"]))), problem["input"]
            expected = expectation(problem).replace("Input should be", "it must be")
            raise SettingError(f"{path} is {found!r}; {expected}") from None
    built: SegmentationNetwork = network(**checked, **network.fixed)  # type: ignore[call-arg]
    built.prefer_channels_last()
    return built


def _checked(types: TypeAdapter[Any], value: Any) -> Any:
    """The value; of a list, which is what JSON has, a tuple unless the network takes a list. Nothing else is converted."""
    if isinstance(value, list):
        with suppress(ValidationError):
            return types.validate_python(value)
        value = tuple(value)
    return types.validate_python(value)


@cache
def _setting_types(name: str) -> dict[str, TypeAdapter[Any]]:
    network = network_class(name)
    try:
        hints = get_type_hints(network.__init__, include_extras=True)
    except (
        NameError,
        AttributeError,
    ):  # a package of somebody else may import its types for type checkers only
        hints = {}
    config = ConfigDict(arbitrary_types_allowed=True, strict=True, allow_inf_nan=False)
    parameters = inspect.signature(network).parameters
    return {key: TypeAdapter(hints.get(key, Any), config=config) for key in parameters}


def import_official_state_dict(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill a UTNet with the weights of an official checkpoint; see `utseg.networks.pretrained.official`."""
    from utseg.networks.pretrained.official import import_official_state_dict as fill

    fill(network, state_dict)


def count_parameters(network: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def forward_macs(network: nn.Module, x_BCHW: Tensor) -> Macs:
    """Multiply-accumulates of one forward pass, as computed here and as published; see `utseg.networks.macs`."""
    from utseg.networks.macs import forward_macs as count

    return count(network, x_BCHW)
