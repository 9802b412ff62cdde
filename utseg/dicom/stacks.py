"""`Stack`: parallel planes at equal distances, with the same phases: what a cine of the whole heart is. Found by geometry.

Nothing is invented: where a slice lacks a phase, that phase is left out of all slices; where it lacks many, the slice is left out, which
only the ends of a stack allow.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from utseg.dicom.planes import SAME_PLANE_MM, Floats, Image, Plane
from utseg.dicom.technique import Technique, technique_of, usual_technique
from utseg.errors import listing, number_of
from utseg.rawdata.geometry import affine_problem

LEAST_SLICES = 2
REGULAR_WITHIN_MM = 0.5  # of a slice's position from the regular grid
PHASES_LEFT_OUT = 10  # at most one in ten
MULTIPLE_WITHIN = 0.1  # of a distance that is twice, three times, … the usual one
FEW_SLICES = 5


@dataclass(frozen=True)
class Stack:
    """Slices along the normal of their rows and columns; `phases` says of each which of its images is the first, second, … frame.

    `left_out`: planes of its kind that are not in it, and why. `notes`: what to know of it.
    """

    planes: tuple[Plane, ...]
    phases: tuple[tuple[int, ...], ...]
    left_out: tuple[tuple[Plane, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return len(self.phases[0])

    @property
    def size_tzyx(self) -> tuple[int, int, int, int]:
        return self.frames, len(self.planes), *self.planes[0].header.size

    def image(self, frame: int, position: int) -> Image:
        """The image of a frame and slice."""
        return self.planes[position].images[self.phases[position][frame]]

    @cached_property
    def ijk_to_lps(self) -> Floats:
        """(4, 4): (column, row, slice) to mm in the patient."""
        return _grid(self.planes)[0]

    @property
    def slice_distance_mm(self) -> float:
        return float(np.linalg.norm(self.ijk_to_lps[:3, 2]))

    @property
    def overlaps(self) -> bool:
        """Whether its slices are thicker than they are apart, and no header says that they are to be so near."""
        thick, stated = self.planes[0].frame.thickness_mm, self.planes[0].frame.distance_mm
        distance = self.slice_distance_mm
        as_stated = stated is not None and abs(stated - distance) <= REGULAR_WITHIN_MM
        return thick is not None and distance < thick - REGULAR_WITHIN_MM and not as_stated

    def __str__(self) -> str:
        return f"{len(self.planes)} slices × {self.frames} phases"


class NoStack(Exception):
    """Why parallel planes make no stack, in words. `is_cine`: whether somebody would have expected one; `is_irregular`: by positions."""

    def __init__(self, why: str, *, is_cine: bool = True, is_irregular: bool = False) -> None:
        super().__init__(why)
        self.is_cine, self.is_irregular = is_cine, is_irregular


def find_families(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes that lie alike, whatever their series and positions."""
    families: list[list[Plane]] = []
    for plane in planes:
        family = next((family for family in families if plane.lies_like(family[0])), None)
        if family is None:
            families.append([plane])
        else:
            family.append(plane)
    return families


def make_stack(planes: Sequence[Plane]) -> Stack:
    """The stack of parallel planes, given from the earlier to the later. Raises NoStack."""
    usual = _usual_phases(planes)
    chosen, replaced, lacking = _best_of_places(planes, usual)
    if len(chosen) < LEAST_SLICES:
        why = f"one slice with {usual} phases: no stack (a long axis, flow, or a single slice)"
        raise NoStack(why, is_cine=False)
    phases, unmatched = _common_phases(chosen, usual)
    lacking += unmatched
    kept = tuple(plane for plane in chosen if not any(plane is out for out, _ in unmatched))
    if len(kept) < LEAST_SLICES:
        raise NoStack(f"slices lack images ({unmatched[0][1]})")
    inside = [why for plane, why in lacking if not _is_outside(plane, kept)]
    if inside:
        raise NoStack(f"slices in its middle lack images ({inside[0]}); export the series whole")
    notes = [*_check_grid(kept), *_other_techniques(kept)]
    if lacking:
        ends = f"left out at its ends: {number_of(len(lacking), 'slice')} ({lacking[0][1]})"
        notes.append(f"{ends}; the stack is shorter than what was scanned")
    frames = len(phases[0])
    if frames < usual:
        notes.append(f"{frames} of {usual} phases are kept: not every slice has the others")
    if len(kept) < FEW_SLICES:
        notes.append(_few_slices(kept))
    return Stack(kept, phases, (*replaced, *lacking), tuple(notes))


def _best_of_places(
    planes: Sequence[Plane], usual: int
) -> tuple[list[Plane], list[tuple[Plane, str]], list[tuple[Plane, str]]]:
    """The plane to use of each place, in order along the normal; those that another replaces; those of places that have none to use.

    Of several the one that was acquired as most others, of these one with the usual number of phases, of these the latest.
    """
    places = _by_place(planes)
    technique = usual_technique(places)
    chosen: list[Plane] = []
    replaced: list[tuple[Plane, str]] = []
    lacking: list[tuple[Plane, str]] = []
    for place in places:
        fitting = [plane for plane in place if abs(plane.phases - usual) <= usual // PHASES_LEFT_OUT]
        best = max(
            fitting,
            key=lambda plane: (technique_of(plane).is_like(technique), plane.phases == usual, plane.rank),
            default=None,
        )
        if best is None:
            lacking += [(plane, _phases_beside(plane, usual)) for plane in place]
            continue
        chosen.append(best)
        for plane in place:
            if plane is not best:
                replaced.append((plane, _why_replaced(plane, best, technique)))
    return chosen, replaced, lacking


def _why_replaced(plane: Plane, best: Plane, technique: Technique) -> str:
    if technique_of(best).is_like(technique) and not technique_of(plane).is_like(technique):
        return "lies on a slice of the cine, but was acquired in another way than most of its slices"
    if plane.rank > best.rank:
        return _phases_beside(plane, best.phases)
    derived = plane.frame.is_derived and not best.frame.is_derived
    return "derived from a slice that is there itself" if derived else "acquired again later"


def _phases_beside(plane: Plane, usual: int) -> str:
    return f"{number_of(plane.phases, 'phase')} where its neighbours have {usual}"


def _usual_phases(planes: Sequence[Plane]) -> int:
    """The number of phases that most positions have; of several the largest. Raises NoStack where no plane has more than one."""
    counts = Counter(
        phases for place in _by_place(planes) for phases in {plane.phases for plane in place} if phases > 1
    )
    if not counts:
        raise NoStack("one image of each slice: no cine", is_cine=False)
    return max(counts, key=lambda phases: (counts[phases], phases))


def _by_place(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Planes at one place along the normal together, in order along it."""
    normal = planes[0].normal
    places: list[list[Plane]] = []
    for plane in sorted(planes, key=lambda plane: float(plane.position @ normal)):
        if places and abs(float((plane.position - places[-1][0].position) @ normal)) <= SAME_PLANE_MM:
            places[-1].append(plane)
        else:
            places.append([plane])
    return places


def _common_phases(
    planes: Sequence[Plane], usual: int
) -> tuple[tuple[tuple[int, ...], ...], list[tuple[Plane, str]]]:
    """For each plane that can be matched the indices of the images that all of them have; and the planes that cannot, with why."""
    starts = [plane.times_ms[0] for plane in planes if plane.phases == usual and plane.times_ms]
    start = float(np.median(starts)) if starts else 0.0
    numbers: list[tuple[int, ...]] = []
    unmatched = []
    for plane in planes:
        found = tuple(range(usual)) if plane.phases == usual else _phase_numbers(plane, start)
        if found is None:
            why = f"{_phases_beside(plane, usual)}, and no trigger times that say which"
            unmatched.append((plane, why))
        else:
            numbers.append(found)
    shared = sorted(set.intersection(*map(set, numbers)) & set(range(usual)))
    if len(shared) < max(2, usual - usual // PHASES_LEFT_OUT):
        raise NoStack(f"its slices share {len(shared)} of {usual} phases; expected at least nine in ten")
    return tuple(tuple(found.index(number) for number in shared) for found in numbers), unmatched


def _phase_numbers(plane: Plane, start_ms: float) -> tuple[int, ...] | None:
    """Which phase each image is, by its time from the start; None where times do not say so."""
    if plane.times_ms is None or not plane.step_ms:
        return None
    numbers = [round((time - start_ms) / plane.step_ms) for time in plane.times_ms]
    apart = all(b > a for a, b in pairwise(numbers))
    return tuple(numbers) if apart and numbers[0] >= 0 else None


def _check_grid(planes: Sequence[Plane]) -> list[str]:
    """What to know of the positions. Raises NoStack where they are not regular."""
    distances = np.diff([float(plane.position @ planes[0].normal) for plane in planes])
    usual = float(np.median(distances))
    if (distances - usual).max() > REGULAR_WITHIN_MM:
        usual = float(distances.min())
        missing = np.rint(distances / usual).astype(int) - 1
        if (np.abs(distances / usual - missing - 1) <= MULTIPLE_WITHIN).all():
            gaps = [f"{n} between {i + 1} and {i + 2}" for i, n in enumerate(missing) if n]
            raise NoStack(
                f"slices are missing from the middle of the stack, which are {usual:.4g} mm apart: {listing(gaps)} "
                "(counted along its normal); export the series whole"
            )
    matrix, off = _grid(planes)
    if off > REGULAR_WITHIN_MM:
        raise NoStack(
            f"slices are {distances.min():.4g} to {distances.max():.4g} mm apart and up to {off:.3g} mm from a regular grid; "
            f"expected at most {REGULAR_WITHIN_MM:g} mm",
            is_irregular=True,
        )
    if problem := affine_problem(matrix):
        raise NoStack(problem)
    return [f"slices are up to {off:.2g} mm from the regular grid that the file can say"] if off > 0.1 else []


def _grid(planes: Sequence[Plane]) -> tuple[Floats, float]:
    """The regular grid that is nearest to the positions, column, row and slice to LPS mm; and the largest distance from it, mm."""
    positions = np.array([plane.position for plane in planes])
    numbers = np.stack([np.arange(len(planes)), np.ones(len(planes))], axis=1)
    (step, origin), *_ = np.linalg.lstsq(numbers, positions, rcond=None)
    first = planes[0]
    between_rows, between_columns = first.frame.spacing
    matrix = np.eye(4)
    matrix[:3, 0] = first.orientation[0] * between_columns
    matrix[:3, 1] = first.orientation[1] * between_rows
    matrix[:3, 2], matrix[:3, 3] = step, origin
    return matrix, float(np.linalg.norm(positions - numbers @ [step, origin], axis=1).max())


def _other_techniques(planes: Sequence[Plane]) -> list[str]:
    techniques = [technique_of(plane) for plane in planes]
    usual = usual_technique([[plane] for plane in planes])
    others = [str(number) for number, kind in enumerate(techniques, 1) if not kind.is_like(usual)]
    if not others:
        return []
    return [
        f"slices {listing(others)} (counted from 1 along the normal) were acquired with another sequence or echo time than most, or with "
        "images of flow; look whether they are slices of the cine"
    ]


def _is_outside(plane: Plane, kept: Sequence[Plane]) -> bool:
    """Whether a plane lies beyond the ends of a stack."""
    normal = kept[0].normal
    first, last, here = (float(one.position @ normal) for one in (kept[0], kept[-1], plane))
    return here < first - SAME_PLANE_MM or here > last + SAME_PLANE_MM


def _few_slices(planes: Sequence[Plane]) -> str:
    distance = float(np.linalg.norm(planes[-1].position - planes[0].position)) / (len(planes) - 1)
    thick = planes[0].frame.thickness_mm
    gap = (
        f" with {distance - thick:.3g} mm between them that nobody imaged"
        if thick and distance > 1.5 * thick
        else ""
    )
    return (
        f"only {len(planes)} slices, {distance:.4g} mm apart{gap}: a heart needs about 8 to 14; volumes from them are no volumes "
        "of a heart, and whether they are short-axis views is for a person to say"
    )
