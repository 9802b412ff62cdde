"""What every registered network must do."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx_graph import onnx_logits
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from networks import golden_losses
from networks.small import SMALL, build_flat, build_small
from utseg.errors import SettingError, UsageError
from utseg.networks import build_network, forward_macs, network_names, network_settings
from utseg.networks.unet import UNet
from utseg.planning.task import NetworkTask

NAMES = network_names()
SIZES = [(35, 50), (128, 64), (5, 7), (72, 40)]


def all_outputs(y: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def rounding(y: Tensor) -> dict[str, float]:
    """What float32 may differ by: relative to the largest logit, as logits of some networks start out at 10 and more."""
    return {"atol": 1e-5 * max(1.0, y.abs().max().item()), "rtol": 1e-4}


def test_the_networks_of_the_issue_are_registered() -> None:
    assert set(SMALL) <= set(NAMES)


@pytest.mark.parametrize(
    ("channels", "classes", "aux", "sizes"), [(1, 4, True, SIZES), (3, 2, False, SIZES[::2])]
)
@pytest.mark.parametrize("name", NAMES)
def test_any_size_channels_and_classes_forward_and_backward(
    name: str, channels: int, classes: int, aux: bool, sizes: list[tuple[int, int]]
) -> None:
    network = build_small(name, in_channels=channels, num_classes=classes, aux_loss=aux)
    for size in sizes:
        x = torch.randn(2, channels, *size, requires_grad=True)
        y = network(x)
        assert isinstance(y, tuple) == aux
        for logits in all_outputs(y):
            assert logits.shape == (2, classes, *size)
            assert logits.isfinite().all()
        torch.stack([logits.square().mean() for logits in all_outputs(y)]).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_heads_begin_with_the_expected_share_of_foreground(name: str) -> None:
    network = build_small(name, num_classes=5, aux_loss=True)
    network.expect_foreground(0.2)
    for layer in network.scores if name == "FCN" else network.heads:
        nn.init.zeros_(layer.weight)
    for score in network.scores[:-1] if name == "FCN" else ():
        nn.init.zeros_(score.bias)
    for logits in all_outputs(network(torch.randn(1, 1, 96, 96))):
        assert torch.allclose(logits.softmax(1)[:, 1:, 40:56, 40:56], torch.tensor(0.05))


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_classes_in_another_order_give_the_same_outputs_in_that_order(name: str, aux: bool) -> None:
    """So weights can be matched with a dataset by the names of labels."""
    order = [0, 3, 1, 2]
    network, other = (build_small(name, num_classes=4, aux_loss=aux).eval() for _ in range(2))
    for parameter in network.parameters():  # FCN's upsampling would treat all classes alike to begin with
        parameter.data += 0.02 * torch.randn_like(parameter)
    other.load_state_dict(network.in_class_order(network.state_dict(), order))
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(all_outputs(other(x)), all_outputs(network(x)), strict=True):
            torch.testing.assert_close(ours, theirs[:, order], **rounding(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_channels_in_another_order_with_the_entries_of_their_weights_give_the_same_outputs(name: str) -> None:
    """So weights can be matched with a dataset by the names of channels."""
    order = [2, 0, 1]
    network, other = (build_small(name, in_channels=3).eval() for _ in range(2))
    values = network.state_dict()
    axes = NetworkTask(name, 3, 4, (64, 64), 1, SMALL.get(name, {"base_channels": 4})).input_axes()
    assert axes
    for key, along in axes.items():
        for axis in along:
            values[key] = values[key].index_select(axis, torch.tensor(order))
    other.load_state_dict(values)
    x_BCHW = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs, ours = network.main_logits(x_BCHW), other.main_logits(x_BCHW[:, order])
    torch.testing.assert_close(ours, theirs, **rounding(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_auxiliary_outputs_are_several_and_each_is_its_own(name: str) -> None:
    network = build_small(name, aux_loss=True).eval()
    with torch.no_grad():
        y = network(torch.randn(1, 1, 64, 48))
    assert len(y) == len(network.heads) >= 2
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(y))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build_small(name, aux_loss=True)
    y = network(torch.randn(2, 1, 35, 50))
    sum(logits.square().sum() for logits in all_outputs(y)).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_slices_do_not_see_their_neighbours(name: str) -> None:
    network = build_small(name, aux_loss=False).eval()
    x = torch.randn(3, 1, 40, 56)
    with torch.no_grad():
        y = network(x)
        assert torch.equal(network(x), y)
        for i in range(3):
            torch.testing.assert_close(network(x[i : i + 1]), y[i : i + 1], **rounding(y))


@pytest.mark.parametrize("aux_loss", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_main_logits_are_the_first_output_without_the_other_heads(name: str, aux_loss: bool) -> None:
    network = build_small(name, aux_loss=aux_loss).eval()
    x = torch.randn(1, 1, 35, 50)
    called: list[nn.Module] = []
    for head in network.heads[1:]:
        head.register_forward_hook(lambda module, *_: called.append(module))
    with torch.no_grad():
        main = network.main_logits(x)
        assert not called
        assert torch.equal(all_outputs(network(x))[0], main)
    assert len(called) == len(network.heads) - 1


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_its_weights_and_a_state_dict_round_trip_and_memory_formats_agree(name: str) -> None:
    network, other = build_small(name).eval(), build_small(name)
    for (key, value), again in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, again), key
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(network.state_dict(), strict=True)
    other.eval().to(memory_format=torch.contiguous_format)
    x = torch.randn(2, 1, 64, 48)
    with torch.no_grad():
        y = network.main_logits(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(other.main_logits(x), y, **rounding(y))


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
@pytest.mark.parametrize("name", [name for name in NAMES if "levels" in network_settings(name)])
def test_levels(name: str, levels: int) -> None:
    settings = network_settings(name)
    extra: dict[str, object] = {}
    if "block_list" in settings:
        every = tuple(range(levels + 1))
        extra = {"block_list": every, "num_heads": [2 for _ in every], "num_blocks": [1]}
    network = build_small(name, levels=levels, aux_loss=True, base_channels=2, **extra)
    y = network(torch.randn(1, 1, 33, 40))
    assert len(y) == levels
    assert all(logits.shape == (1, 4, 33, 40) for logits in y)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_trains(name: str) -> None:
    network = build_small(name, aux_loss=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(torch.randn(2, 1, 32, 32))
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_multiply_accumulates_are_counted_without_allocating(name: str) -> None:
    with torch.device("meta"):
        macs = forward_macs(build_small(name), torch.empty(1, 1, 256, 192))
    assert 0 < macs.computed <= macs.published < 2e9


@pytest.mark.parametrize("name", SMALL)
def test_five_steps_under_a_seed_end_at_the_recorded_loss(name: str) -> None:
    recorded = json.loads(golden_losses.FILE.read_text())
    assert golden_losses.loss_after_steps(name) == pytest.approx(recorded[name], rel=5e-3)


# The exporter is slow: every part of a network once. These are presets of others, others without a part, or (ResNet50_UTNet) parts of
# TransUNet and UTNet side by side.
NO_PART_OF_THEIR_OWN = ("UTNet_encoder", "ResUNet", "UNet", "ResNet50_UNet", "ResNet50_UTNet")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_PART_OF_THEIR_OWN])
def test_exported_graph_and_onnx_give_the_same_logits(name: str) -> None:
    network = build_flat(name, aux_loss=False).eval()
    x = torch.randn(2, 1, 35, 50)
    with torch.no_grad():
        expected = network(x)
        program = torch.export.export(network, (x,))
        torch.testing.assert_close(program.module()(x), expected, atol=1e-4, rtol=1e-4)
        found = onnx_logits(program, x)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-3)


def test_unknown_names_and_settings_list_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"UNet.*UTNet"):
        build_network("UTnet2", in_channels=1, num_classes=4)
    with pytest.raises(SettingError, match=r"no setting 'bas_channels'; there are: .*base_channels"):
        build_network("UNet", in_channels=1, num_classes=4, bas_channels=3)
    assert network_settings("UTNet")["block_list"] == (1, 2, 3, 4)
    assert not {"in_channels", "num_classes"} & set(network_settings("UTNet"))


WRONG = [
    ("UTNet", {"num_heads": (4, 4, 4, 5)}, "num_heads has 5 for level 4; it must divide the 64 channels"),
    ("UTNet", {"num_heads": (4, 4)}, "num_heads is (4, 4), 2 entries"),
    ("UTNet", {"num_heads": 4}, "num_heads is 4; it must be a valid list"),
    ("UTNet", {"num_blocks": (1, 1, 0, 1)}, "num_blocks.2 is 0; it must be greater than or equal to 1"),
    ("UTNet", {"block_list": (1, 5)}, "block_list has the entry 5; allowed are levels from 0 to 4"),
    ("UTNet", {"block_list": (2, 2)}, "each once"),
    ("UTNet", {"block_list": "1234"}, "block_list is '1234'"),
    ("UTNet", {"block_list": (0, 1, 2, 3, 4)}, "level 0 in block_list needs an entry"),
    ("UTNet", {"projection": "nearest"}, "projection is 'nearest'; it must be 'interp' or 'maxpool'"),
    (
        "UTNet",
        {"relative_position": "2d"},
        "relative_position is '2d'; it must be '2d-bias', '1d-qk' or 'none'",
    ),
    ("UTNet", {"reduce_size": 1}, "reduce_size is 1"),
    ("UTNet", {"attention_dropout": 1}, "attention_dropout is 1"),
    ("UTNet", {"attention_dropout": float("nan")}, "attention_dropout is nan; it must be a finite number"),
    ("UTNet", {"levels": 0}, "levels is 0"),
    ("UTNet", {"base_channels": 2.5}, "base_channels is 2.5"),
    ("UNet", {"aux_loss": 1}, "aux_loss is 1"),
    ("UNet", {"num_classes": 0}, "num_classes is 0"),
    ("UNet", {"in_channels": True}, "in_channels is True"),
    ("UNet", {"norm": "group"}, "norm is 'group'; it must be 'batch' or 'instance'"),
    ("UNet", {"upsampling": "nearest"}, "upsampling is 'nearest'"),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG, ids=[str(w[1]) for w in WRONG])
def test_wrong_settings_name_the_setting_its_value_and_what_is_allowed(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        build_small(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Typed(UNet):
    """A network of somebody else, with plain types."""

    def __init__(
        self, *, in_channels: int, num_classes: int, levels: int = 2, aux_loss: bool = False
    ) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes, levels=levels, aux_loss=aux_loss)


class Untyped(UNet):
    """One that hands on what it does not know, with types that only a type checker sees."""

    def __init__(self, *, aux_loss: "Unseen" = False, **rest) -> None:  # type: ignore[no-untyped-def]  # noqa: F821
        super().__init__(aux_loss=aux_loss, **rest)


@pytest.mark.parametrize("network", [Typed, Untyped])
def test_settings_of_a_network_of_somebody_else_are_checked_too(monkeypatch, network: type[UNet]) -> None:
    monkeypatch.setattr("utseg.networks.find", lambda kind, name: network)
    name = network.__name__

    def build(**settings: object) -> nn.Module:
        return build_network(name, **{"in_channels": 1, "num_classes": 2} | settings)  # type: ignore[arg-type]

    assert len(build(aux_loss=True).heads) > 1
    wrong = [{"aux_loss": "no"}, {"aux_loss": 1}, {"num_classes": 0}, {"num_classes": True}]
    for settings in [
        *wrong,
        *([{"levels": 0}, {"levels": True}, {"levels": "2"}] if network is Typed else []),
    ]:
        with pytest.raises(SettingError, match=next(iter(settings))):
            build(**settings)


def test_importing_the_room_does_not_import_torch() -> None:
    code = "import sys, utseg.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_can_be_planned_with_fake_tensors(name: str) -> None:
    with FakeTensorMode():
        network = build_flat(name, aux_loss=True)
        y = network(torch.randn(64, 1, 2048, 2048))
        sum(logits.sum() for logits in y).backward()
        assert y[0].shape == (64, 4, 2048, 2048)
        assert all(p.grad is not None for p in network.parameters())
