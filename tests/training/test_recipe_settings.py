"""Recipes by name, and `--set` on them: of levels and what belongs to each, what is not said follows."""

import pytest
from tiny_runs import make_plan

from trainers.utnet import recipe
from utseg.errors import SettingError, UsageError
from utseg.training import recipe as recipes
from utseg.training.recipe import apply_settings, find_recipe


def test_a_package_of_somebody_else_adds_a_recipe(monkeypatch):
    """By an entry point that makes a recipe of a network's name; `-m` may be the recipe's name too."""
    found = {"mine": lambda name: recipe("UNet"), "old": lambda name: None}
    monkeypatch.setattr(recipes, "names", lambda kind: [*found] if kind == "trainers" else ["UNet"])
    monkeypatch.setattr(recipes, "find", lambda kind, name: found[name])
    assert find_recipe("mine").network_name == "UNet"
    with pytest.raises(
        UsageError, match=r"trainer old: expected a utseg\.training\.recipe\.Recipe, got NoneType"
    ):
        find_recipe("old")
    with pytest.raises(
        UsageError, match=r"no network is called 'UNett'; there are: UNet \(and trainers: mine, old\)"
    ):
        find_recipe("UNett")


@pytest.mark.parametrize(("model", "optimizer"), [("UTNet", "sgd"), ("UNet", "sgd"), ("SwinUNet", "adamw")])
def test_a_network_is_trained_by_the_recipe_of_its_family(model, optimizer):
    assert (find_recipe(model).network_name, find_recipe(model).optimizer.name) == (model, optimizer)


@pytest.mark.parametrize(
    ("model", "settings", "found"),
    [
        ("SwinUNet", {}, "adamw with 0"),
        ("nnUNetTrainer", {}, "sgd with 0"),
        ("UNet", {"optimizer.name": "adamw"}, "adamw with 0.03"),
    ],
)
def test_orthogonal_updates_are_planned_for_any_network_but_asked_for_only_where_they_can_be(
    model, settings, found
):
    planned = make_plan(orthogonal_updates=True, network={})
    assert apply_settings(find_recipe(model), planned, settings)[1].orthogonal_updates
    with pytest.raises(SettingError, match=rf"--set orthogonal_updates: .* this recipe's is {found}$"):
        apply_settings(find_recipe(model), planned, settings | {"orthogonal_updates": True})
    apply_settings(find_recipe(model), planned, settings | {"orthogonal_updates": False})


def test_a_network_without_attention_may_have_fewer_levels_than_the_plan():
    _, plan = apply_settings(recipe("UNet"), make_plan(), {"network.levels": 1})
    assert (plan.network_name, plan.network) == ("UNet", {"base_channels": 4, "levels": 1})


def test_with_attention_the_levels_have_to_be_said_too():
    with pytest.raises(
        SettingError, match=r"network\.block_list has the entry 2; allowed are levels from 0 to 1"
    ):
        apply_settings(recipe("UTNet"), make_plan(), {"network.levels": 1})


def test_a_plan_for_another_network_whose_settings_do_not_fit_is_named_with_what_to_type():
    """UTNet, which utseg_train takes by default, has attention down to level 4; this plan has two levels. Asked only of networks."""
    changes = {"network_name": "UNet", "network": {"base_channels": 4, "levels": 2}}
    planned = make_plan().model_copy(update=changes)
    said = r"block_list has the entry 3; .*the plan was made for network UNet: take that \(-m UNet\), or plan for UTNet \(utseg_plan_"
    for settings in ({}, {"network.base_channels": 8}):
        with pytest.raises(SettingError, match=said):
            apply_settings(recipe("UTNet"), planned, settings)
    with pytest.raises(SettingError, match=r"^--set: batch_size: [^;]*; found 0$"):
        apply_settings(recipe("UTNet"), planned, {"batch_size": 0, "network.block_list": [1]})
    fits = {"network.block_list": [1, 2], "network.num_blocks": [1], "network.num_heads": [4]}
    assert apply_settings(recipe("UTNet"), planned, fits)[1].network["block_list"] == [1, 2]
    assert apply_settings(recipe("UNet"), planned, {})[1] is planned


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"network.block_list": [2]}, ([2], [3], [2])),
        ({"network.block_list": 2}, ([2], [3], [2])),
        ({"network.block_list": [0, 1, 2]}, ([0, 1, 2], [1, 1, 3], [4, 4, 2])),
        ({"network.block_list": []}, ([], [], [])),
        ({"network.num_heads": 4}, ([1, 2], [1, 3], [4])),
        ({"network.block_list": [1], "network.num_heads": [2]}, ([1], [1], [2])),
        ({"network.block_list": [0, 2], "network.num_blocks": [5]}, ([0, 2], [5], [4, 2])),
    ],
    ids=str,
)
def test_blocks_and_heads_follow_the_levels(settings, expected):
    planned = make_plan(network={"base_channels": 8, "num_blocks": (1, 3), "num_heads": (4, 2)})
    found = apply_settings(recipe("UTNet"), planned, settings)[1]
    assert tuple(found.network[key] for key in ("block_list", "num_blocks", "num_heads")) == expected
    if found.network["num_blocks"] != [1, 3] and "network.num_blocks" not in settings:
        assert found.reasons["network.num_blocks"].startswith("follows network.block_list")


def test_wrong_lists_are_refused_in_one_line():
    for settings, message in (
        ({"network.block_list": [1, 1]}, "each once"),
        ({"network.block_list": "1234"}, "block_list"),
        ({"network.num_heads": [1, 2, 3, 4]}, "4 entries"),
        ({"network.num_heads": True}, "num_heads"),
    ):
        with pytest.raises(SettingError, match=message):
            apply_settings(recipe("UTNet"), make_plan(), settings)


def test_class_weights_are_by_label_and_complete():
    found, _ = apply_settings(recipe("UTNet"), make_plan(), {"loss.class_weights": {"RV": 2}})
    assert list(found.loss.class_weights.items()) == [("LV", 1), ("MYO", 1), ("RV", 2)]
    assert not apply_settings(recipe("UTNet"), make_plan(), {})[0].loss.class_weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Rv": 2}, "loss.class_weights: 'Rv' is no label; labels: LV, MYO, RV "),
        ({"background": 2}, r"'background' is no label; .*\(the background's is loss.background_weight\)"),
        ({"RV": 0}, "loss.class_weights.RV: Input should be greater than 0; found 0"),
        ("2,1", "loss.class_weights: Input should be a valid dictionary"),
    ],
)
def test_class_weights_that_cannot_be(given, message):
    with pytest.raises(SettingError, match=message):
        apply_settings(recipe("UTNet"), make_plan(), {"loss.class_weights": given})
