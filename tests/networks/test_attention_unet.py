"""Attention U-Net: gates that the coarser map opens and closes."""

import pytest
import torch
from torch.nn import functional as F

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.attention_unet import AttentionGate, GatedUpStage


def test_the_gate_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(3, 5).double()
    skip, coarser = torch.randn(2, 3, 8, 6, dtype=torch.float64), torch.randn(2, 5, 4, 3, dtype=torch.float64)
    quarters = skip.unfold(2, 2, 2).unfold(3, 2, 2)
    inside = torch.einsum("bcyxij,ocij->boyx", quarters, gate.from_skip.weight)
    inside = inside + torch.einsum("bgyx,og->boyx", coarser, gate.from_gate.weight[..., 0, 0])
    inside = (inside + gate.from_gate.bias[:, None, None]).clamp(min=0)
    score = torch.einsum("bcyx,c->byx", inside, gate.score.weight[0, :, 0, 0]) + gate.score.bias
    alpha = F.interpolate(
        1 / (1 + torch.exp(-score[:, None])), size=(8, 6), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(gate.coefficients(skip, coarser), alpha)
    torch.testing.assert_close(gate(skip, coarser), alpha * skip)
    assert 0 < alpha.min() < alpha.max() < 1


def test_the_gate_decides_whether_the_skip_is_seen() -> None:
    torch.manual_seed(0)
    stage = GatedUpStage(4, "batch", "transposed").eval()
    low, skip, other = torch.randn(1, 8, 4, 4), torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        stage.gate.score.weight.zero_()
        stage.gate.score.bias.fill_(-200)
        assert torch.equal(stage(low, skip), stage(low, other)), "closed"
        stage.gate.score.bias.fill_(200)
        torch.testing.assert_close(stage(low, skip), stage.up(low, skip))
        assert not torch.allclose(stage(low, skip), stage(low, other)), "open"


def test_it_is_the_unet_and_gates_at_all_skips_but_the_finest() -> None:
    network = build_network("AttentionUNet", in_channels=1, num_classes=4)
    gates = sum(4 * c * c + (2 * c * c + c) + (c + 1) for c in (64, 128, 256))
    plain = count_parameters(build_network("UNet", in_channels=1, num_classes=4))
    assert count_parameters(network) == plain + gates
    assert [isinstance(stage, GatedUpStage) for stage in network.decoder] == [False, True, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "layer"}, "norm is 'layer'; it must be 'batch' or 'instance'"),
        ({"upsampling": "nearest"}, "upsampling is 'nearest'; it must be 'transposed' or 'bilinear'"),
        ({"levels": 0}, "levels is 0"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=r"^[^\n]*$") as caught:
        build_small("AttentionUNet", **settings)
    assert message in str(caught.value)
