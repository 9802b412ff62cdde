"""The running average of weights: its formula, its width, its buffers."""

import numpy as np
import pytest
import torch
from torch import nn

from utseg.training.average import WeightAverage, exponent


def shares(width: float, steps: int) -> np.ndarray:
    """How much of the weights after each step is in the average: the weights after step t are the t-th unit vector."""
    network = nn.Linear(steps, 1, bias=False)
    average = WeightAverage(network, width)
    for step in range(steps):
        with torch.no_grad():
            network.weight.zero_()[0, step] = 1
        average.add(network)
    return average.network.weight[0].double().numpy()


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2])
def test_the_average_is_as_wide_as_asked_whatever_the_number_of_steps(width: float) -> None:
    for steps in (1000, 4000):
        share, step = shares(width, steps), np.arange(1, steps + 1)
        assert share.sum() == pytest.approx(1, abs=1e-4)
        assert (np.diff(share) >= 0).all()
        mean = (share * step).sum()
        deviation = np.sqrt((share * (step - mean) ** 2).sum())
        assert deviation / steps == pytest.approx(width, rel=0.02)


def test_the_exponents_are_the_published_ones() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)


def test_the_first_step_is_all_of_the_first_average_and_buffers_follow() -> None:
    torch.manual_seed(0)
    network = nn.BatchNorm2d(3)
    average = WeightAverage(network, 0.1)
    network(torch.randn(4, 3, 5, 5))
    average.add(network)
    for name, value in network.state_dict().items():
        assert torch.equal(average.network.state_dict()[name], value), name
    before = network.running_mean.clone()
    network(torch.randn(4, 3, 5, 5) + 3)
    average.add(network)
    assert int(average.network.num_batches_tracked) == 2
    low, high = torch.minimum(before, network.running_mean), torch.maximum(before, network.running_mean)
    assert ((average.network.running_mean > low) & (average.network.running_mean < high)).all()


def test_what_is_packed_is_restored() -> None:
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    average, other = WeightAverage(network, 0.1), WeightAverage(nn.Linear(2, 2), 0.1)
    average.add(network)
    other.load_state_dict(average.state_dict())
    with torch.no_grad():
        network.weight.add_(1)
    average.add(network)
    other.add(network)
    assert torch.equal(average.network.weight, other.network.weight)
