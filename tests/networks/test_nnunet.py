"""nnU-Net's U-Nets against numbers of nnU-Net itself.

PUBLIC and OUTPUTS were computed with nnunetv2 2.8.1 and dynamic-network-architectures 0.4.4: `get_pool_and_conv_props`, `PlainConvUNet`
and `ResidualEncoderUNet`, built as the default and the residual planner build them for 2-D, for one channel and four classes.
"""

import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import count_parameters
from utseg.networks.layers.blocks import InstanceNorm
from utseg.networks.layers.sizes import upsample
from utseg.networks.nnunet import NnUNet, ResidualBlock
from utseg.networks.nnunet_topology import plan_topology

# patch, spacing: which axes are halved after each stage ("b" both, "y", "x"), kernels of the first stage, parameters plain and residual.
PUBLIC = {
    ((256, 256), (1.0, 1.0)): ("bbbbbb", (3, 3), 33_474_840, 105_919_832),
    ((224, 288), (1.25, 1.25)): ("bbbbb", (3, 3), 20_621_076, 71_818_580),
    ((320, 192), (1.25, 1.25)): ("bbbbb", (3, 3), 20_621_076, 71_818_580),
    ((48, 40), (1.25, 1.25)): ("bbb", (3, 3), 1_928_716, 8_728_908),
    ((256, 96), (1.0, 3.0)): ("ybbbb", (3, 1), 20_592_212, 71_789_716),
    ((40, 512), (3.0, 1.0)): ("xbbbxx", (1, 3), 32_397_400, 104_842_392),
    ((20, 9), (1.0, 1.0)): ("b", (3, 3), 101_572, 251_972),
    ((12, 4), (1.0, 1.0)): ("y", (3, 3), 97_476, 247_876),
}
# Logits [1, 2, 5::16, 7] of full resolution and [1, 3, 3::8, 5] of the third output, in float64; see `filled`.
OUTPUTS = {
    "plain": ([0.1068, 0.3448, 0.8747, 0.3501], [-0.4588, -0.7963]),
    "residual": ([-0.2193, -0.1117, 0.1966, -0.1496], [-0.6856, -1.178]),
}


def filled(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Weights that follow from their names."""
    weights = {}
    for name, shape in shapes.items():
        a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if len(shape) == 4:
            a /= math.sqrt(math.prod(shape[1:]))
        else:
            a = 1 + 0.1 * a if name.endswith("norm.weight") else 0.1 * a
        weights[name] = torch.from_numpy(a)
    return weights


@pytest.mark.parametrize(("patch", "spacing"), list(PUBLIC), ids=str)
def test_topology_and_parameters_are_nnunets(patch: tuple[int, int], spacing: tuple[float, float]) -> None:
    halved, first_kernel, *counts = PUBLIC[patch, spacing]
    topology = plan_topology(patch, spacing)
    assert topology.strides == ((1, 1), *({"b": (2, 2), "y": (2, 1), "x": (1, 2)}[axes] for axes in halved))
    assert topology.kernels[0] == first_kernel
    assert set(topology.kernels[1:]) == {(3, 3)}
    for architecture, count in zip(("plain", "residual"), counts, strict=True):
        with torch.device("meta"):
            network = NnUNet(
                architecture=architecture, patch_size=patch, spacing_yx_mm=spacing, aux_loss=True
            )
        # nnU-Net stores a head of the coarsest decoder stage too, which it never trains.
        unused = [min(512, 32 * 2**stage) for stage in range(len(network.heads), len(halved))]
        assert count_parameters(network) + sum(4 * channels + 4 for channels in unused) == count


@pytest.mark.parametrize("architecture", list(OUTPUTS))
def test_logits_are_nnunets(architecture: str) -> None:
    network = NnUNet(
        architecture=architecture,
        patch_size=(64, 48),
        spacing_yx_mm=(1.0, 2.5),
        base_channels=8,
        max_features=64,
        aux_loss=True,
    )
    network.load_state_dict(filled({name: value.shape for name, value in network.state_dict().items()}))
    x = torch.from_numpy(np.random.default_rng(zlib.crc32(b"x")).standard_normal((2, 1, 64, 48)))
    with torch.no_grad():
        maps = network.double().decoder_maps(x.float().double())
        outputs = [head(level_map) for head, level_map in zip(network.heads, maps[:3], strict=True)]
        torch.testing.assert_close(network.main_logits(x.float().double()), outputs[0])
    found = (outputs[0][1, 2, 5::16, 7], outputs[2][1, 3, 3::8, 5])
    for values, expected in zip(found, OUTPUTS[architecture], strict=True):
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-4)


@given(
    patch=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 1.9, 2.0, 3.1, 8.0])] * 2),
)
def test_topology_for_any_patch(patch: tuple[int, int], spacing: tuple[float, float]) -> None:
    topology = plan_topology(patch, spacing)
    assert len(topology.strides) == len(topology.kernels)
    assert topology.strides[0] == (1, 1)
    assert topology.kernels[-1] == (3, 3)
    for size, multiple in zip(patch, topology.multiple, strict=True):
        assert multiple == 1 or size / multiple > 3, (
            "the coarsest map has 4 pixels an axis, the last perhaps in part"
        )
    turned = plan_topology(patch[::-1], spacing[::-1])
    assert [stride[::-1] for stride in turned.strides] == list(topology.strides)
    assert [kernel[::-1] for kernel in turned.kernels] == list(topology.kernels)
    assert plan_topology(patch, (spacing[0] * 4, spacing[1] * 4)) == topology, "only the ratio counts"


def test_blocks_and_convolutions_of_each_stage() -> None:
    with torch.device("meta"):
        plain, residual = (NnUNet(architecture=a, aux_loss=True) for a in ("plain", "residual"))
    assert [len(stage) for stage in plain.encoder] == [2] * 7
    assert [len(stage) for stage in residual.encoder] == [1, 3, 4, 6, 6, 6, 6]
    assert [len(stage.convs) for stage in plain.decoder] == [2] * 6
    assert [len(stage.convs) for stage in residual.decoder] == [1] * 6
    assert len(plain.heads) == len(residual.heads) == 5
    assert [head.in_channels for head in plain.heads] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_torchs(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + torch.randn(2, 5, 7, 9)).contiguous(memory_format=memory_format)
    expected = F.instance_norm(x.double(), weight=norm.weight.double(), bias=norm.bias.double())
    torch.testing.assert_close(norm(x), expected.float(), atol=1e-5, rtol=1e-4)


def test_a_residual_branch_is_silent_at_first_and_learns_from_the_second_step_on() -> None:
    network = build_small("nnUNet", architecture="residual", patch_size=(32, 32), aux_loss=True)
    x = torch.rand(2, 4, 8, 8)
    block = ResidualBlock(4, 4, (3, 3))
    assert torch.equal(network.encoder[1][1].second.norm.weight, torch.zeros(8))
    with torch.no_grad():
        nn.init.zeros_(block.second.norm.weight)
        torch.testing.assert_close(block(x), x)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(logits.square().mean() for logits in network(torch.randn(2, 1, 35, 50))).backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_residual_encoder_takes_any_size_and_can_be_exported() -> None:
    network = build_small("nnUNet", architecture="residual", patch_size=(32, 32)).eval()
    x = torch.randn(3, 1, 35, 50)
    with torch.no_grad():
        y = network(x)
        assert y.shape == (3, 4, 35, 50)
        torch.testing.assert_close(network(x[1:2]), y[1:2], atol=1e-4, rtol=1e-3)
        program = torch.export.export(network, (x,))
        torch.testing.assert_close(program.module()(x), y, atol=1e-4, rtol=1e-3)


def test_each_axis_is_padded_to_its_own_multiple() -> None:
    network = build_small("nnUNet", patch_size=(64, 96), spacing_yx_mm=(3.0, 1.0)).eval()
    assert network.multiple == (8, 16)
    seen: list[torch.Size] = []
    network.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    with torch.no_grad():
        for size in ((72, 80), (73, 81)):
            assert network(torch.randn(1, 1, *size)).shape == (1, 4, *size)
    assert [tuple(shape[2:]) for shape in seen] == [(72, 80), (80, 96)]


def test_auxiliary_logits_at_their_own_size_are_those_before_upsampling() -> None:
    network = build_small("nnUNet", patch_size=(32, 32), aux_loss=True).eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        upsampled = network(x)
        network.upsamples_auxiliary = False
        own = network(x)
        assert [logits.shape[2:] for logits in own] == [(32 // 2**level,) * 2 for level in range(len(own))]
        assert len(own) > 1
        assert torch.equal(network.main_logits(x), own[0])
    for logits, full in zip(own, upsampled, strict=True):
        assert torch.equal(upsample(logits, (32, 32)), full)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resenc"}, "architecture is 'resenc'; it must be 'plain' or 'residual'"),
        ({"patch_size": (256,)}, "patch_size.1 is (256,); Field required"),
        ({"patch_size": 256}, "patch_size is 256"),
        ({"patch_size": "99"}, "patch_size is '99'"),
        ({"patch_size": (7, 7)}, "patch_size is (7, 7), at spacing_yx_mm (1.0, 1.0) too small"),
        ({"spacing_yx_mm": (1.0, 0.0)}, "spacing_yx_mm.1 is 0.0; it must be greater than 0"),
        ({"spacing_yx_mm": (1.0, math.nan)}, "spacing_yx_mm.1 is nan; it must be a finite number"),
        ({"spacing_yx_mm": (1.0, 1.0, 8.0)}, "spacing_yx_mm is (1.0, 1.0, 8.0)"),
        ({"max_features": 0}, "max_features is 0"),
        ({"base_channels": True}, "base_channels is True"),
    ],
    ids=str,
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=r"^[^\n]*$") as caught:
        build_small("nnUNet", **settings)
    assert message in str(caught.value)
