"""UTNet gives the numbers of the official implementation, through the importer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utseg.errors import InputError
from utseg.networks import build_network, count_parameters, import_official_state_dict
from utseg.networks.layers.attention import PositionLogits1D
from utseg.networks.pretrained.official import export_official_state_dict

from . import golden


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "golden"


@pytest.mark.parametrize("case", golden.CASES)
def test_outputs_equal_the_official_ones(folder: Path, case: str) -> None:
    entry = golden.index(folder)[case]
    network = build_network("UTNet", in_channels=1, **golden.settings(case, entry["config"]))
    assert count_parameters(network) == entry["parameters"]
    import_official_state_dict(network, golden.state_dict(entry))
    x, expected = golden.outputs(folder, case)
    network.eval()
    with torch.no_grad():
        found = network(x)
        main = network.main_logits(x)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected) == entry["outputs"]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    torch.testing.assert_close(main, expected[0], atol=1e-4, rtol=0)


def test_relative_logits_1d_equal_the_official_ones(folder: Path) -> None:
    config = golden.index(folder)["relative_logits_1d"]["config"]
    position = PositionLogits1D(config["reduce_size"], config["dim_head"])
    with np.load(folder / "relative_logits_1d.npz", allow_pickle=False) as stored, torch.no_grad():
        position.key_w.copy_(golden.formula("key_rel_w", tuple(position.key_w.shape)))
        position.key_h.copy_(golden.formula("key_rel_h", tuple(position.key_h.shape)))
        s_h, s_w = position(torch.from_numpy(stored["q"]), tuple(config["feature_size"]))
        r = config["reduce_size"]
        rel_h = s_h[..., :, None].expand(*s_h.shape, r).flatten(3)
        rel_w = s_w[..., None, :].expand(*s_w.shape[:-1], r, r).flatten(3)
        torch.testing.assert_close(rel_h, torch.from_numpy(stored["rel_h"]), atol=1e-4, rtol=0)
        torch.testing.assert_close(rel_w, torch.from_numpy(stored["rel_w"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["utnet_default", "utnet_234_rs4", "resunet_no_attention"])
def test_export_is_the_inverse_of_import(folder: Path, case: str) -> None:
    entry = golden.index(folder)[case]
    network = build_network("UTNet", in_channels=1, **golden.settings(case, entry["config"]))
    weights = golden.state_dict(entry)
    import_official_state_dict(network, {f"module.{name}": value for name, value in weights.items()})
    exported = export_official_state_dict(network)
    assert {name for name in exported if not name.endswith("num_batches_tracked")} == set(weights)
    for name, value in weights.items():
        assert torch.equal(exported[name], value), name


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 10_018_500),
        ({"aux_loss": True}, 10_018_500 + 1_804),
        ({"reduce_size": 4}, 10_013_572),
        ({"reduce_size": 16}, 10_039_108),
        ({"relative_position": "none"}, 10_012_200),
        ({"attention_in": "encoder"}, 10_944_056),
        ({"block_list": ()}, 15_449_256),
    ],
)
def test_parameter_counts_of_the_published_sizes(settings: dict[str, object], parameters: int) -> None:
    network = build_network("UTNet", in_channels=1, num_classes=4, **{"aux_loss": False, **settings})
    assert count_parameters(network) == parameters


@pytest.fixture
def small() -> torch.nn.Module:
    return build_network("UTNet", in_channels=1, num_classes=2, base_channels=4, aux_loss=False)


def test_importer_lists_all_that_does_not_fit_and_changes_nothing(small: torch.nn.Module) -> None:
    weights = export_official_state_dict(small)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    weights = {name: value + 1 for name, value in weights.items()}
    del weights["inc.0.conv1.weight"]
    weights["outc.weight"] = torch.zeros(7, 4, 1, 1)
    weights["head.weight"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        import_official_state_dict(small, weights)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing: inc.0.conv1.weight" in message
    assert "1 unexpected: head.weight" in message
    assert "outc.weight (7, 4, 1, 1) where (2, 4, 1, 1) is expected" in message
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_importer_takes_counters_and_constant_buffers(small: torch.nn.Module) -> None:
    weights = export_official_state_dict(small)
    weights["inc.0.bn1.num_batches_tracked"] = torch.tensor(17)
    weights["up1.attn_decoder.attn.relative_position_encoding.relative_position_index"] = torch.zeros(64, 64)
    import_official_state_dict(small, weights)
    assert int(small.get_buffer("encoder.0.first.norm1.num_batches_tracked")) == 17


def test_importer_refuses_other_networks() -> None:
    with pytest.raises(InputError, match="do not fit a UNet"):
        import_official_state_dict(build_network("UNet", in_channels=1, num_classes=2, base_channels=2), {})
