"""Orthogonal updates: beside a singular value decomposition in float64, and beside torch's SGD where there are none."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utseg.training.muon import ORTHOGONAL, Muon, orthogonalised

SIZES = st.integers(1, 40)


def as_matrix(weight):
    return weight.movedim(1, -1).flatten(1).double()


@given(height=SIZES, width=SIZES, kernel=st.sampled_from([None, 1, 3]), seed=st.integers(0, 99))
def test_directions_stay_and_singular_values_come_near_one(height, width, kernel, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (height, width) if kernel is None else (height, width, kernel, kernel)
    update = torch.randn(shape, generator=generator)
    found = orthogonalised(update)
    assert found.shape == update.shape
    left, values, right = torch.linalg.svd(as_matrix(update), full_matrices=False)
    seen = left.T @ as_matrix(found) @ right.T / max(1.0, height / right.shape[1]) ** 0.5
    large = values > 0.02 * values.norm()
    torch.testing.assert_close(seen, seen.diagonal().diag(), rtol=0, atol=2e-3)
    assert ((seen.diagonal() > 0.6) & (seen.diagonal() < 1.3))[large].all()


def test_the_size_of_a_gradient_does_not_matter_and_zeros_stay_zeros():
    update = torch.randn(16, 8, 3, 3)
    torch.testing.assert_close(orthogonalised(1000 * update), orthogonalised(update))
    assert not orthogonalised(torch.zeros(16, 8, 3, 3)).any()


def test_a_weight_whose_gradients_have_become_zero_comes_to_rest():
    """What momentum has left of them fades, and has a norm of 0 in float32 long before it is 0."""
    weight = torch.nn.Parameter(torch.ones(16, 8, 3, 3))
    muon = Muon(
        [{"params": [weight], ORTHOGONAL: True, "weight_decay": 0}], lr=0.03, momentum=0.9, nesterov=True
    )
    for step in range(600):
        weight.grad = torch.randn_like(weight) * (1e-3 if step < 3 else 0)
        before = weight.detach().clone()
        muon.step()
    torch.testing.assert_close(weight.detach(), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, True), (0.9, False)])
def test_without_orthogonal_updates_it_is_torch_sgd(momentum, nesterov):
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 5)) for _ in range(2))
    group = {"params": [ours], ORTHOGONAL: False, "weight_decay": 0.01}
    muon = Muon([group], lr=0.1, momentum=momentum, nesterov=nesterov)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    for seed in range(4):
        ours.grad = theirs.grad = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
        muon.step()
        sgd.step()
        torch.testing.assert_close(ours, theirs)


def test_a_step_is_its_rate_long_and_decay_is_no_part_of_the_gradient():
    weight = torch.nn.Parameter(torch.full((8, 8), 2.0))
    muon = Muon(
        [{"params": [weight], ORTHOGONAL: True, "weight_decay": 0.5}], lr=0.1, momentum=0.9, nesterov=True
    )
    weight.grad = torch.eye(8) * 1e-6
    muon.step()
    torch.testing.assert_close(
        weight.detach(), torch.full((8, 8), 2.0) * 0.95 - 0.1 * orthogonalised(torch.eye(8))
    )
