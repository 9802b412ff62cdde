"""Swin-Unet: windows against the published cyclic shift, padding, sizes of the publication, public weights."""

import pytest
import torch
from torch import Tensor, nn

from networks.small import build_small
from utseg.errors import InputError, SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.layers.swin import (
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
    SwinBlock,
    WindowAttention,
    drop_path,
)
from utseg.networks.layers.swin import drop_paths as rates_of
from utseg.networks.swin_unet import SwinUNet

SETTINGS = {"embed_channels": 8, "depths": (2, 1, 2), "window_heads": (1, 2, 4), "mlp_ratio": 2}


def groups_along(size: int, window: int, shift: int) -> list[int]:
    """The window that each place belongs to, as the publication cuts: at shift, shift + window, …; one window for a smaller map."""
    if size <= window:
        return [0] * size
    return [(place - shift) // window for place in range(size)]


def plain_attention(module: WindowAttention, x_BHWC: Tensor) -> Tensor:
    """Every token to every token of the map in float64, with what is in another window ruled out; the bias looked up pair by pair."""
    B, H, W, C = x_BHWC.shape
    window, heads = module.window, module.heads
    places = [(y, x) for y in range(H) for x in range(W)]
    rows, columns = (groups_along(size, window, module.shift) for size in (H, W))
    weight, bias = module.qkv.weight.double(), module.qkv.bias.double()
    table = module.bias_table.double()
    out = torch.empty(B, H * W, C, dtype=torch.float64)
    for image in range(B):
        q, k, v = (x_BHWC[image].double().reshape(H * W, C) @ weight.T + bias).split(C, dim=1)
        for head in range(heads):
            part = slice(head * C // heads, (head + 1) * C // heads)
            logits = q[:, part] @ k[:, part].T / (C // heads) ** 0.5
            for i, (y, x) in enumerate(places):
                for j, (v_y, v_x) in enumerate(places):
                    if (rows[y], columns[x]) == (rows[v_y], columns[v_x]):
                        index = (y - v_y + window - 1) * (2 * window - 1) + x - v_x + window - 1
                        logits[i, j] += table[index, head]
                    else:
                        logits[i, j] = -torch.inf
            out[image, :, part] = logits.softmax(1) @ v[:, part]
    return (out @ module.out.weight.double().T + module.out.bias.double()).reshape(B, H, W, C)


def attention_of(window: int, shift: int) -> WindowAttention:
    torch.manual_seed(1)
    module = WindowAttention(8, heads=2, window=window, shift=shift)
    nn.init.normal_(module.bias_table)
    return module


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (4, 7), (3, 2), (2, 10)], ids=str)
@pytest.mark.parametrize("shift", [0, 2])
def test_windows_agree_with_a_plain_float64_reference(size: tuple[int, int], shift: int) -> None:
    module, x = attention_of(4, shift), torch.randn(2, *size, 8)
    with torch.no_grad():
        torch.testing.assert_close(module(x).double(), plain_attention(module, x), atol=1e-5, rtol=1e-5)


def test_gradients_of_windows_agree_with_the_reference() -> None:
    module, x = attention_of(3, 1).double(), torch.randn(1, 5, 7, 8, dtype=torch.float64, requires_grad=True)
    wanted = (x, *module.parameters())
    weights = torch.randn(1, 5, 7, 8, dtype=torch.float64)
    found = torch.autograd.grad((module(x) * weights).sum(), wanted)
    expected = torch.autograd.grad((plain_attention(module, x) * weights).sum(), wanted)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("shift", [0, 3])
def test_published_cyclic_shift_and_masks_are_the_same_windows(shift: int) -> None:
    """The published way: roll, cut, rule out pairs of different regions, roll back. For a map that windows divide."""
    module, x = attention_of(7, shift), torch.randn(2, 14, 21, 8)
    B, H, W, C = x.shape
    cut = x.new_zeros(1, H, W, 1)
    edges = [slice(0, -7), slice(-7, -shift), slice(-shift, None)] if shift else [slice(None)]
    for number, (rows, columns) in enumerate((a, b) for a in edges for b in edges):
        cut[:, rows, columns] = number

    def windows(map_BHWC: Tensor) -> Tensor:
        split = map_BHWC.reshape(map_BHWC.shape[0], H // 7, 7, W // 7, 7, -1).transpose(2, 3)
        return split.reshape(map_BHWC.shape[0], -1, 49, map_BHWC.shape[-1])

    region = windows(cut)[0, :, :, 0]
    with torch.no_grad():
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(2, 3)
            for part in windows(module.qkv(x.roll((-shift, -shift), (1, 2)))).split(C, dim=-1)
        )
        logits = q @ k.mT / 2 + module.bias(7, 7)
        logits = logits.masked_fill((region[:, None, :, None] != region[:, None, None, :]), -100.0)
        attended = (logits.softmax(-1) @ v).transpose(2, 3).flatten(3)
        whole = attended.reshape(B, H // 7, W // 7, 7, 7, C).transpose(2, 3).reshape(B, H, W, C)
        expected = module.out(whole.roll((shift, shift), (1, 2)))
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [0, 3])
def test_margins_of_windows_do_not_influence_pixels(shift: int) -> None:
    """A window at the border that holds few tokens gives what attention among just these tokens gives."""
    module, x = attention_of(7, shift), torch.randn(1, 9, 8, 8)
    first = shift or 7  # rows of the first window that lie on the map
    with torch.no_grad():
        whole = module(x)
        alone = attention_of(7, 0)
        alone.load_state_dict(module.state_dict())
        torch.testing.assert_close(whole[:, :first, :first], alone(x[:, :first, :first]))
        end = first + (9 - first) // 7 * 7  # the last window
        torch.testing.assert_close(whole[:, end:, :first], alone(x[:, end:, :first]))


def test_a_map_smaller_than_a_window_is_one_window_without_shift() -> None:
    shifted, plain = attention_of(7, 3), attention_of(7, 0)
    x = torch.randn(1, 4, 6, 8)
    assert torch.equal(shifted(x), plain(x))


def test_patches_merge_in_the_published_order_and_expand_as_the_published_rearrangement() -> None:
    merge = PatchMerging(2)
    x = torch.randn(1, 4, 6, 2)
    corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    torch.testing.assert_close(merge(x), merge.reduce(merge.norm(torch.cat(corners, -1))))
    expand = PatchExpanding(4, 3, 2)
    x = torch.randn(1, 2, 3, 4)
    linear_OI = expand.expand.weight.permute(2, 3, 1, 0).reshape(
        12, 4
    )  # (row, column, channel), as published
    split = (x @ linear_OI.T).reshape(1, 2, 3, 2, 2, 3).transpose(2, 3).reshape(1, 4, 6, 3)
    torch.testing.assert_close(expand(x), expand.norm(split))


def test_one_channel_is_taken_three_times() -> None:
    embed, colour = PatchEmbedding(1, 6), PatchEmbedding(3, 6)
    colour.load_state_dict(embed.state_dict())
    x = torch.randn(2, 1, 8, 12)
    torch.testing.assert_close(embed(x), colour(x.repeat(1, 3, 1, 1)))
    assert PatchEmbedding(2, 6).conv.weight.shape == (6, 2, 4, 4)


@pytest.mark.parametrize(("classes", "count"), [(4, 27_168_424), (9, 27_168_909)])
def test_parameters_at_the_published_size(classes: int, count: int) -> None:
    """The publication's own code has 27,168,420 for 4 classes and 27,168,900 for 9: its head has no bias."""
    with torch.device("meta"):
        network = build_network("SwinUNet", in_channels=1, num_classes=classes)
    assert count_parameters(network) == count


def test_stochastic_depth_drops_whole_samples_by_the_seed_and_keeps_the_mean() -> None:
    x = torch.ones(2000, 2, 3, 4)
    torch.manual_seed(3)
    y = drop_path(x, 0.25, True)
    kept = y[:, 0, 0, 0]
    assert torch.equal(y, kept[:, None, None, None].expand_as(y))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert abs(float(kept.mean()) - 1) < 0.06
    torch.manual_seed(3)
    assert torch.equal(drop_path(x, 0.25, True), y)
    assert drop_path(x, 0.25, False) is x
    assert drop_path(x, 0.0, True) is x


def test_rates_of_stochastic_depth_rise_and_the_decoder_mirrors_them() -> None:
    assert rates_of(0.3, (2, 2)) == [[0, pytest.approx(0.1)], [pytest.approx(0.2), 0.3]]
    assert rates_of(0.3, (1,)) == [[0]]
    network = build_network("SwinUNet", in_channels=1, num_classes=2, **SETTINGS, drop_path=0.4)
    of_encoder, of_decoder = (
        [[block.drop_path for block in stage.blocks] for stage in side]
        for side in (network.encoder, network.decoder)
    )
    assert of_encoder == [[0, 0.1], [0.2], [pytest.approx(0.3), 0.4]]
    assert of_decoder == of_encoder[:2]


def test_training_is_seeded_and_stochastic_and_evaluation_is_neither() -> None:
    network, x = build_small("SwinUNet", drop_path=0.5), torch.randn(4, 1, 32, 32)
    torch.manual_seed(0)
    first = network(x)
    assert not torch.equal(network(x), first)
    torch.manual_seed(0)
    assert torch.equal(network(x), first)


def test_every_second_block_is_shifted() -> None:
    network = build_network("SwinUNet", in_channels=1, num_classes=2, **SETTINGS)
    shifts = [[block.attention.shift for block in stage.blocks] for stage in network.encoder]
    assert shifts == [[0, 3], [0], [0, 3]]


def public_weights(
    *, channels: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int = 7, mlp_ratio: int = 2
) -> dict[str, Tensor]:
    """A classifier's state dict with the names and shapes of the public files."""
    torch.manual_seed(5)
    made: dict[str, Tensor] = {}

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.randn(weight)
        if bias:
            made[f"{name}.bias"] = torch.randn(weight[0])

    layer("patch_embed.proj", channels, 3, 4, 4)
    layer("patch_embed.norm", channels)
    for stage, depth in enumerate(depths):
        width = channels * 2**stage
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            if block % 2 and stage + 1 < len(depths):
                made[f"{prefix}.attn_mask"] = torch.zeros(4, window**2, window**2)
            layer(f"{prefix}.norm1", width)
            made[f"{prefix}.attn.relative_position_bias_table"] = torch.randn(
                (2 * window - 1) ** 2, heads[stage]
            )
            made[f"{prefix}.attn.relative_position_index"] = torch.zeros(
                window**2, window**2, dtype=torch.int64
            )
            layer(f"{prefix}.attn.qkv", 3 * width, width)
            layer(f"{prefix}.attn.proj", width, width)
            layer(f"{prefix}.norm2", width)
            layer(f"{prefix}.mlp.fc1", mlp_ratio * width, width)
            layer(f"{prefix}.mlp.fc2", width, mlp_ratio * width)
        if stage + 1 < len(depths):
            layer(f"layers.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
            layer(f"layers.{stage}.downsample.norm", 4 * width)
    layer("norm", channels * 2 ** (len(depths) - 1))
    layer("head", 1000, channels * 2 ** (len(depths) - 1))
    return made


def small(**settings: object) -> SwinUNet:
    torch.manual_seed(0)
    network = build_network("SwinUNet", **{"in_channels": 1, "num_classes": 4, **SETTINGS, **settings})
    assert isinstance(network, SwinUNet)
    return network


PUBLIC = public_weights(channels=8, depths=(2, 3, 2), heads=(1, 2, 4))


def test_public_tiny_checkpoint_fills_encoder_and_mirrored_decoder() -> None:
    """Names and shapes of swin_tiny_patch4_window7_224.pth."""
    with torch.device("meta"):
        weights = public_weights(channels=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), mlp_ratio=4)
        network = SwinUNet()
    assert weights["layers.0.blocks.0.attn.relative_position_bias_table"].shape == (169, 3)
    assert weights["layers.3.blocks.1.mlp.fc1.weight"].shape == (3072, 768)
    found = network.from_public_weights(weights)
    assert found is not None
    own = network.state_dict()
    assert all(own[name].shape == value.shape for name, value in found.items())
    started_afresh = {
        name.split(".")[0] if "decoder" not in name else name.split(".")[2]
        for name in own
        if name not in found
    }
    assert started_afresh == {"heads", "final", "norm_up", "expand", "join"}


def test_imported_weights_are_where_they_belong() -> None:
    network = small()
    found = network.from_public_weights(PUBLIC)
    assert found is not None
    network.load_state_dict({**network.state_dict(), **found}, strict=True)
    assert torch.equal(found["embed.conv.weight"], PUBLIC["patch_embed.proj.weight"])
    assert torch.equal(found["norm.bias"], PUBLIC["norm.bias"])
    assert torch.equal(found["encoder.1.merge.reduce.weight"], PUBLIC["layers.1.downsample.reduction.weight"])
    for side, stage, block in (("encoder", 0, 1), ("encoder", 2, 1), ("decoder", 0, 1), ("decoder", 1, 0)):
        ours, public = f"{side}.{stage}.blocks.{block}", f"layers.{stage}.blocks.{block}"
        assert torch.equal(found[f"{ours}.attention.qkv.weight"], PUBLIC[f"{public}.attn.qkv.weight"])
        assert torch.equal(found[f"{ours}.mlp.2.bias"], PUBLIC[f"{public}.mlp.fc2.bias"])
        table = PUBLIC[f"{public}.attn.relative_position_bias_table"]
        assert torch.equal(found[f"{ours}.attention.bias_table"], table)


def test_a_block_with_imported_weights_is_the_published_block() -> None:
    """LN, attention, MLP and sums from the public entries alone, in float64."""
    network = small()
    network.load_state_dict({**network.state_dict(), **(network.from_public_weights(PUBLIC) or {})})
    block = network.encoder[0].blocks[1].eval()
    assert isinstance(block, SwinBlock)
    of = {
        name.removeprefix("layers.0.blocks.1."): value.double()
        for name, value in PUBLIC.items()
        if name.startswith("layers.0.blocks.1.")
    }
    x = torch.randn(1, 9, 8, 8, dtype=torch.float64)

    def norm(y: Tensor, name: str) -> Tensor:
        scaled = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return scaled * of[f"{name}.weight"] + of[f"{name}.bias"]

    with torch.no_grad():
        y = x + plain_attention(block.attention, norm(x, "norm1"))
        hidden = nn.functional.gelu(norm(y, "norm2") @ of["mlp.fc1.weight"].T + of["mlp.fc1.bias"])
        y = y + hidden @ of["mlp.fc2.weight"].T + of["mlp.fc2.bias"]
        torch.testing.assert_close(block.double()(x), y, atol=1e-8, rtol=1e-8)


def test_another_window_takes_an_interpolated_table_and_other_channels_an_embedding_of_their_own() -> None:
    wider = small(window_size=8).from_public_weights(PUBLIC)
    assert wider is not None
    table = wider["encoder.2.blocks.0.attention.bias_table"]
    assert table.shape == (225, 4)
    centre = PUBLIC["layers.2.blocks.0.attn.relative_position_bias_table"][
        84
    ]  # no offset; the middle stays the middle
    torch.testing.assert_close(table[112], centre)
    two = small(in_channels=2)
    found = two.from_public_weights(PUBLIC)
    assert found is not None
    assert "embed.conv.weight" not in found
    assert "embed.norm.weight" in found
    assert two.pretrained_layers()[0] == ("embed.norm.",)


def test_weights_of_another_format_are_none_of_ours() -> None:
    network = small()
    assert network.from_public_weights(network.state_dict()) is None
    assert network.from_public_weights({}) is None


def test_what_does_not_fit_is_listed_in_one_line() -> None:
    weights = {name: value for name, value in PUBLIC.items() if name != "layers.1.blocks.0.norm2.bias"}
    weights["norm.weight"] = torch.zeros(7)
    weights["absolute_pos_embed"] = torch.zeros(1, 9, 8)
    with pytest.raises(InputError) as caught:
        small().from_public_weights(weights)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing: layers.1.blocks.0.norm2.bias;" in message
    assert "1 unexpected: absolute_pos_embed;" in message
    assert "1 of another shape: norm.weight (7,) where (32,) is expected;" in message
    with pytest.raises(
        InputError, match=r"relative_position_bias_table \(169, 2\) where \(169, 4\) is expected"
    ):
        small(window_heads=(1, 4, 4)).from_public_weights(PUBLIC)


def test_pretrained_layers_are_in_order_and_cover_what_is_imported_into_the_encoder() -> None:
    network = small()
    layers = network.pretrained_layers()
    assert layers[0] == ("embed.",)
    assert layers[2] == ("encoder.0.blocks.1.", "encoder.0.merge.")
    assert layers[-1] == ("encoder.2.blocks.1.", "norm.")
    prefixes = [prefix for layer in layers for prefix in layer]
    for name, _ in network.named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == (
            name.split(".")[0] in ("embed", "encoder", "norm")
        )


WRONG = [
    ({"window_heads": (3, 4)}, "window_heads has 3 for stage 0; it must divide the 8 channels there"),
    (
        {"window_heads": (2, 4, 4)},
        "window_heads is (2, 4, 4), 3 entries; it must have one for each stage, and depths has 2",
    ),
    ({"depths": ()}, "depths is (); List should have at least 1 item after validation, not 0"),
    ({"depths": (2, 0)}, "depths.1 is 0; it must be greater than or equal to 1"),
    ({"embed_channels": 0}, "embed_channels is 0"),
    ({"window_size": 0}, "window_size is 0"),
    ({"mlp_ratio": 4.0}, "mlp_ratio is 4.0"),
    ({"drop_path": 1}, "drop_path is 1; it must be less than 1"),
    ({"in_channels": 0}, "in_channels is 0"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        build_small("SwinUNet", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
