"""Runs a network's training step on fake tensors: shapes and lifetimes are real, nothing is allocated or computed.

The step is forward with auxiliary outputs, the loss, and backward, in the precision and formulation of the device that will train. The
peak is what is held at once: saved activations, gradients of activations, temporaries. Not seen: workspaces of convolution libraries, the
allocator's fragmentation, the device's context.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from utseg.planning.task import NetworkTask

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class StepFigures:
    """`peak_bytes` is without parameters, buffers and the parameters' gradients."""

    state_bytes: int
    trainable_bytes: int
    peak_bytes: int


@lru_cache(maxsize=256)
def dry_run(task: NetworkTask, *, half: bool = False, gpu: bool = False) -> StepFigures:
    """The figures of one training step: in bfloat16 for `half`, else in float32; as layers run on a GPU where said, else as on a CPU.

    Takes about a second, without allocating; a question asked before is answered from memory. Raises SettingError for a wrong setting.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from utseg.networks.layers.device_path import as_on_gpu

    network = task.build("meta")
    with FakeTensorMode(), as_on_gpu() if gpu else nullcontext():
        state = {
            name: torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            ).requires_grad_(tensor.requires_grad)
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
        }
        image_BCHW = torch.zeros(task.batch_size, task.in_channels, *task.patch_size)
        target_BHW = torch.zeros(task.batch_size, *task.patch_size, dtype=torch.long)
        return measure_step(network, state, image_BCHW, target_BHW, half=half)


def measure_step(
    network: "nn.Module",
    state: Mapping[str, "Tensor"],
    image_BCHW: "Tensor",
    target_BHW: "Tensor",
    *,
    half: bool = False,
) -> StepFigures:
    """Follows one training step of a network whose parameters and buffers are `state`, fake or real, by name."""
    import torch

    from utseg.networks.losses import LossSettings, training_loss
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
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = torch.func.functional_call(network, dict(state), (image_BCHW,))
        loss, _ = training_loss(outputs, target_BHW, LossSettings())
        del outputs
        loss.backward()
    return StepFigures(
        state_bytes=sum(tensor.nbytes for tensor in state.values()),
        trainable_bytes=sum(parameter.nbytes for parameter in held),
        peak_bytes=lifetimes.peak_bytes - lasting,
    )
