"""A running average of the weights over the steps of training (`weight_average`), which is then what is validated and saved.

The power-function average of Karras et al., *Analyzing and Improving the Training Dynamics of Diffusion Models*, CVPR 2024:
θ̂(t) = β(t)·θ̂(t−1) + (1 − β(t))·θ(t) with β(t) = (1 − 1/t)^(γ+1). Its width is a fixed share of the training so far, so that a
schedule of a hundred steps and one of a hundred thousand need no other setting, and no warm-up: β(1) is 0, and early weights are forgotten.

Statistics of batch normalisation are averaged as the weights are: they cost no passes over the data, and need nothing when resumed.
"""

import copy
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """`network` is a copy of the one that is trained, with averaged weights. `steps` counts what went into it."""

    def __init__(self, trained: Network, width: float) -> None:
        """`width`: the standard deviation of the average over steps, relative to their number; 0.289 is the plain mean of all."""
        self.network: Network = copy.deepcopy(trained).requires_grad_(False)
        self.steps = 0
        self._exponent = exponent(width)

    def state_dict(self) -> dict[str, Any]:
        """As tensors and plain types."""
        return {"steps": self.steps, "network": dict(self.network.state_dict())}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.network.load_state_dict(saved["network"])
        self.steps = saved["steps"]

    @torch.no_grad()
    def add(self, trained: nn.Module) -> None:
        """Takes in the weights after one more step."""
        self.steps += 1
        share = 1 - (1 - 1 / self.steps) ** (self._exponent + 1)
        averaged, latest = tensors(self.network), tensors(trained)
        torch._foreach_lerp_(averaged, latest, share)
        for mine, its in zip(self.network.buffers(), trained.buffers(), strict=True):
            if not mine.is_floating_point():
                mine.copy_(its)


def tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers that are numbers, in order."""
    return [
        *network.parameters(),
        *(buffer for buffer in network.buffers() if buffer.is_floating_point()),
    ]


def exponent(width: float) -> float:
    """γ of an average whose relative standard deviation is `width`: √(γ+1) / ((γ+2)·√(γ+3)) = width, the largest root."""
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
