"""ResNet50_UNet and ResNet50_UTNet: published sizes, attention where it is asked for, public weights."""

import pytest
import torch
from torch import nn

from networks.public_r50_vit import UNITS, WIDTH, Reference, public_weights
from networks.small import build_small
from utseg.errors import InputError, SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.layers.resnet50 import ResNet50, StandardisedConv2d
from utseg.networks.macs import forward_macs

NAMES = ("ResNet50_UNet", "ResNet50_UTNet")


def build_for_public(name: str, **settings: object) -> nn.Module:
    return build_small(name, **{"resnet_width": WIDTH, "resnet_units": UNITS, **settings})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "parameters", "gmac"),
    [("ResNet50_UNet", 22_199_556, 24.1), ("ResNet50_UTNet", 29_122_960, 28.4)],
)
def test_parameters_and_macs_of_the_publication(
    name: str, parameters: int, gmac: float, channels: int
) -> None:
    with torch.device("meta"):
        network = build_network(name, in_channels=channels, num_classes=4)
    assert count_parameters(network) == parameters
    macs = forward_macs(network, torch.empty(1, channels, 256, 256))
    assert abs(macs.published / 1e9 - gmac) < 0.05
    assert macs.computed < macs.published


def test_heads_are_heads_one_column_of_the_position_table_each() -> None:
    def size(heads: tuple[int, ...]) -> int:
        return count_parameters(build_small("ResNet50_UTNet", attention_heads=heads))

    assert size((4,)) - size((2,)) == 3 * 2 * 15**2
    assert size((2, 4, 8)) - size((2,)) == (2 + 6) * 15**2


def test_maps_of_the_encoder() -> None:
    maps = ResNet50(2, 8, (1, 1, 1))(torch.randn(1, 2, 64, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_is_the_same_as_three_equal_ones(name: str) -> None:
    one, three = build_small(name).eval(), build_small(name, in_channels=3).eval()
    three.load_state_dict(one.state_dict())
    x = torch.randn(1, 1, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(three(x.repeat(1, 3, 1, 1)), one(x))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_standardised_kernels_know_neither_scale_nor_shift(kernel: int, stride: int) -> None:
    conv = StandardisedConv2d(3, 4, kernel, stride).double()
    x = torch.randn(2, 3, 8, 10, dtype=torch.double)
    before = conv(x)
    assert before.shape == (2, 4, 8 // stride, 10 // stride)
    with torch.no_grad():
        scale = torch.rand(4, 1, 1, 1) + 0.5
        conv.weight.mul_(scale).add_(torch.randn(4, 1, 1, 1))
    torch.testing.assert_close(conv(x), before, atol=1e-5, rtol=1e-5)


def test_without_attention_it_is_the_u_net() -> None:
    plain, none = build_small("ResNet50_UNet").eval(), build_small("ResNet50_UTNet", attention_blocks=())
    none.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        assert torch.equal(none.eval()(x), plain(x))


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_attention_stands_on_the_map_asked_for_and_the_encoder_does_not_see_it(block: int) -> None:
    network = build_small("ResNet50_UTNet", attention_blocks=(block,), transformer_blocks=(2,)).eval()
    assert [len(stack) for stack in network.transformers.values()] == [2]
    x = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        maps = network.encoder(x)
        for own, after in zip(enumerate(maps), network.skips(maps), strict=True):
            assert torch.equal(own[1], after) == (own[0] != block)


@pytest.mark.parametrize("name", NAMES)
def test_public_weights_give_the_maps_of_the_public_model(name: str) -> None:
    weights = public_weights(hybrid=True)
    network = build_for_public(name, in_channels=3).eval()
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    given = network.from_public_weights(weights)
    assert given is not None
    assert set(given) == {key for key in fresh if key.startswith("encoder.")}
    network.load_state_dict(given, strict=False)
    assert all(
        torch.equal(value, fresh[key]) for key, value in network.state_dict().items() if key not in given
    )
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for found, expected in zip(network.encoder(x), Reference(weights).resnet(x.double()), strict=True):
            torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=1e-3)


def test_public_names_in_other_spellings() -> None:
    weights = public_weights(hybrid=True)
    network = build_for_public("ResNet50_UNet")
    spelt = {
        "opt/target/" + name.replace("/unit", "/unit0"): value.squeeze() if "gn" in name else value
        for name, value in weights.items()
    }
    expected, found = network.from_public_weights(weights), network.from_public_weights(spelt)
    assert expected is not None
    assert found is not None
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_other_weights_are_left_alone_and_other_channels_keep_their_own_stem() -> None:
    network = build_for_public("ResNet50_UNet", in_channels=2)
    assert network.from_public_weights(network.state_dict()) is None
    given = network.from_public_weights(public_weights(hybrid=True))
    assert given is not None
    left = {name for name in network.encoder.state_dict() if f"encoder.{name}" not in given}
    assert left == {"conv_root.weight"}


def test_public_weights_that_do_not_fit_are_listed_on_one_line() -> None:
    weights = public_weights(hybrid=True)
    weights["block4/unit1/conv1/kernel"] = weights.pop("block1/unit2/conv3/kernel")
    weights["block2/unit1/gn2/scale"] = torch.ones(7)
    with pytest.raises(InputError) as caught:
        build_for_public("ResNet50_UNet").from_public_weights(weights)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing: block1/unit2/conv3/kernel" in message
    assert "1 of another shape: block2/unit1/gn2/scale (7,) where (64,) is expected" in message
    assert "1 without a counterpart: block4/unit1/conv1/kernel" in message
    with pytest.raises(InputError, match=r"missing: conv_root/kernel, .* and \d+ more"):
        build_for_public("ResNet50_UTNet").from_public_weights(public_weights(hybrid=False))


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_the_encoder_are_complete_and_apart(name: str) -> None:
    network = build_small(name)
    layers = network.pretrained_layers()
    assert len(layers) == 4
    for parameter, _ in network.named_parameters():
        assert sum(parameter.startswith(prefixes) for prefixes in layers) == parameter.startswith("encoder.")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "ResNet50_UNet",
            {"resnet_width": 1},
            "resnet_width is 1; it must be greater than or equal to 2",
        ),
        ("ResNet50_UNet", {"resnet_units": (3, 4)}, "resnet_units.2 is (3, 4); Field required"),
        (
            "ResNet50_UNet",
            {"resnet_units": (3, 4, 0)},
            "resnet_units.2 is 0; it must be greater than or equal to 1",
        ),
        ("ResNet50_UNet", {"in_channels": 0}, "in_channels is 0"),
        (
            "ResNet50_UTNet",
            {"attention_blocks": "123"},
            "attention_blocks is '123'; it must be a valid list",
        ),
        (
            "ResNet50_UTNet",
            {"attention_blocks": (1, 4)},
            "attention_blocks has the entry 4; allowed are numbers from 0",
        ),
        ("ResNet50_UTNet", {"attention_blocks": (1, 1)}, "attention_blocks has the entry 1"),
        (
            "ResNet50_UTNet",
            {"attention_heads": (4, 4)},
            "attention_heads is (4, 4), 2 entries; attention_blocks",
        ),
        (
            "ResNet50_UTNet",
            {"attention_heads": (3,)},
            "attention_heads has 3 for block 1; it must divide the 16",
        ),
        (
            "ResNet50_UTNet",
            {"transformer_blocks": 1},
            "transformer_blocks is 1; it must be a valid list",
        ),
        (
            "ResNet50_UTNet",
            {"projection": "nearest"},
            "projection is 'nearest'; it must be 'interp' or 'maxpool'",
        ),
        ("ResNet50_UTNet", {"reduce_size": 1}, "reduce_size is 1"),
    ],
    ids=str,
)
def test_wrong_settings_on_one_line(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        build_small(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
