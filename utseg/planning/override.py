"""`--set` on a plan: values by dotted key, checked; those of its network by the network itself."""

from collections.abc import Mapping
from typing import Any

from utseg.errors import SettingError
from utseg.networks import network_class, network_settings
from utseg.planning.plan import IDENTITY_KEYS, NETWORK_PREFIX, Plan
from utseg.planning.task import for_network, planned_task
from utseg.settings import setting_keys, unknown_key, with_settings


def settable_keys(network_name: str) -> list[str]:
    """What may be set of a plan: all but what says what the plan is of (dataset, labels, …), and the settings of its network."""
    keys = [key for key in setting_keys(Plan) if key not in IDENTITY_KEYS]
    return keys + [NETWORK_PREFIX + key for key in network_settings(network_name)]


def override(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The plan with values that the user set; their reasons say so. Nothing else is planned or estimated again, but a smaller patch
    is no longer taken to hold all structures (`focus`).

    Raises SettingError for a key that cannot be set and for a wrong value.
    """
    if not values:
        return plan
    known = settable_keys(plan.network_name)
    for key in values:
        if key not in known:
            raise unknown_key(key, known)
    given = {key: value for key, value in values.items() if key.startswith(NETWORK_PREFIX)}
    changed = with_settings(plan, {key: value for key, value in values.items() if key not in given})
    before = plan.model_dump(mode="json")
    why = {key: f"set by the user; the planner had {_value_at(before, key)}" for key in values}
    if (
        changed.focus
        and "focus" not in values
        and any(_mm(changed)[axis] < _mm(plan)[axis] for axis in (0, 1))
    ):
        changed = changed.model_copy(update={"focus": False})
        why["focus"] = (
            "False: the user set a smaller patch than that which was planned to hold all structures"
        )
    if given:
        own = {key.removeprefix(NETWORK_PREFIX): value for key, value in given.items()}
        network = network_class(plan.network_name).completed_settings(plan.network, own)
        changed = with_settings(changed, {"network": network})
        for key, value in changed.network.items():
            if key not in own and value != plan.network.get(key):
                had = plan.network.get(key)
                why[NETWORK_PREFIX + key] = (
                    f"follows {', '.join(given)}, set by the user; the planner had {had}"
                )
        try:
            planned_task(changed).build("meta")
        except SettingError as error:
            raise SettingError(f"--set: network.{error}") from None
    return changed.model_copy(update={"reasons": {**plan.reasons, **why}})


def override_for(plan: Plan, network_name: str, values: Mapping[str, Any]) -> Plan:
    """As `override`, of the plan for a network: SettingError says so where that is another than planned, and cannot be built with these."""
    if network_name == plan.network_name:
        return override(plan, values)
    given = {key: value for key, value in values.items() if key.startswith(NETWORK_PREFIX)}
    others = {key: value for key, value in values.items() if key not in given}
    changed = override(for_network(plan, network_name), others)
    try:
        changed = override(changed, given)
        planned_task(changed).build("meta")
    except SettingError as error:
        raise SettingError(
            f"{error}; the plan was made for network {plan.network_name}: take that (-m {plan.network_name}), or plan for {network_name} "
            f"(utseg_plan_and_preprocess -m {network_name} --replan)"
        ) from None
    return changed


def _mm(plan: Plan) -> tuple[float, float]:
    """Size of a patch."""
    (height, width), (y, x) = plan.patch_size, plan.preprocessing.spacing_yx_mm
    return height * y, width * x


def _value_at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part, "its default")
    return tree
