"""Runs a network's training step on fake tensors: shapes and lifetimes are real, nothing is allocated or computed.

The step is forward with auxiliary outputs, cross-entropy and soft Dice of each output, backward, in float32. The peak is what is held
at once: saved activations, gradients of activations, temporaries. Not seen: workspaces of convolution libraries, the allocator's
fragmentation, the device's context. No optimiser runs here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StepFigures:
    """`peak_bytes` is without parameters, buffers and the parameters' gradients."""

    state_bytes: int
    trainable_bytes: int
    peak_bytes: int


def dry_run(
    network_name: str,
    *,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    batch_size: int,
    settings: Mapping[str, Any],
) -> StepFigures:
    """The figures of one training step of a registered network. Settings that the network does not have are left out.

    Takes about a second, without allocating; a question asked before is answered from memory. Raises SettingError for a wrong setting.
    """
    taken = taken_settings(network_name, settings)
    height, width = patch_size
    return _dry_run(
        network_name, in_channels, num_classes, (height, width), batch_size, tuple(sorted(taken.items()))
    )


def taken_settings(network_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that the network has, lists as tuples."""
    from utseg.networks import network_settings

    known = network_settings(network_name)
    return {
        key: tuple(value) if isinstance(value, list | tuple) else value
        for key, value in settings.items()
        if key in known
    }


@lru_cache(maxsize=256)
def _dry_run(
    network_name: str,
    in_channels: int,
    num_classes: int,
    patch_size: tuple[int, int],
    batch_size: int,
    settings: tuple[tuple[str, Any], ...],
) -> StepFigures:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from utseg.networks import build_network

    with torch.device("meta"):
        network = build_network(
            network_name, in_channels=in_channels, num_classes=num_classes, **dict(settings)
        )
    with FakeTensorMode():
        state = {
            name: torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            ).requires_grad_(tensor.requires_grad)
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
        }
        image_BCHW = torch.zeros(batch_size, in_channels, *patch_size)
        target_BHW = torch.zeros(batch_size, *patch_size, dtype=torch.long)
        return measure_step(network, state, image_BCHW, target_BHW)


def measure_step(
    network: "nn.Module", state: Mapping[str, "Tensor"], image_BCHW: "Tensor", target_BHW: "Tensor"
) -> StepFigures:
    """Follows one training step of a network whose parameters and buffers are `state`, fake or real, by name."""
    import torch

    from utseg.planning.lifetimes import Lifetimes

    lifetimes = Lifetimes()
    held = [tensor for tensor in state.values() if tensor.requires_grad]
    for parameter in held:
        parameter.grad = torch.zeros_like(parameter)
    for tensor in (*state.values(), *(parameter.grad for parameter in held if parameter.grad is not None)):
        lifetimes.follow(tensor)
    lasting = lifetimes.live_bytes
    for tensor in (image_BCHW, target_BHW):
        lifetimes.follow(tensor)
    with lifetimes:
        outputs = torch.func.functional_call(network, dict(state), (image_BCHW,))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        loss = torch.stack([_loss(output, target_BHW) for output in outputs]).sum()
        del outputs
        loss.backward()
    return StepFigures(
        state_bytes=sum(tensor.nbytes for tensor in state.values()),
        trainable_bytes=sum(parameter.nbytes for parameter in held),
        peak_bytes=lifetimes.peak_bytes - lasting,
    )


def _loss(logits_BKHW: "Tensor", target_BHW: "Tensor") -> "Tensor":
    """Makes the tensors of cross-entropy plus soft Dice; its value means nothing."""
    from torch.nn import functional as F

    classes = logits_BKHW.shape[1]
    probability_BKHW = logits_BKHW.float().softmax(1)
    reference_BKHW = F.one_hot(target_BHW, classes).movedim(-1, 1)
    overlap_K = (probability_BKHW * reference_BKHW).sum((0, 2, 3))
    size_K = probability_BKHW.sum((0, 2, 3)) + reference_BKHW.sum((0, 2, 3))
    return F.cross_entropy(logits_BKHW.float(), target_BHW) - (2 * overlap_K / size_K).mean()
