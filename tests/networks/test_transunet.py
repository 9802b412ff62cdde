"""TransUNet: published size, positions on any grid, public weights, the ViT-only variant."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from networks.public_r50_vit import HEADS, HIDDEN, LAYERS, MLP, UNITS, WIDTH, Reference, public_weights
from networks.small import build_small
from utseg.errors import InputError, SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.macs import forward_macs

POSITIONS = "Transformer/posembed_input/pos_embedding"


def build_for_public(**settings: object) -> nn.Module:
    sizes = {
        "resnet_width": WIDTH,
        "resnet_units": UNITS,
        "hidden_size": HIDDEN,
        "attention_heads": HEADS,
        "mlp_size": MLP,
        "transformer_layers": LAYERS,
    }
    return build_small("TransUNet", **{**sizes, **settings})


def zoomed(grid_YXC: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """As the TransUNet code resizes: scipy's zoom of order 1."""
    factors = (sides[0] / grid_YXC.shape[0], sides[1] / grid_YXC.shape[1], 1)
    return ndimage.zoom(grid_YXC, factors, order=1)


def imported(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    given = network.from_public_weights(weights)
    assert given is not None
    return given


@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_and_macs_of_the_publication(channels: int) -> None:
    with torch.device("meta"):
        network = build_network("TransUNet", in_channels=channels, num_classes=4)
    assert count_parameters(network) == 105_322_436
    assert abs(forward_macs(network, torch.empty(1, channels, 256, 256)).published / 1e9 - 38.4) < 0.05


@pytest.mark.parametrize("sides", [(16, 16), (14, 14), (24, 10), (2, 2), (16, 12)])
def test_positions_are_resized_to_any_grid(sides: tuple[int, int]) -> None:
    network = build_small("TransUNet", backbone="none").eval()
    seen = []
    network.vit.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.vit.embedding.weight.zero_()
        network.vit.embedding.bias.zero_()
        network(torch.randn(1, 1, 16 * sides[0], 16 * sides[1]))
    expected = zoomed(network.vit.positions.detach()[0].permute(1, 2, 0).numpy(), sides)
    np.testing.assert_allclose(seen[0][0].numpy(), expected.reshape(-1, expected.shape[2]), atol=1e-5)


@pytest.mark.parametrize("grid", [14, 16, 24])
@pytest.mark.parametrize("class_token", [True, False])
def test_public_positions_of_any_grid_come_without_the_class_token(grid: int, class_token: bool) -> None:
    weights = public_weights(hybrid=True, grid=grid)
    without = weights[POSITIONS][:, 1:]
    if not class_token:
        weights[POSITIONS] = without
    found = imported(build_for_public(), weights)["vit.positions"]
    expected = zoomed(without.reshape(grid, grid, -1).numpy(), (16, 16))
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("backbone", ["r50", "none"])
def test_public_weights_give_the_features_of_the_public_model(backbone: str) -> None:
    weights = public_weights(hybrid=backbone == "r50", grid=2)
    network = build_for_public(backbone=backbone, in_channels=3).eval()
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    given = imported(network, weights)
    assert set(given) == {key for key in fresh if key.startswith(("resnet.", "vit."))}
    network.load_state_dict(given, strict=False)
    assert all(
        torch.equal(value, fresh[key]) for key, value in network.state_dict().items() if key not in given
    )
    reference, x = Reference(weights), torch.randn(2, 3, 32, 32)
    source = reference.resnet(x.double())[-1] if network.resnet else x.double()
    with torch.no_grad():
        # on the grid of 2 × 2, resized to 16 × 16 and back: corners are aligned, so they are the very same positions
        found = network.vit(network.resnet(x)[-1] if network.resnet else x)
    torch.testing.assert_close(found.double(), reference.transformer(source), atol=1e-4, rtol=1e-3)


def test_other_weights_and_other_channels() -> None:
    hybrid = build_for_public(in_channels=2)
    assert hybrid.from_public_weights(hybrid.state_dict()) is None
    left = set(hybrid.state_dict()) - set(imported(hybrid, public_weights(hybrid=True)))
    assert {name for name in left if name.startswith(("resnet.", "vit."))} == {"resnet.conv_root.weight"}
    alone = build_for_public(in_channels=2, backbone="none")
    left = set(alone.state_dict()) - set(imported(alone, public_weights(hybrid=False)))
    assert {name for name in left if name.startswith("vit.")} == {"vit.embedding.weight"}


def test_public_weights_that_do_not_fit_are_listed_on_one_line() -> None:
    weights = public_weights(hybrid=True)
    query = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"
    weights[query] = weights[query].flatten(1)
    weights["Transformer/encoderblock_2/LayerNorm_0/bias"] = weights.pop("Transformer/encoder_norm/bias")
    weights[POSITIONS] = weights[POSITIONS][:, :200]
    with pytest.raises(InputError) as caught:
        build_for_public().from_public_weights(weights)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing: Transformer/encoder_norm/bias" in message
    assert "2 of another shape: " in message
    assert f"{query} (16, 16) where (16, 4, 4) is expected" in message
    assert f"{POSITIONS} (1, 200, 16) where (1, 257, 16) is expected" in message
    assert "1 without a counterpart: Transformer/encoderblock_2/LayerNorm_0/bias" in message


def test_weights_of_the_other_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="missing: conv_root/kernel"):
        build_for_public().from_public_weights(public_weights(hybrid=False))
    with pytest.raises(InputError, match="without a counterpart: gn_root/scale"):
        build_for_public(backbone="none").from_public_weights(public_weights(hybrid=True))


def test_layers_of_the_encoder_are_complete_and_apart() -> None:
    network = build_small("TransUNet", transformer_layers=11)
    layers = network.pretrained_layers()
    assert len(layers) == 4 + 1 + 11
    for name, _ in network.named_parameters():
        assert sum(name.startswith(prefixes) for prefixes in layers) == name.startswith(("resnet.", "vit."))
    assert len(build_small("TransUNet", backbone="none").pretrained_layers()) == 1 + 2


def test_the_variant_without_resnet_takes_any_size_and_trains_all_its_parameters() -> None:
    network = build_small("TransUNet", backbone="none", aux_loss=True)
    y = network(torch.randn(2, 1, 35, 50))
    assert [logits.shape for logits in y] == [(2, 4, 35, 50)] * 4
    sum(logits.square().sum() for logits in y).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_dropout_is_for_training_only() -> None:
    network, x = build_small("TransUNet"), torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))
        without = build_small("TransUNet", dropout=0.0)
        assert torch.equal(without(x), without(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "r101"}, "backbone is 'r101'; it must be 'r50' or 'none'"),
        ({"attention_heads": 3}, "attention_heads is 3; it must divide hidden_size, which is 16"),
        ({"attention_heads": 0}, "attention_heads is 0"),
        ({"hidden_size": 16.0}, "hidden_size is 16.0"),
        ({"transformer_layers": 0}, "transformer_layers is 0"),
        ({"mlp_size": "4x"}, "mlp_size is '4x'"),
        ({"dropout": 1}, "dropout is 1"),
        ({"decoder_channels": (8, 8)}, "decoder_channels.2 is (8, 8); Field required"),
        ({"resnet_units": (1, 1)}, "resnet_units.2 is (1, 1); Field required"),
    ],
    ids=str,
)
def test_wrong_settings_on_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        build_small("TransUNet", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
