"""What a user sets on a plan: the value, its reason, and what cannot be set."""

import pytest
from plans import make_plan

from utseg.errors import SettingError
from utseg.planning.override import override
from utseg.planning.plan import IDENTITY_KEYS, Plan, read_plan, write_plan
from utseg.settings import parse_settings, setting_keys


@pytest.fixture
def plan() -> Plan:
    reasons = {key: "planned" for key in setting_keys(Plan) if key not in IDENTITY_KEYS}
    network = {
        "base_channels": 8,
        "block_list": (1,),
        "num_blocks": (1,),
        "num_heads": (4,),
        "reduce_size": 8,
    }
    return make_plan(patch_size=(64, 64), network=network, reasons=reasons)


def test_values_and_reasons_change_together(plan: Plan, tmp_path):
    changed = override(plan, {"network.base_channels": 16, "patch_size": [32, 48]})
    assert changed.network["base_channels"] == 16
    assert changed.patch_size == (32, 48)
    assert changed.reasons["network.base_channels"] == "set by the user; the planner had 8"
    assert changed.reasons["patch_size"] == "set by the user; the planner had [64, 64]"
    assert changed.reasons["batch_size"] == "planned"
    assert changed.estimated_memory_gb == plan.estimated_memory_gb
    assert plan.patch_size == (64, 64)
    write_plan(changed, tmp_path)
    assert read_plan(tmp_path) == changed


@pytest.mark.parametrize("changes", [{}, {"configuration": "2.5d", "neighbour_distance_mm": 8.0}])
def test_a_plan_lies_in_a_folder_of_its_configuration(changes, tmp_path):
    plan = make_plan(**changes)
    for name in ("mine_2d", "mine_2.5d"):
        folder = tmp_path / name
        folder.mkdir()
        write_plan(plan, folder)
        if name == f"mine_{plan.configuration}":
            assert read_plan(folder) == plan
        else:
            with pytest.raises(SettingError, match=f"configuration: expected .* found {plan.configuration};"):
                read_plan(folder)


@pytest.mark.parametrize(
    ("values", "focus"),
    [
        ({"patch_size": [48, 64]}, False),
        ({"preprocessing.spacing_yx_mm": [1.0, 1.0]}, False),
        ({"patch_size": [64, 96]}, True),
        ({"batch_size": 2}, True),
        ({"patch_size": [48, 64], "focus": True}, True),
    ],
)
def test_a_smaller_patch_is_not_taken_to_hold_all_structures(plan: Plan, values, focus):
    changed = override(plan.model_copy(update={"focus": True}), values)
    assert changed.focus is focus
    assert ("smaller patch" in changed.reasons["focus"]) is (not focus)


def test_nothing_set_is_the_same_plan(plan: Plan):
    assert override(plan, {}) == plan


def test_unknown_keys_name_the_nearest(plan: Plan):
    with pytest.raises(SettingError, match=r"did you mean 'patch_size'.*network\.reduce_size"):
        override(plan, {"patchsize": [32, 32]})


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000, "9" * 400])
def test_a_value_without_end_is_refused_in_a_short_line(plan: Plan, value):
    with pytest.raises(SettingError) as refused:
        override(plan, parse_settings([f"epochs={value}"]))
    assert len(str(refused.value)) < 500


def test_wrong_values_name_the_key(plan: Plan):
    with pytest.raises(SettingError, match=r"network\.base_channels is 0"):
        override(plan, {"network.base_channels": 0})


@pytest.mark.parametrize("key", IDENTITY_KEYS)
def test_what_the_plan_is_of_cannot_be_set(plan: Plan, key: str):
    with pytest.raises(SettingError, match=f"unknown key '{key}'"):
        override(plan, {key: "x"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing.clip_percentiles", [98, 5]),
        ("preprocessing.clip_percentiles", [5, 5]),
        ("preprocessing.normalisation", ["z-score", "noNorm"]),
        ("preprocessing.normalisation", "x-score"),
        ("preprocessing.normalisation", [{"lower": 0, "upper": 1, "mean": 0, "sd": 0}]),
        ("augmentation.intensity_unit", [1, 2]),
        ("augmentation.scale_range", [1.2, 0.8]),
        ("augmentation.scale_range", [0, 1]),
        ("augmentation.contrast_range", [-0.5, 1]),
        ("augmentation.gamma_range", [0, 0]),
        ("augmentation.noise_sd_range", [-0.1, 0.1]),
        ("augmentation.brightness_range", [0.1, -0.1]),
        ("augmentation.blur_sd_mm_range", [-1, 1]),
        ("augmentation.resolution_range", [0.5, 1.5]),
        ("augmentation.resolution_range", [0, 1]),
        ("augmentation.histogram_share_range", [0.5, 1.1]),
        ("augmentation.histogram_share_range", [-0.1, 1]),
    ],
)
def test_impossible_values_are_refused_in_one_line_that_names_the_key(plan: Plan, key: str, value: list):
    with pytest.raises(SettingError) as raised:
        override(plan, {key: value})
    assert str(raised.value).startswith(f"--set: {key}: expected ") and "\n" not in str(raised.value)


def test_a_level_has_attention_once(plan: Plan):
    twice = {"network.num_blocks": [1, 1], "network.num_heads": [4, 4]}
    for levels in ([1, 1], [3], [-1]):
        with pytest.raises(
            SettingError, match=r"--set: network\.block_list.*(levels from 0 to 2, each once|or equal to 0)"
        ):
            override(plan, {"network.block_list": levels, **twice})
    assert override(plan, {"network.block_list": [0, 2], **twice}).network["block_list"] == [0, 2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing.clip_percentiles", (0, 100)),
        ("augmentation.noise_sd_range", (0, 0)),
        ("augmentation.brightness_range", (-0.2, 0.2)),
    ],
)
def test_values_on_the_border_are_allowed(plan: Plan, key: str, value: tuple):
    assert override(plan, {key: list(value)}).reasons[key].startswith("set by the user")
