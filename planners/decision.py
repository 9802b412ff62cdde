"""`Decision`: a planned value with its reason; and the Plan that a full set of them makes."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from utseg.fingerprint import Fingerprint
from utseg.planning.plan import Plan
from utseg.planning.target import Target
from utseg.planning.ways import training_ways

Value = TypeVar("Value")


class Decision(NamedTuple, Generic[Value]):
    """A value, and one sentence: the rule and the figures that it came from."""

    value: Value
    reason: str


def assemble(
    fingerprint: Fingerprint, planner: str, target: Target, decisions: Mapping[str, Decision[Any]]
) -> Plan:
    """The plan of all decisions, keyed by the dotted keys of the plan ("network.levels"), and of the ways that the scans lie."""
    decisions = {**decisions, "preprocessing.ways": Decision(*training_ways(fingerprint))}
    tree: dict[str, Any] = {
        "dataset": fingerprint.dataset,
        "planner": planner,
        "configuration": target.configuration,
        "memory_gb": target.memory_gb,
        "network_name": target.network_name,
        "network": {},
        "fingerprint_sha256": fingerprint.sha256,
        "preprocessing": {"labels": fingerprint.labels, "channel_names": fingerprint.channel_names},
        "reasons": {key: decision.reason for key, decision in decisions.items()},
    }
    for key, decision in decisions.items():
        group, _, name = key.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = decision.value
    return Plan.model_validate(tree)
