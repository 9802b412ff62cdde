"""Muon: SGD with momentum in which the update of a weight matrix is made orthogonal, so that all its directions learn alike.

Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024. A convolution's weight is the matrix (out, k · k · in).
torch.optim.Muon takes matrices only, and its iterations cost about three times as much for convolutions.

Axes: O output channels, N what each of them reads.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

ORTHOGONAL = "orthogonal"
"""In each parameter group: whether its parameters are matrices with orthogonal updates."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that takes singular values of 0.01 … 1 to 0.7 … 1.2 in STEPS rounds (Jordan et al.)."""
STEPS = 5
SMALLEST = 1e-7
"""Norm below which updates are not made as long as others, as in torch.optim.Muon: what momentum holds of past gradients fades."""


class Muon(Optimizer):
    """Groups with ORTHOGONAL are stepped by `orthogonalised` updates and lose lr · weight_decay of themselves; the others are SGD's."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, *, nesterov: bool
    ) -> None:
        """Each group says ORTHOGONAL and weight_decay."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Steps every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        orthogonal, decay, rate = group[ORTHOGONAL], group["weight_decay"], group["lr"]
        gradient = parameter.grad if orthogonal else parameter.grad.add(parameter, alpha=decay)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
        if orthogonal:
            update = orthogonalised(update)
            parameter.mul_(1 - rate * decay)
        parameter.add_(update, alpha=-rate)


def orthogonalised(update: Tensor) -> Tensor:
    """The nearest matrix with singular values of about 1, times √(O / N) where it is taller than wide; of less than SMALLEST, less.

    `update`: (O, I) or (O, I, …), whose axes from the second on are N. Newton-Schulz iterations on the smaller Gram matrix, which are the
    same polynomial of the matrix in fewer multiplications; in float32, as they cancel.
    """
    as_stored = update.movedim(1, -1)  # weights of convolutions are stored channels-last
    matrix_ON = as_stored.flatten(1).float()
    height, width = matrix_ON.shape
    wide = matrix_ON.T if height > width else matrix_ON
    wide = wide / wide.norm().clamp_min(SMALLEST)
    gram = wide @ wide.T
    product = factor = _factor(gram)
    for _ in range(STEPS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    found = product @ wide
    found_ON = (found.T if height > width else found) * max(1.0, height / width) ** 0.5
    orthogonal: Tensor = found_ON.reshape(as_stored.shape).movedim(-1, 1).to(update.dtype)
    return orthogonal


def _factor(gram_OO: Tensor) -> Tensor:
    """What one round multiplies a matrix with that Gram matrix by."""
    a, b, c = COEFFICIENTS
    factor_OO = torch.addmm(gram_OO, gram_OO, gram_OO, beta=b, alpha=c)
    factor_OO.diagonal().add_(a)
    return factor_OO
