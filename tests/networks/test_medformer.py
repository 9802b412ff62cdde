"""MedFormer: bidirectional attention, semantic maps and their fusion against plain references; size of the publication."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.medformer import (
    BidirectionalAttention,
    BidirectionalBlock,
    InvertedResidual,
    MapFusion,
    SemanticMap,
    join_heads,
    split_heads,
)


def matrix(conv: nn.Conv2d) -> Tensor:
    """A 1×1 convolution as (out, in)."""
    return conv.weight[:, :, 0, 0]


def plain_attention(
    module: BidirectionalAttention, x_BCHW: Tensor, map_BCSS: Tensor
) -> tuple[Tensor, Tensor]:
    """One similarity matrix, with its softmax taken along either side, head by head and image by image."""
    B, C, H, W = x_BCHW.shape
    D = C // module.heads
    mixed = F.conv2d(x_BCHW, module.from_pixels.depthwise.weight, padding=1, groups=C).flatten(2)
    pixels, entries = (
        torch.zeros(B, C, H * W).to(x_BCHW),
        torch.zeros(B, C, map_BCSS[0, 0].numel()).to(x_BCHW),
    )
    for image in range(B):
        q, v = (matrix(module.from_pixels.pointwise) @ mixed[image]).split(C)
        map_q, map_v = (matrix(module.from_map) @ map_BCSS[image].flatten(1)).split(C)
        for head in range(module.heads):
            part = slice(head * D, (head + 1) * D)
            similarity_NM = q[part].T @ map_q[part] / D**0.5
            pixels[image, part] = map_v[part] @ similarity_NM.softmax(1).T
            entries[image, part] = v[part] @ similarity_NM.softmax(0)
    entries = (matrix(module.to_map) @ entries).reshape(map_BCSS.shape)
    return module.to_pixels(pixels.reshape(x_BCHW.shape)), entries


@pytest.mark.parametrize("size", [(5, 8), (1, 3), (16, 16)], ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_both_directions_agree_with_a_plain_float64_reference(heads: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = BidirectionalAttention(16, heads, update_map=True)
    x, semantic = torch.randn(2, 16, *size), torch.randn(2, 16, 3, 3)
    with torch.no_grad():
        found = module(x, semantic)
        expected = plain_attention(module.double(), x.double(), semantic.double())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_gradients_of_both_directions_agree_with_the_reference() -> None:
    torch.manual_seed(0)
    module = BidirectionalAttention(8, 2, update_map=True).double()
    x = torch.randn(1, 8, 4, 6, dtype=torch.float64, requires_grad=True)
    semantic = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x), torch.randn_like(semantic)
    wanted = (x, semantic, *module.parameters())

    def gradients(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)), wanted)

    for a, b in zip(
        gradients(module(x, semantic)), gradients(plain_attention(module, x, semantic)), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)


def test_without_the_map_direction_pixels_get_the_same() -> None:
    both, one = BidirectionalAttention(8, 2, update_map=True), BidirectionalAttention(8, 2, update_map=False)
    state = both.state_dict()
    del state["to_map.weight"]
    one.load_state_dict({**state, "from_pixels.pointwise.weight": state["from_pixels.pointwise.weight"][:8]})
    x, semantic = torch.randn(2, 8, 5, 4), torch.randn(2, 8, 3, 3)
    pixels, nothing = one(x, semantic)
    assert nothing is None
    torch.testing.assert_close(pixels, both(x, semantic)[0])


def test_heads_split_and_join() -> None:
    x = torch.randn(2, 6, 3, 5)
    split = split_heads(x, 3)
    assert split.shape == (2, 3, 15, 2)
    assert torch.equal(split[1, 2, 7], x[1, 4:6, 1, 2])
    assert torch.equal(join_heads(split, (3, 5)), x)


def test_semantic_map_weighs_pixels_entry_by_entry() -> None:
    torch.manual_seed(0)
    module, x = SemanticMap(6, 2), torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        values, weights = module.values(x), module.weights(x)
        found = module(x)
        for image in range(2):
            for entry in range(4):
                share = weights[image, entry].flatten().softmax(0).reshape(5, 7)
                expected = (values[image] * share).sum((1, 2))
                torch.testing.assert_close(
                    found[image, :, entry // 2, entry % 2], expected, atol=1e-6, rtol=1e-5
                )


def test_a_semantic_map_does_not_grow_with_the_image() -> None:
    """Where every pixel is alike, an entry is that pixel's value, however many there are."""
    module = SemanticMap(4, 3)
    with torch.no_grad():
        nn.init.zeros_(module.weights.weight)
        module.values.weight.zero_()
        module.values.weight[range(4), range(4), 1, 1] = 1.0
        for size in ((2, 3), (9, 16)):
            found = module(torch.arange(4.0)[None, :, None, None].expand(1, 4, *size))
            torch.testing.assert_close(found, torch.arange(4.0)[None, :, None, None].expand(1, 4, 3, 3))


def test_fusion_lets_maps_of_all_levels_see_each_other_and_keeps_their_shapes() -> None:
    torch.manual_seed(0)
    fusion = MapFusion((4, 8, 16), width=16, heads=2, depth=1).eval()
    maps = [torch.randn(2, channels, 3, 3, requires_grad=True) for channels in (4, 8, 16)]
    fused = fusion(maps)
    assert [x.shape for x in fused] == [x.shape for x in maps]
    for target in fused:
        for grad in torch.autograd.grad(target[0, 0, 0, 0], maps, retain_graph=True):
            assert (grad[0] != 0).all()
            assert (grad[1] == 0).all()  # images do not see each other
    entry = [x.detach().flatten(2).mT for x in maps]
    with torch.no_grad():  # layer by layer, with the attention written out
        tokens = torch.cat([into(part) for into, part in zip(fusion.into, entry, strict=True)], dim=1)
        layer = fusion.layers[0]
        q, k, v = (
            part.unflatten(2, (2, 8)).transpose(1, 2) for part in layer.qkv(layer.norm1(tokens)).split(16, 2)
        )
        seen = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + layer.out(seen)
        tokens = tokens + layer.mlp(layer.norm2(tokens))
        expected = fusion.back[1](tokens[:, 9:18]).mT.reshape(2, 8, 3, 3)
    torch.testing.assert_close(fused[1], expected)


def test_inverted_residual_is_its_input_plus_a_weighed_branch() -> None:
    torch.manual_seed(0)
    block, x = InvertedResidual(4, 3).eval(), torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        kept = x.clone()
        y = block.depthwise(block.norm2(block.widen(block.norm1(x).relu())).relu())
        gate = block.excite(block.squeeze(F.adaptive_avg_pool2d(y, 1)).relu()).sigmoid()
        torch.testing.assert_close(block(x), x + block.narrow(block.norm3(y * gate)))
        assert torch.equal(x, kept)
        block.narrow.weight.zero_()
        assert torch.equal(block(x), x)


def test_a_block_adds_to_pixels_and_map_what_attention_gives_them() -> None:
    torch.manual_seed(0)
    block = BidirectionalBlock(8, 2, 2, update_map=True).eval()
    x, semantic = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 3, 3)
    with torch.no_grad():
        to_pixels, to_map = plain_attention(block.attention, block.norm(x), block.map_norm(semantic))
        pixels, entries = block(x, semantic)
    torch.testing.assert_close(pixels, block.feed_forward(x + to_pixels), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(entries, semantic + to_map, atol=1e-5, rtol=1e-4)


def test_parameters_at_the_published_size() -> None:
    """Counted from the layers of the authors' ACDC configuration: 19,187,044. 43,008 of them never take part and are not here: the last
    block's map direction (2 · 128²), and reductions of maps that no level reads (128 · 64 + 64 · 32).
    """
    with torch.device("meta"):
        network = build_network("MedFormer", in_channels=1, num_classes=4)
    assert count_parameters(network) == 19_187_044 - 43_008


def test_settings_shape_the_network() -> None:
    network = build_network(
        "MedFormer",
        in_channels=1,
        num_classes=2,
        base_channels=4,
        dim_head=8,
        semantic_map_size=4,
        attention_blocks=3,
    )
    heads = [[block.attention.heads for block in stage.blocks] for stage in network.attending_down]
    assert heads == [[2] * 3, [4] * 3, [8] * 3]
    assert [block.attention.to_map is None for block in network.attending_up[0].blocks] == [
        False,
        False,
        True,
    ]
    assert all(block.attention.to_map is not None for block in network.attending_up[1].blocks)
    assert network.attending_down[0].semantic_map.weights.out_channels == 16
    y = network(torch.randn(2, 1, 33, 20))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


WRONG = [
    ({"dim_head": 12}, "dim_head is 12; it must divide the 16 channels of level 2 (base_channels · 4)"),
    ({"dim_head": 0}, "dim_head is 0"),
    ({"base_channels": 0}, "base_channels is 0"),
    ({"semantic_map_size": 0}, "semantic_map_size is 0"),
    ({"attention_blocks": 0}, "attention_blocks is 0"),
    ({"expansion": 2.0}, "expansion is 2.0"),
    ({"fusion_depth": 0}, "fusion_depth is 0"),
    ({"in_channels": 0}, "in_channels is 0"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        build_small("MedFormer", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
