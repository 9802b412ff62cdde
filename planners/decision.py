"""A planned value and why it is so; and the Plan that a full set of them makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from utseg.fingerprint import Fingerprint
from utseg.planning.plan import Plan

Value = TypeVar("Value")


@dataclass(frozen=True)
class Decision(Generic[Value]):
    """A value, and one sentence: the rule and the figures that it came from."""

    value: Value
    reason: str


def assemble(
    fingerprint: Fingerprint, planner: str, configuration: str, decisions: Mapping[str, Decision[Any]]
) -> Plan:
    """The plan of all decisions, keyed by the dotted keys of the plan ("network.levels")."""
    tree: dict[str, Any] = {
        "dataset": fingerprint.dataset,
        "planner": planner,
        "configuration": configuration,
        "labels": fingerprint.labels,
        "channel_names": fingerprint.channel_names,
        "fingerprint_sha256": fingerprint.sha256,
        "reasons": {key: decision.reason for key, decision in decisions.items()},
    }
    for key, decision in decisions.items():
        group, _, name = key.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = decision.value
    return Plan.model_validate(tree)
