"""Rules for 2.5-D: how far away the slices are that a network is shown beside each slice, and that a stack may begin at either end."""

from collections.abc import Mapping
from typing import Any

from planners.decision import Decision
from planners.geometry import balanced_median
from utseg.errors import InputError
from utseg.fingerprint import Fingerprint
from utseg.planning.target import Target


def plan_neighbours(
    decisions: Mapping[str, Decision[Any]], fingerprint: Fingerprint, target: Target
) -> dict[str, Decision[Any]]:
    """The decisions, and what is to be decided of neighbouring slices."""
    if target.configuration == "2d":
        alone = Decision(
            None, "None: in 2d the network is shown each slice alone (-c 2.5d shows it neighbours)"
        )
        return {**decisions, "neighbour_distance_mm": alone}
    mirrored = decisions["augmentation.mirror_axes"]
    return {
        **decisions,
        "neighbour_distance_mm": neighbour_distance(fingerprint),
        "augmentation.mirror_axes": Decision(
            ("z", *mirrored.value),
            "z: the slices before and after are exchanged in half of the patches, as files begin at either end; "
            f"in the plane: {mirrored.reason}",
        ),
    }


def neighbour_distance(fingerprint: Fingerprint) -> Decision[float]:
    """The typical distance of neighbouring slices, over the cases that have several. Raises InputError where none has."""
    stacks = [case for case in fingerprint.cases if case.size_zyx[0] > 1]
    if not stacks:
        raise InputError(
            f"{fingerprint.dataset}: -c 2.5d needs stacks of slices, and each training case is a single slice; plan it with -c 2d"
        )
    distances = [case.spacing_zyx_mm[0] for case in stacks]
    typical, how = balanced_median(stacks, distances)
    value = round(typical, 4)
    single = len(fingerprint.cases) - len(stacks)
    left_out = f" ({single} of a single slice left out)" if single else ""
    return Decision(
        value,
        f"{value:g} mm from slice to slice, the {how}{left_out}; the cases have {min(distances):g} … {max(distances):g} mm. "
        "The network is shown each slice with the one before and the one after that are nearest to this distance, at least the next ones; "
        "at either end of the stack its last slice is repeated",
    )
