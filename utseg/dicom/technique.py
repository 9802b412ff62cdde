"""How slices were acquired: tells a flow acquisition, say, from the cine on whose slice it lies."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utseg.dicom.planes import CELL_MM, Plane, Rank

SAME_ECHO = 0.2  # relative
SEQUENCE = ("ScanningSequence", "SequenceVariant")
NAMES = ("SequenceName", "PulseSequenceName")
KIND = re.compile(r"[^a-z]*([a-z]*)", re.IGNORECASE)  # of "*tfi2d1_15": what follows differs by heart rate


def mark_flow(planes: Sequence[Plane], of_phase: Sequence[Plane]) -> list[Plane]:
    """The planes, which now know whether images of phase or velocity were made with them.

    Those belong to the plane at their place with as many images that is in the same series, or in the one of the nearest number.
    """
    if not planes or not of_phase:
        return [*planes]
    positions = np.array([plane.position for plane in planes])
    marked: set[int] = set()
    for phase in of_phase:
        here = np.flatnonzero(np.abs(positions - phase.position).max(axis=1) <= CELL_MM).tolist()
        alike = [i for i in here if planes[i].phases == phase.phases and planes[i].lies_like(phase)]
        if alike:
            marked.add(min(alike, key=lambda i: _apart(planes[i], phase)))
    return [replace(plane, is_flow=True) if i in marked else plane for i, plane in enumerate(planes)]


def _apart(plane: Plane, phase: Plane) -> tuple[bool, float, bool]:
    steps = phase.header.rank[0] - plane.header.rank[0]
    return plane.series != phase.series, abs(steps), steps < 0


@dataclass(frozen=True)
class Technique:
    """How a slice was acquired: its kind of sequence in words ("" where a header has none), echo time, and whether it is of flow."""

    sequence: tuple[str, ...]
    echo_ms: float | None
    is_flow: bool

    def is_like(self, other: "Technique") -> bool:
        """Whether nothing that both headers say differs; echo times may a little."""
        words = zip(self.sequence, other.sequence, strict=True)
        known = self.echo_ms is not None and other.echo_ms is not None
        return (
            self.is_flow == other.is_flow
            and all(mine == others or not mine or not others for mine, others in words)
            and (not known or math.isclose(self.echo_ms or 0.0, other.echo_ms or 0.0, rel_tol=SAME_ECHO))
        )


def technique_of(plane: Plane) -> Technique:
    """What the header of a plane says."""
    kinds = (KIND.match(plane.header.text(name)) for name in NAMES)
    words = *map(plane.header.text, SEQUENCE), *(kind[1].casefold() if kind else "" for kind in kinds)
    return Technique(words, plane.frame.echo_ms, plane.is_flow)


def usual_technique(places: Sequence[Sequence[Plane]]) -> Technique:
    """The technique that most places have a plane of; of several the latest."""
    latest: dict[Technique, Rank] = {}
    of_places = []
    for place in places:
        here = {technique_of(plane): plane.rank for plane in sorted(place, key=lambda plane: plane.rank)}
        of_places.append(here)
        for kind, rank in here.items():
            latest[kind] = max(rank, latest.get(kind, rank))
    counts = {kind: sum(any(kind.is_like(other) for other in here) for here in of_places) for kind in latest}
    return max(latest, key=lambda kind: (counts[kind], latest[kind]))
