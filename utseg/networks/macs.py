"""Multiply-accumulates of a network's forward pass, as this project computes it and as its publication would.

Counted are convolutions and matrix products, those of attention too; normalisation, activations and resizing are not, as is the custom.
Imports torch, allocates and computes nothing: the pass runs on the meta device.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Macs(NamedTuple):
    """`computed`: what is done here. `published`: what the publication's order of operations takes for the same result."""

    computed: int
    published: int


def forward_macs(network: nn.Module, x_BCHW: Tensor) -> Macs:
    """Multiply-accumulates of one forward pass in evaluation mode, for the whole batch, auxiliary outputs too where the network has them.

    Neither the network nor the image is touched; both may be on any device, the meta device included. A module that reorders operations
    to spare work has a method `macs_spared(*inputs) -> int`, given the inputs of its forward: what the published order would cost more.
    """
    state = {
        name: tensor.detach().to("meta")
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    spared = 0

    def note(module: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        nonlocal spared
        spared += module.macs_spared(*inputs)  # type: ignore[operator]

    hooks = [
        module.register_forward_hook(note) for module in network.modules() if hasattr(module, "macs_spared")
    ]
    trained = [module for module in network.modules() if module.training]
    counter = FlopCounterMode(display=False)
    try:
        network.eval()
        with torch.no_grad(), counter:
            torch.func.functional_call(network, state, (x_BCHW.detach().to("meta"),))
    finally:
        for hook in hooks:
            hook.remove()
        for module in trained:
            module.training = True
    computed = counter.get_total_flops() // 2
    return Macs(computed, computed + spared)
