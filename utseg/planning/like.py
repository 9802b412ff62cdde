"""A plan like that of a trained model, for other data: spacing, normalisation, patch and network stay, so that its weights go on.

What the data says (labels, channels, the ways in which scans lie) is of the new dataset; what channels need that the model never saw is
planned as by the default planner.
"""

from dataclasses import dataclass
from typing import Any

from utseg.errors import InputError
from utseg.extensions import find
from utseg.files import sha256_json
from utseg.fingerprint import Fingerprint
from utseg.home import DEFAULT_PLANNER
from utseg.planning.memory import StepKind, training_memory
from utseg.planning.plan import FOCUS_MARGIN, LikeRun, Plan
from utseg.planning.target import Target, recorded_memory
from utseg.planning.task import planned_task
from utseg.planning.ways import training_ways
from utseg.rawdata.channels import same_channels, scheme_of
from utseg.settings import validate

LIKE = "like"
"""What such a plan is called unless it is given another name."""
AMPLE_GB = 1024.0  # what is asked of the default planner does not depend on memory


@dataclass(frozen=True)
class Source:
    """A plan to keep to, and whose it is."""

    run: LikeRun
    plan: Plan

    @classmethod
    def of(cls, name: str, plan: Plan) -> "Source":
        """The plan of a model (DATASET/PLAN_2d/MODEL) or of a run of it."""
        return cls(LikeRun(name=name, sha256=sha256_json(decided(plan))), plan)

    @classmethod
    def again(cls, plan: Plan) -> "Source":
        """A plan that was made like another, for its own data, which has changed."""
        assert plan.like is not None
        return cls(plan.like, plan)


def decided(plan: Plan) -> dict[str, Any]:
    """The values of a plan without what is of its data (which, how it lies, what was found in it) or of the device that it ran on."""
    others = {"reasons": True, "fingerprint_sha256": True, "estimated_memory_gb": True}
    return plan.model_dump(mode="json", exclude={**others, "preprocessing": {"ways"}})


def plan_like(source: Source, fingerprint: Fingerprint, name: str, kind: StepKind) -> Plan:
    """The source's plan for another dataset, called `name`; each value's reason says whose it is.

    `kind`: how its network is trained. Raises InputError where the dataset has none of its channels.
    """
    tree = source.plan.model_dump(mode="json")
    if source.plan.like != source.run:
        said = f"as in {source.run.name} (--like); there "
        tree["reasons"] = {key: said + reason for key, reason in tree["reasons"].items()}
    tree |= {
        "dataset": fingerprint.dataset,
        "planner": name,
        "like": source.run.model_dump(),
        "fingerprint_sha256": fingerprint.sha256,
    }
    ways, tree["reasons"]["preprocessing.ways"] = training_ways(fingerprint)
    tree["preprocessing"]["ways"] = [way.model_dump(mode="json") for way in ways]
    _set_channels(tree, source, fingerprint, kind)
    tree["preprocessing"] |= {"labels": fingerprint.labels, "channel_names": fingerprint.channel_names}
    _set_focus(tree, fingerprint)
    plan = validate(Plan, tree, f"plan like {source.run.name}")
    total, reason = recorded_memory(training_memory(planned_task(plan), kind), plan.network_name, kind)
    reasons = {**plan.reasons, "estimated_memory_gb": reason}
    return plan.model_copy(update={"estimated_memory_gb": total, "reasons": reasons})


def _set_channels(tree: dict[str, Any], source: Source, fingerprint: Fingerprint, kind: StepKind) -> None:
    """Gives each channel the normalisation and unit that it has in the source."""
    plan, names = source.plan, fingerprint.channel_names
    theirs = plan.preprocessing.channel_names
    places = same_channels(names, theirs)
    is_other = len(names) == len(theirs) == 1 and scheme_of(names[0]) != scheme_of(theirs[0])
    if is_other or not any(place is not None for place in places):
        raise InputError(
            f"--like {source.run.name}: its channels are {', '.join(theirs)}, those of {fingerprint.dataset} are {', '.join(names)}: none "
            "is the same; choose a model of the same channels, or give the same names to both"
        )
    if places == [*range(len(theirs))]:
        return
    reason = f"by channel as in {source.run.name} (--like)"
    new: dict[str, Any] = {}
    if None in places:
        target = Target(AMPLE_GB, plan.configuration, plan.network_name, kind)
        new = find("planners", DEFAULT_PLANNER)(fingerprint, target).model_dump(mode="json")
        unknown = [name for name, place in zip(names, places, strict=True) if place is None]
        reason += f"; {', '.join(unknown)} as {DEFAULT_PLANNER} plans: "
    for group, key in (("preprocessing", "normalisation"), ("augmentation", "intensity_unit")):
        values = tree[group][key]
        values = values if len(values) > 1 else values * len(theirs)
        tree[group][key] = [
            new[group][key][number] if place is None else values[place] for number, place in enumerate(places)
        ]
        tree["reasons"][f"{group}.{key}"] = reason + (new["reasons"][f"{group}.{key}"] if new else "")


def _set_focus(tree: dict[str, Any], fingerprint: Fingerprint) -> None:
    """No one window is looked for where it would not show all structures of a case."""
    sides = zip(tree["patch_size"], tree["preprocessing"]["spacing_yx_mm"], strict=True)
    side = min(size * step for size, step in sides)
    largest = max(fingerprint.labelled_extents_mm, default=0.0)
    if tree["focus"] and not 0 < FOCUS_MARGIN * largest <= side:
        tree["focus"] = False
        tree["reasons"]["focus"] = (
            f"False: the labels of a case take up to {largest:.0f} mm here, which a window of {side:.0f} mm does not hold "
            f"{FOCUS_MARGIN:g} times"
        )
