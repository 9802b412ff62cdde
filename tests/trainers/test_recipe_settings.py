"""`--set` on a network without attention: the plan's levels with attention follow where levels are fewer."""

import pytest
from tiny_runs import make_plan

from trainers.convolutional import recipe as convolutional_recipe
from trainers.hybrid import recipe as hybrid_recipe
from trainers.recipe import apply_settings
from utseg.errors import SettingError


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
