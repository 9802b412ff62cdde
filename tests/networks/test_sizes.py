"""Padding to what a network can take, and its inverse."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from utseg.networks.layers.sizes import crop_to_size, pad_to_multiple


@given(height=st.integers(1, 70), width=st.integers(1, 70), multiple=st.sampled_from([2, 8, 16]))
def test_cropping_undoes_padding(height: int, width: int, multiple: int) -> None:
    x = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    padded = pad_to_multiple(x, (multiple, multiple))
    for before, after in ((height, padded.shape[2]), (width, padded.shape[3])):
        assert after % multiple == 0
        assert after >= 2 * multiple
        assert after - before < 2 * multiple
    assert torch.equal(crop_to_size(padded, (height, width), (multiple, multiple)), x)
    assert set(padded.unique().tolist()) == set(x.unique().tolist()), "padding brings no new values"


def test_sizes_that_divide_are_left_alone() -> None:
    x = torch.zeros(1, 1, 32, 48)
    assert pad_to_multiple(x, (16, 16)) is x


def test_each_axis_can_have_its_own_multiple() -> None:
    x = torch.arange(35.0 * 50).reshape(1, 1, 35, 50)
    padded = pad_to_multiple(x, (8, 32))
    assert padded.shape == (1, 1, 40, 64)
    assert torch.equal(crop_to_size(padded, (35, 50), (8, 32)), x)
