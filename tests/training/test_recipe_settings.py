"""`--set` on levels and what belongs to each of them: what is not said follows."""

import pytest
from tiny_runs import make_plan

from trainers.convolutional import recipe as convolutional_recipe
from trainers.hybrid import recipe as hybrid_recipe
from utseg.errors import SettingError
from utseg.planning.plan import override
from utseg.training.recipe import apply_settings


def test_a_network_without_attention_may_have_fewer_levels_than_the_plan():
    _, plan, extra = apply_settings(
        convolutional_recipe("UNet"), make_plan(), {"network.levels": 1}, ("base_channels", "levels")
    )
    assert (plan.network.levels, plan.network.block_list, plan.network.num_heads) == (1, (1,), (1,))
    assert extra == {}


def test_with_attention_the_levels_have_to_be_said_too():
    with pytest.raises(SettingError, match=r"network\.block_list: expected levels from 0 to 1"):
        apply_settings(
            hybrid_recipe("UTNet"), make_plan(), {"network.levels": 1}, ("levels", "block_list", "num_heads")
        )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"network.block_list": [2]}, ((2,), (3,), (2,))),
        ({"network.block_list": 2}, ((2,), (3,), (2,))),
        ({"network.block_list": [0, 1, 2]}, ((0, 1, 2), (1, 1, 3), (4, 4, 2))),
        ({"network.block_list": []}, ((), (), ())),
        ({"network.num_heads": 4}, ((1, 2), (1, 3), (4, 4))),
        ({"network.block_list": [1], "network.num_heads": [2]}, ((1,), (1,), (2,))),
        ({"network.block_list": [0, 2], "network.num_blocks": [5]}, ((0, 2), (5, 5), (4, 2))),
    ],
    ids=str,
)
def test_blocks_and_heads_follow_the_levels(settings, expected):
    keys = ("levels", "block_list", "num_blocks", "num_heads")
    planned = make_plan(network={"num_blocks": (1, 3), "num_heads": (4, 2)})
    found = apply_settings(hybrid_recipe("UTNet"), planned, settings, keys)[1].network
    assert (found.block_list, found.num_blocks, found.num_heads) == expected
    replanned = override(planned, settings)
    assert (replanned.network.block_list, replanned.network.num_heads) == expected[::2]
    if "network.num_blocks" not in settings and "network.block_list" in settings:
        assert replanned.reasons["network.num_blocks"].startswith("follows network.block_list")


def test_wrong_lists_are_refused_in_one_line():
    for settings, message in (
        ({"network.block_list": [1, 1]}, "each once"),
        ({"network.block_list": "1234"}, "block_list"),
        ({"network.num_heads": [1, 2, 3]}, "one entry for each level"),
        ({"network.num_heads": True}, "num_heads"),
    ):
        with pytest.raises(SettingError, match=message):
            apply_settings(
                hybrid_recipe("UTNet"), make_plan(), settings, ("levels", "block_list", "num_heads")
            )
