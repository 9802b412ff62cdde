"""Chooses the short-axis cine of a study among its stacks, and says of every other series why it was left out."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utseg.dicom.headers import FileHeader
from utseg.dicom.planes import Plane, Rank, find_planes
from utseg.dicom.stacks import NoStack, Stack, find_families, make_stack
from utseg.dicom.subjects import free_text
from utseg.dicom.technique import mark_flow
from utseg.errors import number_of

# From the apex to the base, in LPS: to the right, backwards and upwards. Hearts differ by up to 40°.
HEART_AXIS_LPS = np.array([-0.58, 0.51, 0.63])
ALONG_HEART_AXIS = 0.5  # cosine
MOST_PLANES = 1_000
LEAST_EACH = 3  # slices of one stack of two; any two are regular
LEAST_BUT_ONE, MOST_BUT_ONE = 4, 60  # planes among which one that does not fit is looked for
BETWEEN = 1.5  # times the distance of all slices: of a stack with those of another between its own
OBLIQUE = 0.95  # the largest cosine with an axis of the body
SAME_TIME = "a later image of the same slice has the same trigger time"
SHORT_AXIS_NAME = re.compile(r"(?<![a-z])(sax?|short|kurz\w*|petit\w*)(?![a-z])", re.IGNORECASE)
LONG_AXIS_NAME = re.compile(
    r"(?<![a-z])([234] ?-?ch\w*|lax|long|lang\w*|vla|hla|lvot|rvot)(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class LeftOutSeries:
    """A series, or the part of one, that is in no cine. `files`: how many, damaged ones not among them."""

    header: FileHeader
    files: int
    why: str


@dataclass(frozen=True)
class Choice:
    """What became of a study: its stack, if there is one; series left out; `problems`: stacks that were refused and have no substitute."""

    stack: Stack | None
    left_out: tuple[LeftOutSeries, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def choose_stack(headers: Sequence[FileHeader]) -> Choice:
    """The short-axis cine of one study."""
    reasons: dict[str, str] = {}
    cines: list[Plane] = []
    found = find_planes(headers)
    of_cines = {_name(plane) for plane in found if plane.why_no_cine() is None}
    for plane in found:
        why = plane.why_no_cine()
        # One image in a series of cines, or in one that is called like them, is a slice whose other images are lost.
        if why is None or (plane.phases == 1 and _name(plane) in of_cines):
            cines.append(plane)
        else:
            _add(reasons, plane, why)
    if len(cines) > MOST_PLANES:
        problem = f"{len(cines):,} slices of cines in one study; expected at most {MOST_PLANES:,}"
        for plane in cines:
            _add(reasons, plane, problem)
        return Choice(None, _left_out(headers, reasons, frozenset()), problems=(problem,))
    stacks: list[Stack] = []
    refused: list[tuple[int, str]] = []
    for family in find_families(mark_flow(cines, find_planes(headers, of_phase=True))):
        for stack in _stacks_of(family, reasons, refused):
            stacks.append(stack)
            for plane, why in stack.left_out:
                _add(reasons, plane, why)
    stacks.sort(key=_merit, reverse=True)
    larger = [why for slices, why in refused if not stacks or slices > len(stacks[0].planes)]
    if larger or not stacks:  # no two long axes in place of a short-axis stack that cannot be used
        for stack in stacks:
            for plane in stack.planes:
                _add(reasons, plane, f"another stack ({stack}) than the larger one that cannot be used")
        return Choice(None, _left_out(headers, reasons, frozenset()), problems=tuple(larger))
    best, *others = stacks
    notes = [*best.notes, *_doubts(best, others)]
    for other in others:
        for plane in other.planes:
            _add(reasons, plane, f"another stack ({other}); chosen: {best}, {_why_better(best, other)}")
    for plane in best.planes:
        _add(reasons, plane, "a phase that not every slice has")
    left_out = _left_out(headers, reasons, frozenset(map(id, _used(best))))
    of_best = {plane.series for plane in best.planes}
    again = (
        row for row in left_out if row.why == SAME_TIME and row.header.text("SeriesInstanceUID") in of_best
    )
    if files := sum(row.files for row in again):
        notes.append(f"{number_of(files, 'image')} left out: {SAME_TIME}")
    return Choice(best, left_out, tuple(notes))


def without_stack(choice: Choice, problems: Sequence[str]) -> Choice:
    """The choice where its stack could not be written: the stack's series are left out, by the first problem."""
    used = {id(header): header for header in _used(choice.stack)} if choice.stack else {}
    rows = _left_out([replace(header, why=problems[0]) for header in used.values()], {}, frozenset())
    return Choice(None, (*choice.left_out, *rows), problems=tuple(problems))


def _used(stack: Stack) -> list[FileHeader]:
    """The header of each image."""
    return [
        stack.image(frame, place).header
        for frame in range(stack.frames)
        for place in range(len(stack.planes))
    ]


def _name(plane: Plane) -> str:
    return plane.header.text("SeriesDescription") or plane.series


def _add(reasons: dict[str, str], plane: Plane, why: str) -> None:
    for image in plane.images:
        reasons[image.header.text("SOPInstanceUID")] = why


def _stacks_of(
    family: Sequence[Plane], reasons: dict[str, str], refused: list[tuple[int, str]]
) -> list[Stack]:
    """The stack of planes that lie alike; where they make none together, those of the series on their own, or of all planes but one.

    Where they overlap, as slices of one stack seldom do, and part into an earlier and a later stack of other series, each between the
    slices of the other, these two. (Within a series every second slice is often acquired first.)
    """
    try:
        joined = make_stack(family)
        parts = _two_stacks(family) if joined.overlaps else []
        alternate = all(part.slice_distance_mm > BETWEEN * joined.slice_distance_mm for part in parts)
        series = [{plane.series for plane in part.planes} for part in parts]
        return parts if parts and alternate and series[0].isdisjoint(series[1]) else [joined]
    except NoStack as error:
        whole = error
    by_series: dict[str, list[Plane]] = defaultdict(list)
    for plane in family:
        by_series[plane.series].append(plane)
    found = [stack for planes in by_series.values() if (stack := _try_stack(planes)) is not None]
    found = found or (_two_stacks(family) if whole.is_irregular else [])
    if not found and whole.is_irregular and LEAST_BUT_ONE <= len(family) <= MOST_BUT_ONE:
        tries = ((out, _try_stack([plane for plane in family if plane is not out])) for out in family)
        out, stack = next(((out, stack) for out, stack in tries if stack is not None), (None, None))
        if out is not None and stack is not None:
            note = "one slice lies off the regular distances of the others and is left out"
            found = [replace(stack, left_out=(*stack.left_out, (out, note)), notes=(*stack.notes, note))]
    inside = {id(plane) for stack in found for plane in stack.planes}
    for plane in family:
        if id(plane) not in inside:
            _add(reasons, plane, str(whole))
    if not found and whole.is_cine:
        name = free_text(family[0].header.text("SeriesDescription"), family[0].header)
        refused.append((len(family), f"{number_of(len(family), 'parallel slice')} ({name}): {whole}"))
    return found


def _two_stacks(family: Sequence[Plane]) -> list[Stack]:
    """The stacks of an earlier and a later acquisition, between which the patient moved, say: where planes in order of time part so."""
    if len(family) > MOST_BUT_ONE:
        return []
    for first_later in range(LEAST_EACH, len(family) - LEAST_EACH + 1):
        tries = [_try_stack(family[:first_later]), _try_stack(family[first_later:])]
        both = [stack for stack in tries if stack is not None]
        if len(both) == len(tries):
            return both
    return []


def _try_stack(planes: Sequence[Plane]) -> Stack | None:
    try:
        return make_stack(planes)
    except NoStack:
        return None


def _merit(stack: Stack) -> tuple[bool, int, int, int, Rank]:
    """How likely a stack is the short axis: as it usually lies, then the most slices, the most phases, its name, the latest."""
    name = stack.planes[0].header.text("SeriesDescription")
    named = bool(SHORT_AXIS_NAME.search(name)) - bool(LONG_AXIS_NAME.search(name))
    return _lies_usually(stack), len(stack.planes), stack.frames, named, stack.planes[-1].rank


def _lies_usually(stack: Stack) -> bool:
    """Whether slices lie across the axis that hearts usually have, and oblique to the body."""
    normal = stack.planes[0].normal
    return abs(float(normal @ HEART_AXIS_LPS)) >= ALONG_HEART_AXIS and float(np.abs(normal).max()) < OBLIQUE


def _why_better(best: Stack, other: Stack) -> str:
    names = ("as short-axis views usually lie", "more slices", "more phases", "by its name", "acquired later")
    differing = (name for name, a, b in zip(names, _merit(best), _merit(other), strict=True) if a != b)
    return next(differing, "the first")


def _doubts(best: Stack, others: Sequence[Stack]) -> list[str]:
    doubts = []
    if not _lies_usually(best):
        doubts.append("its slices do not lie as short-axis views usually do; look whether they are")
    if any(_merit(best)[:3] == _merit(other)[:3] for other in others):
        doubts.append(
            "another stack has as many slices and phases; the one taken is that by its name, or the later one"
        )
    return doubts


def _left_out(
    headers: Sequence[FileHeader], reasons: dict[str, str], used: frozenset[int]
) -> tuple[LeftOutSeries, ...]:
    """A row for each series and reason, in the order of the series."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[str, FileHeader] = {}
    for header in sorted(headers, key=lambda header: header.rank):
        if id(header) in used:
            continue
        series = header.text("SeriesInstanceUID")
        first.setdefault(series, header)
        why = header.why or reasons.get(header.text("SOPInstanceUID"))
        if why is None:
            phase = any(frame.is_phase for frame in header.frames)
            why = "images of phase or velocity" if phase else SAME_TIME
        counts[series, why] += 1
    return tuple(LeftOutSeries(first[series], files, why) for (series, why), files in counts.items())
