"""Dropout that draws its mask again instead of keeping it."""

import pytest
import torch

from utseg.networks.layers.dropout import dropout


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_rate_scale_and_gradient(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 3, 300, 301).contiguous(memory_format=memory_format).requires_grad_()
    y = dropout(x, 0.1, True)
    kept = y != 0
    assert abs(kept.float().mean().item() - 0.9) < 0.002
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / 0.9))
    y.sum().backward()
    assert torch.equal(x.grad, y), "what was dropped has no gradient, the rest is scaled alike"
    assert y.is_contiguous(memory_format=memory_format)


def test_values_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(2**20), 0.5, True) != 0
    for lag in (1, 2, 3, 4, 7, 64, 2**18):
        together = (kept[lag:] & kept[:-lag]).float().mean().item()
        assert abs(together - 0.25) < 0.003, lag


def test_each_call_draws_anew_and_the_seed_decides() -> None:
    x = torch.ones(1000)
    torch.manual_seed(5)
    first, second = dropout(x, 0.3, True), dropout(x, 0.3, True)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.3, True), first)
    assert not torch.equal(first, second)


def test_nothing_happens_in_evaluation_or_at_rate_zero() -> None:
    x = torch.ones(10)
    assert dropout(x, 0.9, False) is x
    assert dropout(x, 0.0, True) is x
