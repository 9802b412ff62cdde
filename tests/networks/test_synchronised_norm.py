"""A batch in parts is normalised as the whole one: values, gradients, running statistics; alone and within every network."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import InputError
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.layers.synchronised_norm import SynchronisedBatchNorm, synchronise_norms

from .small import SMALL, build_flat


class Ranks:
    """Threads that stand for processes: `total` adds what all of them bring."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._brought: dict[int, Tensor] = {}
        self._rank = threading.local()

    def total(self, x: Tensor) -> Tensor:
        self._brought[self._rank.number] = x
        self._barrier.wait()
        result = torch.stack([self._brought[rank] for rank in range(self.size)]).sum(0)
        self._barrier.wait()
        return result

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        def started(rank: int) -> Any:
            self._rank.number = rank
            return work(rank)

        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(started, range(self.size)))


def in_parts(module: nn.Module, images: list[Tensor], compute: Callable[..., Tensor]) -> list[Tensor]:
    """Output, gradients of input and parameters, and buffers, of a batch that lies in parts; the loss is over all outputs."""
    ranks = Ranks(len(images))

    def work(rank: int) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        own = copy.deepcopy(module)
        synchronise_norms(own, ranks.total)
        x = images[rank].clone(memory_format=torch.preserve_format).requires_grad_()
        y = compute(own, x)
        loss_of(y).backward()
        assert x.grad is not None
        gradients = [p.grad for p in own.parameters() if p.grad is not None]
        return y, x.grad, gradients, list(own.buffers())

    found = ranks.run(work)
    ys, xs, gradients, buffers = zip(*found, strict=True)
    for of_rank in buffers[1:]:
        assert all(torch.equal(one, other) for one, other in zip(buffers[0], of_rank, strict=True))
    return [torch.cat(ys), torch.cat(xs), *map(sum, zip(*gradients, strict=True)), *buffers[0]]


def whole(module: nn.Module, image: Tensor, compute: Callable[..., Tensor]) -> list[Tensor]:
    own, x = copy.deepcopy(module), image.clone(memory_format=torch.preserve_format).requires_grad_()
    y = compute(own, x)
    loss_of(y).backward()
    assert x.grad is not None
    return [y, x.grad, *(p.grad for p in own.parameters() if p.grad is not None), *own.buffers()]


def loss_of(y: Tensor) -> Tensor:
    """A sum over images, so that the parts' losses add up to the whole one's."""
    return (y.sin() + 0.1 * y.square()).sum()


class NormReluConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(5), nn.Conv2d(5, 7, 3, padding=1, bias=False)
        with torch.no_grad():
            self.norm.weight.uniform_(-1, 2)
            self.norm.bias.normal_()


def fused(module: NormReluConv, x: Tensor) -> Tensor:
    return norm_relu_conv(module.norm, module.conv, x)


def plain(module: NormReluConv, x: Tensor) -> Tensor:
    return module.conv(F.relu(module.norm(x)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("compute", [fused, plain])
@pytest.mark.parametrize("parts", [(1, 1), (2, 1, 3), (4,)])
def test_a_batch_in_parts_equals_the_whole_one(
    parts: tuple[int, ...], compute: Callable[..., Tensor], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    module = NormReluConv().double()
    image = (torch.randn(sum(parts), 5, 8, 6, dtype=torch.float64) * 3 + 40).to(memory_format=memory_format)
    pairs = zip(in_parts(module, list(image.split(parts)), compute), whole(module, image, plain), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-9)


def test_bfloat16_maps_are_normalised_in_full_precision() -> None:
    torch.manual_seed(0)
    module = NormReluConv()
    image = (torch.randn(4, 5, 8, 6) * 3 + 1).bfloat16()

    def compute(module: NormReluConv, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return fused(module, x).float()

    parts, one = in_parts(module, list(image.split(2)), compute), whole(module, image, compute)
    for ours, theirs in zip(parts, one, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours.float(), theirs.float(), atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(parts[-3:-1], one[-3:-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_learns_from_parts_as_from_the_whole(name: str) -> None:
    """Nothing else in a network looks beyond one image, and no normalisation is left out."""
    network = build_flat(name, aux_loss=True).double()
    for module in network.modules():
        for chance in ("dropout", "drop_path"):
            if isinstance(getattr(module, chance, None), float):
                setattr(module, chance, 0.0)
    torch.manual_seed(1)
    image = torch.randn(2, 1, 64, 64, dtype=torch.float64)

    def compute(network: nn.Module, x: Tensor) -> Tensor:
        return torch.stack(list(network(x)), 1)

    for ours, theirs in zip(
        in_parts(network, list(image.split(1)), compute), whole(network, image, compute), strict=True
    ):
        torch.testing.assert_close(
            ours, theirs, atol=1e-6 * float(theirs.detach().abs().max()) + 1e-9, rtol=1e-6
        )


def test_in_evaluation_it_is_as_it_was_and_names_stay() -> None:
    torch.manual_seed(0)
    module = NormReluConv()
    plain(module, x := torch.randn(3, 5, 4, 4))
    before = copy.deepcopy(module)
    parameters = list(module.parameters())
    synchronise_norms(module, lambda x: pytest.fail("nothing is to be added in evaluation"))
    assert isinstance(module.norm, SynchronisedBatchNorm)
    assert all(own is was for own, was in zip(module.parameters(), parameters, strict=True))
    assert module.state_dict().keys() == before.state_dict().keys()
    torch.testing.assert_close(plain(module.eval(), x), plain(before.eval(), x), atol=0, rtol=0)


def test_other_batch_normalisations_are_refused_by_name() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm1d(2)))
    with pytest.raises(InputError, match=r"1\.0: a BatchNorm1d"):
        synchronise_norms(network, lambda x: x)
