"""Which parameters are decayed, and how fast each layer learns."""

import pytest
import torch
from networks.small import build_small

from utseg.networks import network_names
from utseg.training.muon import ORTHOGONAL
from utseg.training.optimizer import layer_scales, make_optimizer, set_learning_rate
from utseg.training.recipe import OptimizerSettings

ADAMW = OptimizerSettings(name="adamw", learning_rate=1e-3, weight_decay=0.05, pretrained_layer_decay=0.5)


def group_of(optimizer, parameter):
    return next(g for g in optimizer.param_groups if any(parameter is p for p in g["params"]))


@pytest.mark.parametrize("settings", [ADAMW, OptimizerSettings(learning_rate=0.1)], ids=["adamw", "sgd"])
@pytest.mark.parametrize("name", network_names())
def test_every_parameter_is_in_one_group(name, settings):
    network = build_small(name)
    optimizer = make_optimizer(network, settings, pretrained=True)
    given = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in network.parameters())


def test_adamw_decays_weights_but_no_norms_biases_and_position_tables():
    network = build_small("UTNet")
    optimizer = make_optimizer(network, ADAMW, pretrained=False)
    decayed = {n for n, p in network.named_parameters() if group_of(optimizer, p)["weight_decay"]}
    assert all(p.ndim > 1 for n, p in network.named_parameters() if n in decayed)
    assert not any("norm" in n or "bias" in n for n in decayed)
    assert "encoder.0.first.conv1.weight" in decayed
    assert len(make_optimizer(network, ADAMW, pretrained=False).param_groups) == 2


def test_sgd_decays_everything_alike_as_published():
    (group,) = make_optimizer(
        build_small("UTNet"), OptimizerSettings(learning_rate=0.1), pretrained=True
    ).param_groups
    assert group["weight_decay"] == 1e-4


@pytest.mark.parametrize("name", ["TransUNet", "SwinUNet", "ResNet50_UNet"])
def test_pretrained_layers_learn_slower_the_nearer_they_are_to_the_image(name):
    network = build_small(name)
    layers = network.pretrained_layers()
    assert len(layers) > 2
    scales = layer_scales(network, 0.5)
    for position, prefixes in enumerate(layers):
        found = {scales[n] for n, _ in network.named_parameters() if n.startswith(prefixes)}
        assert found == {0.5 ** (len(layers) - position)}, (position, prefixes)
    assert {scales[n] for n, _ in network.named_parameters() if n.startswith("heads.")} == {1.0}


def test_the_schedule_reaches_each_group_by_its_scale_and_without_weights_all_alike():
    network = build_small("TransUNet")
    optimizer = make_optimizer(network, ADAMW, pretrained=True)
    set_learning_rate(optimizer, 0.1)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == 0.1
    assert min(rates) == pytest.approx(0.1 * 0.5 ** len(network.pretrained_layers()))
    optimizer = make_optimizer(network, ADAMW, pretrained=False)
    set_learning_rate(optimizer, 0.1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_no_decay_means_exactly_that():
    network = build_small("UTNet")
    optimizer = make_optimizer(network, ADAMW, pretrained=False)
    set_learning_rate(optimizer, 0.1)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        factor = 1 - 0.1 * group_of(optimizer, parameter)["weight_decay"]
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


ORTHOGONAL_RATE = OptimizerSettings(learning_rate=0.1, orthogonal_rate=0.02)


@pytest.mark.parametrize("name", network_names())
def test_orthogonal_updates_are_those_of_weights_from_maps_to_maps(name):
    network = build_small(name, base_channels=8) if name == "UTNet" else build_small(name)
    optimizer = make_optimizer(network, ORTHOGONAL_RATE, pretrained=False, orthogonal=True)
    matrices = {n for n, p in network.named_parameters() if group_of(optimizer, p)[ORTHOGONAL]}
    assert matrices
    for parameter_name in matrices:
        assert min(network.get_parameter(parameter_name).shape[:2]) >= 8
    assert not matrices & (network.position_tables() | set(network.class_axes()))
    set_learning_rate(optimizer, 0.1)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.02 if group[ORTHOGONAL] else 0.1)


@pytest.mark.parametrize(
    ("settings", "orthogonal", "expected"),
    [
        (ORTHOGONAL_RATE, False, torch.optim.SGD),
        (OptimizerSettings(learning_rate=0.1), True, torch.optim.SGD),
        (ORTHOGONAL_RATE.model_copy(update={"name": "adamw"}), True, torch.optim.AdamW),
    ],
)
def test_no_orthogonal_updates_where_the_plan_or_the_recipe_has_none(settings, orthogonal, expected):
    optimizer = make_optimizer(build_small("UTNet"), settings, pretrained=False, orthogonal=orthogonal)
    assert type(optimizer) is expected
