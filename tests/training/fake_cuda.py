"""Runs the training and the prediction step of networks on tensors that claim to be on a GPU, and prints what went wrong, as JSON.

    LD_PRELOAD=LIBRARY PYTHONPATH=tests python tests/training/fake_cuda.py [NETWORK …]

LIBRARY is `fake_cuda.cpp`, compiled as `test_fake_cuda.py` does; without names, all networks. Tensors have shape, type and device but no
values: an operation that mixes devices, or that waits for a value, raises. Copies to the host are counted.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from networks.small import build_flat
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim.optimizer import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode

from utseg.augment.loader import Batch
from utseg.device import best_precision
from utseg.inference.views import View
from utseg.inference.windows import predict_volumes
from utseg.networks import network_names
from utseg.predict.accelerate import folded
from utseg.training import step
from utseg.training.average import WeightAverage
from utseg.training.optimizer import make_optimizer
from utseg.training.recipe import find_recipe

GPU = torch.device("cuda", 0)
SIZE = 32
PINNED: list[Tensor] = []


class Copies(TorchDispatchMode):
    """Counts what is copied from the GPU to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.to_host = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__.startswith(("to.", "_to_copy.", "copy_.")):
            target, source = args[:2] if func.__name__.startswith("copy_") else (result, args[0])
            self.to_host += (source.device.type, target.device.type) == ("cuda", "cpu")
        return result


def pretend(bfloat16: bool) -> None:
    """An Ampere card, or a Turing one. What fake tensors cannot do does nothing: page-locking, and arrays of their values."""
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: bfloat16  # autocast asks this
    torch.cuda.get_device_capability = lambda device: (8, 0) if bfloat16 else (7, 5)
    torch.autograd.grad_mode.set_multithreading_enabled(False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    nn.Module.to = lambda self, device: self if device == GPU else None
    Tensor.pin_memory = lambda self: PINNED.append(self) or self
    _foreach_supported_types.append(FakeTensor)
    FakeTensor.numpy = lambda self: np.zeros(self.shape, np.float32)


def train(network: nn.Module, name: str) -> dict[str, Any]:
    """A step with all that belongs to it. The only wait is that for the loss."""
    recipe, reads = find_recipe(name), []

    def read(values: Tensor) -> list[float]:
        assert values.device == GPU, values.device
        reads.append(values)
        return [1.0] * len(values)

    step.read = read
    network.train()
    optimizer = make_optimizer(network, recipe.optimizer, pretrained=False)
    average = WeightAverage(network, 0.1)
    scaler = step.make_scaler("auto", GPU)
    batch = Batch(np.zeros((2, 1, SIZE, SIZE), np.float32), np.zeros((2, SIZE, SIZE), np.uint8), (), 0)
    with Copies() as copies:
        step.train_step(network, optimizer, step.pinned(batch), recipe, GPU, scaler=scaler)
        average.add(network)
    moved = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert {x.device for x in (*network.state_dict().values(), *moved)} == {GPU}
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in network.parameters())
    return {"reads": len(reads), "to_host": copies.to_host}


def predict(network: nn.Module, views: Sequence[View] = (View(),)) -> dict[str, Any]:
    """A batch of windows, folded."""
    image_CZYX = np.zeros((1, 2, SIZE, SIZE), np.float32)
    sizes = {"patch_size": (SIZE, SIZE), "batch_size": 2, "num_classes": 4, "step_size": 0.5}
    settings = {"device": GPU, "views": views, "precision": best_precision(GPU)}
    with Copies() as copies, torch.no_grad():
        list(predict_volumes([folded(network)], [image_CZYX], **sizes, **settings))
    return {"to_host": copies.to_host}


def spoil(fault: Callable[[Tensor], Any], network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Does to the network's input what must not be done in a step."""
    fault(inputs[0])


FAULTS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor of the CPU": lambda x: x + torch.zeros(SIZE),
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "nonzero": lambda x: x.nonzero(),
    "cpu": lambda x: x.cpu(),
}


def build_empty(name: str) -> nn.Module:
    """A small network without values."""
    with torch.device("meta"):
        return build_flat(name, aux_loss=True)


def found(work: Callable[[nn.Module], dict[str, Any]], network: nn.Module) -> dict[str, Any]:
    """What the work gives for the network on the GPU, and how often memory was page-locked; or its error."""
    PINNED.clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return work(network.to_empty(device=GPU)) | {"pinned": len(PINNED)}
    except Exception as error:  # noqa: BLE001 — whatever it is, it is what was looked for
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}


def main() -> None:
    """Prints a JSON object: by network and step, what `found` gives."""
    results: dict[str, Any] = {}
    pretend(bfloat16=True)
    for name in sys.argv[1:] or network_names():
        results[f"{name} training"] = found(partial(train, name=name), build_empty(name))
        results[f"{name} prediction"] = found(predict, build_empty(name))
    for name, fault in FAULTS.items():
        network = build_empty("UNet")
        network.register_forward_pre_hook(partial(spoil, fault))
        results[f"fault {name}"] = found(partial(train, name="UNet"), network)
    pretend(bfloat16=False)
    results["float16"] = found(partial(train, name="UNet"), build_empty("UNet"))
    turned = (View(), View(rotation_deg=10.0))
    results["turned"] = found(partial(predict, views=turned), build_empty("UNet"))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
