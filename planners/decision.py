"""`Decision`: a planned value with its reason; and the Plan that a full set of them makes."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from utseg.errors import number_of
from utseg.fingerprint import Fingerprint
from utseg.planning.plan import Plan
from utseg.planning.target import Target
from utseg.rawdata.ways import SELDOM, Way, group_ways

Value = TypeVar("Value")


class Decision(NamedTuple, Generic[Value]):
    """A value, and one sentence: the rule and the figures that it came from."""

    value: Value
    reason: str


def assemble(
    fingerprint: Fingerprint, planner: str, target: Target, decisions: Mapping[str, Decision[Any]]
) -> Plan:
    """The plan of all decisions, keyed by the dotted keys of the plan ("network.levels"), and of the ways that the scans lie."""
    decisions = {**decisions, "preprocessing.ways": training_ways(fingerprint)}
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


def training_ways(fingerprint: Fingerprint) -> Decision[tuple[Way, ...]]:
    """The ways in which the cases lie, the most frequent first: by them a scan to predict is turned, or doubted."""
    grouped = group_ways([case.way for case in fingerprint.cases])
    told = [
        f"{number_of(count, 'case')} with {way}"
        + (", by headers that hold no orientation" if way.nominal else "")
        for way, count in grouped
    ]
    number = "1 way" if len(grouped) == 1 else f"{len(grouped)} ways"
    rule = "a scan that lies otherwise is turned where headers say how for certain, else flagged"
    if len(grouped) > 1:
        rule += f", as is one that lies as fewer than {SELDOM} cases do"
    ways = tuple(
        way.model_copy(update={"seldom": len(grouped) > 1 and count < SELDOM}) for way, count in grouped
    )
    return Decision(ways, f"{number}: {'; '.join(told)}; {rule}")
