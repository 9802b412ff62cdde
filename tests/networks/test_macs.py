"""Counted multiply-accumulates equal the published ones, and those of the plain form."""

import copy

import pytest
import torch
from torch import nn

from utseg.networks import build_network, forward_macs

from .oracle import OracleUTNet


def on_meta(name: str, **settings: object) -> nn.Module:
    with torch.device("meta"):
        return build_network(name, **{"in_channels": 1, "num_classes": 4, "aux_loss": False, **settings})


@pytest.mark.parametrize(
    ("name", "settings", "computed", "published"),
    [
        ("UTNet", {}, 16.77, 17.5),
        ("UTNet", {"reduce_size": 16}, 18.42, 19.0),
        ("UTNet_encoder", {}, 19.49, 20.4),
        ("ResUNet", {}, 23.18, 23.6),
    ],
)
def test_gmac_of_the_published_sizes(
    name: str, settings: dict[str, object], computed: float, published: float
) -> None:
    macs = forward_macs(on_meta(name, **settings), torch.empty(1, 1, 256, 256))
    assert round(macs.computed / 1e9, 2) == computed
    assert round(macs.published / 1e9, 1) == published


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reduce_size": 4, "attention_in": "decoder"},
        {"projection": "maxpool", "relative_position": "none"},
        {"block_list": ()},
        {"downsampling": "strided", "attention_in": "encoder"},
    ],
    ids=str,
)
def test_published_counts_equal_those_of_the_plain_form(settings: dict[str, object]) -> None:
    x = torch.empty(2, 1, 128, 192)
    settings = {"base_channels": 16, **settings}
    oracle = OracleUTNet(**settings, aux_loss=False)
    expected = forward_macs(oracle, x)
    assert expected.computed == expected.published
    assert forward_macs(on_meta("UTNet", **settings), x).published == pytest.approx(
        expected.published, rel=0.01
    )


def test_the_position_of_the_paper_adds_a_product_with_each_offset() -> None:
    x = torch.empty(1, 1, 64, 64)
    settings = {
        "base_channels": 8,
        "levels": 1,
        "block_list": (1,),
        "num_blocks": (1,),
        "num_heads": (2,),
        "attention_in": "encoder",
    }
    without = forward_macs(on_meta("UTNet", **settings, relative_position="none"), x)
    with_it = forward_macs(on_meta("UTNet", **settings, relative_position="1d-qk"), x)
    places, channels, offsets = 32 * 32, 16, 15
    assert with_it.published - without.published == 2 * places * channels * offsets
    assert with_it.computed - without.computed == 2 * places * channels * 8


def test_work_grows_with_the_batch_and_the_pixels() -> None:
    network = on_meta("ResUNet", base_channels=4, levels=1)
    one = forward_macs(network, torch.empty(1, 1, 64, 64))
    assert forward_macs(network, torch.empty(3, 1, 64, 64)) == tuple(3 * macs for macs in one)
    assert forward_macs(network, torch.empty(1, 1, 128, 64)) == tuple(2 * macs for macs in one)


def test_counting_leaves_a_real_network_as_it_was() -> None:
    small = {"base_channels": 4, "levels": 1, "block_list": (1,), "num_blocks": (1,), "num_heads": (4,)}
    network = build_network("UTNet", in_channels=1, num_classes=2, **small)
    network.decoder[0].eval()
    modes = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    macs = forward_macs(network, torch.zeros(2, 1, 32, 48))
    assert macs == forward_macs(
        on_meta("UTNet", num_classes=2, aux_loss=True, **small), torch.empty(2, 1, 32, 48)
    )
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_hooks_and_modes_are_given_back_when_a_pass_fails() -> None:
    network = on_meta("UTNet", base_channels=4)
    with pytest.raises(RuntimeError):
        forward_macs(network, torch.empty(1, 3, 32, 32))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
