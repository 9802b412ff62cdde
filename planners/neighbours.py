"""Rules for 2.5-D: how far away the slices are that a network is shown beside each slice, and that a stack may begin at either end."""

from collections.abc import Mapping
from typing import Any

from planners.decision import Decision
from planners.geometry import balanced_median
from utseg.fingerprint import Fingerprint
from utseg.planning.target import Target


def with_neighbours(
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
            "z: neighbours below and above are exchanged in half of the patches, as files begin at the base or at the apex (all of ACDC's "
            f"at the base, most of M&Ms' at the apex); in the plane: {mirrored.reason}",
        ),
    }


def neighbour_distance(fingerprint: Fingerprint) -> Decision[float]:
    """The typical distance of neighbouring slices."""
    distances = [case.spacing_zyx_mm[0] for case in fingerprint.cases]
    typical, how = balanced_median(fingerprint, distances)
    value = round(typical, 4)
    return Decision(
        value,
        f"{value:g} mm from slice to slice, the {how}; the cases have {min(distances):g} … {max(distances):g} mm. Shown are the slices of "
        "the stack nearest to it below and above, at least the next ones; at either end of the stack its last slice is repeated",
    )
