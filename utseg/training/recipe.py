"""The recipe: how a network is trained, as one frozen value composed of small ones.

What is planned from the data (patch, batch, epochs, network size, augmentation) is in the Plan.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from utseg.errors import SettingError
from utseg.networks.losses import LossSettings
from utseg.planning.plan import IDENTITY_KEYS, PREPROCESSING_PREFIX, Plan, with_entries_by_level
from utseg.settings import Settings, setting_keys, unknown_key, with_settings

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NETWORK_PREFIX = "network."


class OptimizerSettings(Settings):
    """`learning_rate` is the peak, at the end of the warm-up. `momentum` and `nesterov` are SGD's, `betas` AdamW's.

    AdamW decays no biases, norms and position tables (parameters of fewer than two dimensions, and those called so).
    `pretrained_layer_decay`: in a run that starts from `--weights`, the rate of each layer of the pretrained part is this times that of the
    layer above it, so that what is near the image moves least. 1 is none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive
    momentum: Share = 0.9
    nesterov: bool = True
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: NotNegative = 1e-4
    pretrained_layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class ScheduleSettings(Settings):
    """Exponential warm-up of so many epochs, at most so large a share of the whole schedule, then polynomial decay to zero."""

    warmup_epochs: NotNegative = 5.0
    warmup_largest_share: Share = 0.05
    power: Positive = 0.9


class Recipe(Settings):
    """All of how a network is trained.

    `gradient_clip_norm` 0 is no clipping. `amp` "auto" is bfloat16 where the processor computes in it. `validate_every` is in epochs.
    `save_minutes` is the most that a killed run loses; the end and a signal are always saved. Memory layout (channels last) is the
    network's own affair.
    `weight_average` is the width of the running average of the weights that is validated and saved in place of the last ones, as a share
    of the training so far (`utseg.training.average`); 0 is none.
    """

    network_name: str
    optimizer: OptimizerSettings
    schedule: ScheduleSettings = ScheduleSettings()
    loss: LossSettings = LossSettings()
    gradient_clip_norm: NotNegative = 12.0
    amp: Literal["auto", "bfloat16", "off"] = "auto"
    validate_every: Annotated[int, Field(ge=1)] = 1
    save_minutes: Positive = 10.0
    weight_average: Annotated[float, Field(ge=0, le=0.28)] = 0.0


def apply_settings(
    recipe: Recipe, plan: Plan, settings: dict[str, Any], network_keys: tuple[str, ...]
) -> tuple[Recipe, Plan, dict[str, Any]]:
    """Applies `--set` values to recipe, plan, or the arguments of the network, which share one namespace of dotted keys.

    `network_keys` are the settings that the chosen network has. Those that the Plan does not know (a network of somebody else may have
    such) come back as the third value. An unknown key, or one that shapes the slices already on disk, raises SettingError.
    """
    recipe_keys = [key for key in setting_keys(Recipe) if key != "network_name"]
    all_plan_keys = setting_keys(Plan)
    fixed = {*IDENTITY_KEYS, "estimated_memory_gb"}
    plan_keys = [
        key
        for key in all_plan_keys
        if key not in fixed
        and not key.startswith(PREPROCESSING_PREFIX)
        and (not key.startswith(NETWORK_PREFIX) or key.removeprefix(NETWORK_PREFIX) in network_keys)
    ]
    extra_keys = [NETWORK_PREFIX + key for key in network_keys if NETWORK_PREFIX + key not in all_plan_keys]
    for key in settings:
        if key.startswith(PREPROCESSING_PREFIX):
            raise SettingError(
                f"--set {key}: the slices on disk were made with it; give it to utseg_plan_and_preprocess instead"
            )
        if key not in (known := [*plan_keys, *extra_keys, *recipe_keys]):
            raise unknown_key(key, known)
    return (
        with_settings(recipe, {key: value for key, value in settings.items() if key in recipe_keys}),
        with_settings(
            plan,
            {
                **_attention_within(plan, settings, network_keys),
                **with_entries_by_level(
                    plan.network, {key: value for key, value in settings.items() if key in plan_keys}
                ),
            },
        ),
        {key.removeprefix(NETWORK_PREFIX): value for key, value in settings.items() if key in extra_keys},
    )


def _attention_within(
    plan: Plan, settings: dict[str, Any], network_keys: tuple[str, ...]
) -> dict[str, list[int]]:
    """For a network without attention whose levels are set: the plan's levels with attention that are left, so that it stays valid."""
    levels = settings.get("network.levels")
    if "block_list" in network_keys or not isinstance(levels, int):
        return {}
    lists = ("block_list", "num_blocks", "num_heads")
    entries = zip(*(getattr(plan.network, name) for name in lists), strict=True)
    kept = [entry for entry in entries if entry[0] <= levels]
    return {f"network.{name}": [entry[place] for entry in kept] for place, name in enumerate(lists)}
