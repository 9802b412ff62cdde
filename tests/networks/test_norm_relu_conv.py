"""The form that keeps one map equals the three plain operations, and keeps one map."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks import build_network
from utseg.networks.layers.blocks import PreActivationBlock
from utseg.networks.layers.norm_relu_conv import norm_relu_conv


def plain(norm: nn.BatchNorm2d, conv: nn.Conv2d, x: Tensor) -> Tensor:
    return conv(F.relu(norm(x)))


def modules(kernel: int, stride: int, dtype: torch.dtype) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
    torch.manual_seed(0)
    norm, conv = nn.BatchNorm2d(5), nn.Conv2d(5, 7, kernel, stride, padding=kernel // 2, bias=False)
    with torch.no_grad():
        norm.weight.uniform_(-1, 2)
        norm.bias.normal_()
    return norm.to(dtype), conv.to(dtype)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_gradients_and_statistics_equal_the_plain_ones(
    kernel: int, stride: int, memory_format: torch.memory_format
) -> None:
    norm, conv = modules(kernel, stride, torch.float64)
    pairs = [(norm, conv), (copy.deepcopy(norm), copy.deepcopy(conv))]
    image = (torch.randn(2, 5, 8, 6, dtype=torch.float64) * 3 + 1).to(memory_format=memory_format)
    found = []
    for form, (norm, conv) in zip((norm_relu_conv, plain), pairs, strict=True):
        x = image.clone(memory_format=torch.preserve_format).requires_grad_()
        y = form(norm, conv, x)
        y.sin().sum().backward()
        state = [*norm.state_dict().values(), *conv.state_dict().values()]
        found.append([y, x.grad, norm.weight.grad, norm.bias.grad, conv.weight.grad, *state])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-9)
    for name, value in pairs[0][0].state_dict().items():
        assert torch.equal(value, pairs[1][0].state_dict()[name]), name


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_autocast_gives_the_plain_values_and_types(given: torch.dtype) -> None:
    norm, conv = modules(3, 1, torch.float32)
    image = torch.randn(2, 5, 8, 6).to(given)
    found = []
    for form in (norm_relu_conv, plain):
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = form(norm, conv, x)
        gradients = torch.autograd.grad(y.float().square().sum(), [x, norm.weight, norm.bias, conv.weight])
        found.append([y, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)


def test_it_needs_no_gradient_of_the_image_and_none_in_evaluation() -> None:
    norm, conv = modules(3, 1, torch.float32)
    x = torch.randn(2, 5, 8, 6)
    norm_relu_conv(norm, conv, x).sum().backward()
    assert conv.weight.grad is not None and norm.weight.grad is not None
    before = copy.deepcopy(norm.state_dict())
    norm.eval()
    torch.testing.assert_close(norm_relu_conv(norm, conv, x), plain(norm, conv, x))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def saved_bytes(compute: nn.Module, x: Tensor) -> int:
    own = {p.untyped_storage().data_ptr() for p in compute.parameters()} | {x.untyped_storage().data_ptr()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = compute(x)
    assert kept.isfinite().all()
    return sum(sizes.values())


def test_a_block_keeps_its_input_and_the_map_between_its_convolutions() -> None:
    block = PreActivationBlock(8, 4)
    x = torch.randn(2, 8, 32, 32)
    one_map = 2 * 4 * 32 * 32 * 4
    assert one_map <= saved_bytes(block, x) < 1.1 * one_map


def test_a_strided_network_in_float64_passes_gradcheck() -> None:
    network = build_network(
        "ResUNet", in_channels=1, num_classes=2, base_channels=2, levels=1, downsampling="strided"
    ).double()
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    assert torch.autograd.gradcheck(network.main_logits, (x,), fast_mode=True)
