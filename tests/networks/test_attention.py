"""Efficient attention and the whole UTNet equal their straightforward forms, values and gradients."""

import pytest
import torch
from torch import Tensor

from utseg.networks import build_network, import_official_state_dict
from utseg.networks.layers.attend import attend, coarse_cells
from utseg.networks.layers.attention import EfficientAttention
from utseg.networks.pretrained.official import export_official_state_dict

from .oracle import OracleUTNet

EVERY_LEVEL = {"block_list": (0, 1, 2, 3, 4), "num_heads": (1, 2, 2, 4, 4)}
CONFIGS = {
    "default": {},
    "1d-qk": {"relative_position": "1d-qk"},
    "none, maxpool": {"relative_position": "none", "projection": "maxpool"},
    "1d-qk, maxpool, reduce 4": {"relative_position": "1d-qk", "projection": "maxpool", "reduce_size": 4},
    "level 0": {"block_list": (0, 1, 2, 3, 4), "num_heads": (1, 2, 4, 2, 4), "reduce_size": 4},
    "several blocks, reduce 3": {
        "block_list": (2, 3, 4),
        "num_blocks": (2, 1, 2),
        "num_heads": (2, 4, 8),
        "reduce_size": 3,
    },
    "encoder only": {"attention_in": "encoder"},
    "decoder only": {"attention_in": "decoder"},
    "no attention": {"block_list": ()},
    "strided": {"downsampling": "strided"},
    "strided, encoder only": {"downsampling": "strided", "attention_in": "encoder"},
    "bottleneck": {**EVERY_LEVEL, "bottleneck": True},
    "bottleneck, strided": {**EVERY_LEVEL, "bottleneck": True, "downsampling": "strided"},
}


def pair(size: int, **settings: object) -> tuple[torch.nn.Module, OracleUTNet]:
    """Ours and the oracle, with one set of weights, none of them at a special value."""
    torch.manual_seed(0)
    oracle = OracleUTNet(1, 4, size, dropout=0.0, **settings)
    with torch.no_grad():
        for name, value in oracle.state_dict().items():
            if value.ndim == 1 or "relative_position" in name:
                value.add_(torch.rand_like(value) * 0.5)
    ours = build_network(
        "UTNet", in_channels=1, num_classes=4, base_channels=size, attention_dropout=0.0, **settings
    )
    import_official_state_dict(ours, oracle.state_dict())
    return ours, oracle


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS.keys())
def test_outputs_equal_the_oracle(settings: dict[str, object]) -> None:
    ours, oracle = pair(8, **settings)
    x = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        for ours_is, oracle_is in zip(ours.eval()(x), oracle.eval()(x), strict=True):
            torch.testing.assert_close(ours_is, oracle_is, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS.keys())
def test_training_gradients_equal_the_oracle_in_float64(settings: dict[str, object]) -> None:
    ours, oracle = pair(4, **settings)
    ours.double(), oracle.double()
    x = torch.randn(2, 1, 32, 48, dtype=torch.float64)
    gradients: list[dict[str, Tensor]] = []
    for network in (ours, oracle):
        weights = (torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(4))
        sum((y * w.view(1, 4, 1, 1)).sin().sum() for y, w in zip(network(x), weights, strict=True)).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    found = export_official_state_dict(ours, gradients[0])
    assert set(found) == set(gradients[1])
    for name, expected in gradients[1].items():
        torch.testing.assert_close(
            found[name], expected, atol=1e-8, rtol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )
    states = export_official_state_dict(ours)
    for name, expected in oracle.state_dict().items():
        torch.testing.assert_close(states[name], expected, msg=lambda m, n=name: f"{n}: {m}")


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int], bias: Tensor | None, rc: object
) -> Tensor:
    """One query, one head, one key at a time."""
    B, E, N, D = q.shape
    K = k.shape[2]
    r = round(K**0.5)
    out = torch.zeros(B, N, E, D, dtype=q.dtype)
    for b in range(B):
        for e in range(E):
            for n in range(N):
                cell = (n // size[1]) * r // size[0] * r + (n % size[1]) * r // size[1]
                logits = []
                for j in range(K):
                    logit = (q[b, e, n] * k[b, e, j]).sum()
                    if bias is not None:
                        logit = logit + bias[e, cell, j]
                    if rc is not None:
                        logit = logit + rc[0][b, e, n, j // r] + rc[1][b, e, n, j % r]
                    logits.append(logit / D**0.5)
                out[b, n, e] = torch.stack(logits).softmax(0) @ v[b, e]
    return out


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 2), (7, 4)], ids=str)
@pytest.mark.parametrize("position", ["2d-bias", "1d-qk", "none"])
def test_attend_equals_plain_loops_in_float64(size: tuple[int, int], position: str) -> None:
    torch.manual_seed(0)
    B, E, D, r, N = 2, 2, 3, 2, size[0] * size[1]
    shapes = [(B, N, E, D), (B, E, r * r, D), (B, E, r * r, D), (E, r * r, r * r), (B, E, N, r), (B, E, N, r)]
    leaves = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    q, k, v, bias, s_h, s_w = leaves
    bias_given = bias if position == "2d-bias" else None
    rc = (s_h, s_w) if position == "1d-qk" else None
    q = q.transpose(1, 2)
    upstream = torch.randn(B, N, E, D, dtype=torch.float64)
    found = attend(q, k, v, size, bias_ECK=bias_given, rows_columns=rc)
    found_gradients = torch.autograd.grad(found, leaves, upstream, allow_unused=True)
    expected = plain_attention(q, k, v, size, bias_given, rc)
    expected_gradients = torch.autograd.grad(expected, leaves, upstream, allow_unused=True)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(found_gradients, expected_gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


def test_attention_weights_are_dropped_at_the_given_rate_and_scaled_up() -> None:
    torch.manual_seed(0)
    q, k = torch.zeros(1, 2, 64 * 64, 64), torch.zeros(1, 2, 64, 64)
    v = torch.eye(64).expand(1, 2, 64, 64)
    v.requires_grad_()
    weights = attend(q, k, v, (64, 64), dropout=0.1)
    kept = weights != 0
    assert abs(kept.float().mean().item() - 0.9) < 0.003
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 64 / 0.9))
    again = attend(q, k, v, (64, 64), dropout=0.1)
    assert not torch.equal(again != 0, kept), "each call draws anew"
    torch.manual_seed(0)
    assert torch.equal(attend(q, k, v, (64, 64), dropout=0.1), weights), "and the seed decides"


def test_gradients_of_dropped_weights_are_dropped_too() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, n, 4, dtype=torch.float64, requires_grad=True) for n in (48, 16, 16)]
    bias = torch.randn(2, 16, 16, dtype=torch.float64, requires_grad=True)

    def run(q: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend(q, k, v, (8, 6), bias_ECK=b, dropout=0.3)

    assert torch.autograd.gradcheck(run, (*inputs, bias), fast_mode=True)


@pytest.mark.parametrize("size", [3, 8, 13, 64])
def test_coarse_cells_are_floor_i_r_over_size(size: int) -> None:
    assert coarse_cells(size, 8).tolist() == [i * 8 // size for i in range(size)]


@pytest.mark.parametrize("relative_position", ["2d-bias", "1d-qk", "none"])
@pytest.mark.parametrize("projection", ["interp", "maxpool"])
def test_decoder_attention_takes_maps_of_any_two_sizes(relative_position: str, projection: str) -> None:
    module = EfficientAttention(
        8,
        2,
        reduce_size=4,
        projection=projection,
        relative_position=relative_position,
        dropout=0.0,
        key_channels=16,
    )
    for size, other in (((3, 10), (2, 5)), ((16, 8), (1, 1)), ((9, 9), (5, 20))):
        y = module(torch.randn(2, 8, *size), torch.randn(2, 16, *other))
        assert y.shape == (2, 8, *size)
        assert y.isfinite().all()
