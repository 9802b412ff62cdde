"""The settings of UTNet and its presets: sizes, what has an official form, and what is refused."""

import pytest
import torch
from torch import nn

from utseg.errors import InputError, SettingError
from utseg.extensions import find
from utseg.networks import build_network, count_parameters, import_official_state_dict, network_settings
from utseg.networks.pretrained.official import export_official_state_dict


def small(name: str = "UTNet", **settings: object) -> nn.Module:
    torch.manual_seed(0)
    defaults = {"in_channels": 1, "num_classes": 2, "base_channels": 4}
    return build_network(name, **{**defaults, **settings})


@pytest.mark.parametrize(
    ("name", "same", "parameters"),
    [
        ("UTNet_encoder", {"attention_in": "encoder"}, 10_944_056),
        ("ResUNet", {"block_list": ()}, 15_449_256),
    ],
)
def test_presets_are_utnets_of_the_published_size(
    name: str, same: dict[str, object], parameters: int
) -> None:
    with torch.device("meta"):
        network = build_network(name, in_channels=1, num_classes=4, aux_loss=False)
        utnet = build_network("UTNet", in_channels=1, num_classes=4, aux_loss=False, **same)
    assert count_parameters(network) == parameters
    assert [(n, p.shape) for n, p in network.named_parameters()] == [
        (n, p.shape) for n, p in utnet.named_parameters()
    ]


def test_presets_have_no_setting_without_effect() -> None:
    assert set(network_settings("UTNet")) - set(network_settings("UTNet_encoder")) == {"attention_in"}
    assert set(network_settings("ResUNet")) == {
        "base_channels",
        "levels",
        "downsampling",
        "bottleneck",
        "conv_blocks",
        "aux_loss",
    }
    families = [find("networks", name).family for name in ("UTNet", "UTNet_encoder", "ResUNet")]
    assert families == ["hybrid", "hybrid", "convolutional"]


@pytest.mark.parametrize("name", ["UTNet", "UTNet_encoder", "ResUNet"])
def test_official_weights_fill_presets_too(name: str) -> None:
    network, other = small(name), small(name)
    weights = {key: value + 1 for key, value in export_official_state_dict(network).items()}
    import_official_state_dict(other, weights)
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value + 1), key


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("downsampling", ["maxpool", "strided"])
@pytest.mark.parametrize("attention_in", ["both", "encoder", "decoder"])
def test_every_choice_trains_at_odd_sizes(attention_in: str, downsampling: str, bottleneck: bool) -> None:
    network = small(attention_in=attention_in, downsampling=downsampling, bottleneck=bottleneck)
    attended = {
        part
        for part in ("encoder", "decoder")
        if any("attention" in name for name, _ in network.get_submodule(part).named_modules())
    }
    assert attended == {"both": {"encoder", "decoder"}}.get(attention_in, {attention_in})
    y = network(torch.randn(2, 1, 35, 50))
    assert all(logits.shape == (2, 2, 35, 50) for logits in y)
    sum(logits.square().sum() for logits in y).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert any(conv.stride == (2, 2) for conv in convs) == (downsampling == "strided")
    inner = [conv.out_channels for conv in network.decoder[0].modules() if isinstance(conv, nn.Conv2d)]
    assert (min(inner) == 1) == bottleneck, "a quarter of four channels inside"


@pytest.mark.parametrize("downsampling", ["maxpool", "strided"])
def test_levels_without_attention_have_as_many_convolutional_blocks_as_asked_for(downsampling: str) -> None:
    for blocks in (1, 2, 3):
        network = small(block_list=(3, 4), conv_blocks=blocks, downsampling=downsampling)
        assert [1 + len(stage.second) for stage in network.encoder] == [blocks, blocks, blocks, 2, 2]
        assert [len(stage.blocks) for stage in network.decoder] == [blocks, blocks, blocks, 1]
        sum(logits.square().sum() for logits in network(torch.randn(2, 1, 35, 50))).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"downsampling": "strided", "block_list": (2, 3, 4)}, "the encoder's level 1 has no attention"),
        ({"downsampling": "strided", "attention_in": "decoder"}, "downsampling is 'strided'"),
        ({"bottleneck": True}, "bottleneck is True, and the decoder's level 0 has no attention"),
        ({"bottleneck": True, "block_list": (2, 3, 4)}, "bottleneck is True, and the encoder's level 1"),
        ({"conv_blocks": 1}, "conv_blocks is 1, and the encoder's level 0 has no attention"),
    ],
    ids=str,
)
def test_networks_without_an_official_form_say_so(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        import_official_state_dict(small(**settings), {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "UTNet",
            {"attention_in": "head"},
            "attention_in is 'head'; it must be 'both', 'encoder' or 'decoder'",
        ),
        ("UTNet", {"downsampling": "mean"}, "downsampling is 'mean'; it must be 'maxpool' or 'strided'"),
        ("ResUNet", {"downsampling": 2}, "downsampling is 2; it must be 'maxpool' or 'strided'"),
        ("UTNet", {"bottleneck": 1}, "bottleneck is 1; it must be a valid boolean"),
        ("UTNet", {"bottleneck": True, "base_channels": 6}, "base_channels is 6; with bottleneck"),
        ("UTNet_encoder", {"num_heads": [3]}, "num_heads has 3 for level 1; it must divide the 8 channels"),
        ("UTNet_encoder", {"attention_in": "both"}, "has no setting 'attention_in'"),
        ("ResUNet", {"block_list": (1,)}, "has no setting 'block_list'"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        small(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
