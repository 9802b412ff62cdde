"""`Plane`: the images that one acquisition took of one slice, in the order of the heart's cycle.

A series may hold one plane or a whole stack, and a plane twice; here every acquisition of a slice is a plane of its own.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.dicom.headers import FileHeader, Frame
from utseg.rawdata.geometry import DIRECTION_WITHIN

SAME_PLANE_MM = 0.5
CELL_MM = 0.1  # images of a slice are at one position, but for rounding
MOST_RUNS = 3
SAME_SPACING = 1e-3  # relative
LONGEST_STEP_MS = 300.0  # between phases, where there are five or more: a heart at 40 beats in five phases
PHASES_FOR_A_STEP = 5
SAME_TIME_MS = 0.5
Floats = NDArray[np.float64]
Rank = tuple[bool, float, str, float, float]


@dataclass(frozen=True, slots=True)
class Image:
    """A frame and the object that it is in."""

    header: FileHeader
    frame: Frame


@dataclass(frozen=True)
class Plane:
    """One acquisition of a slice: its images in order of time. `reference`: the frame of reference, "" where its series has no one.

    is_flow: whether images of phase or velocity were made with it (`technique`).
    """

    images: tuple[Image, ...]
    reference: str
    is_flow: bool = False

    @property
    def phases(self) -> int:
        return len(self.images)

    @property
    def header(self) -> FileHeader:
        return self.images[0].header

    @property
    def frame(self) -> Frame:
        return self.images[0].frame

    @property
    def series(self) -> str:
        return self.header.text("SeriesInstanceUID")

    @property
    def rank(self) -> Rank:
        """Of two acquisitions of a slice the one to use has the higher: the later one, and no derived images beside original ones."""
        frame = self.frame
        return not frame.is_derived, *self.header.rank, frame.acquisition or -1.0, frame.order or -1.0

    @cached_property
    def position(self) -> Floats:
        return np.array(self.frame.position)

    @cached_property
    def orientation(self) -> Floats:
        """(2, 3): along a row, and down a column."""
        return np.array(self.frame.orientation).reshape(2, 3)

    @cached_property
    def normal(self) -> Floats:
        normal = np.cross(*self.orientation)
        return np.asarray(normal / np.linalg.norm(normal))

    @cached_property
    def times_ms(self) -> tuple[float, ...] | None:
        """When in the cycle, strictly growing; None where a header does not say so."""
        times = [image.frame.trigger_ms for image in self.images]
        known = [time for time in times if time is not None]
        growing = len(known) == len(times) and all(b > a for a, b in pairwise(known))
        return tuple(known) if growing else None

    @cached_property
    def step_ms(self) -> float | None:
        """The usual time between two phases."""
        times = self.times_ms
        if times is None or len(times) < 2:
            return None
        return float(median(np.diff(times)))

    def lies_like(self, other: "Plane") -> bool:
        """Whether both are parallel, turned alike, and have pixels of the same number and size."""
        return (
            self.header.size == other.header.size
            and self.reference == other.reference
            and float(np.abs(self.orientation - other.orientation).max()) <= DIRECTION_WITHIN
            and all(
                math.isclose(mine, others, rel_tol=SAME_SPACING)
                for mine, others in zip(self.frame.spacing, other.frame.spacing, strict=True)
            )
        )

    def why_no_cine(self) -> str | None:
        """Why its images are not the phases of a cycle, in words; None where they may be."""
        if self.phases == 1:
            return "one image of each slice: no cine"
        for name, values in (
            ("inversion time", [image.frame.inversion_ms for image in self.images]),
            ("echo time", [image.frame.echo_ms for image in self.images]),
        ):
            if len({round(value, 1) for value in values if value is not None}) > 1:
                return f"the images of a slice differ in {name}: a map, no cine"
        known = [image.frame.trigger_ms for image in self.images if image.frame.trigger_ms is not None]
        if self.phases >= PHASES_FOR_A_STEP and len(known) == self.phases:
            if max(known) - min(known) <= SAME_TIME_MS * self.phases:
                return "all images of a slice are at one time of the cycle: perfusion or the like, no cine"
            if self.step_ms is not None and self.step_ms > LONGEST_STEP_MS:
                return f"{self.step_ms:.0f} ms between the images of a slice: one a heart beat, no cine"
        return None


def find_planes(headers: Sequence[FileHeader], *, of_phase: bool = False) -> list[Plane]:
    """The planes of one study, the later series and acquisitions last. of_phase: of its images of phase or velocity, else of all others."""
    references: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        references[header.text("SeriesInstanceUID")].add(header.text("FrameOfReferenceUID"))
    places: dict[tuple[Any, ...], list[Image]] = {}
    for header in headers:
        for frame in header.frames:
            if frame.is_phase == of_phase:
                cell = tuple(math.floor(number / CELL_MM) for number in frame.position)
                turned = (round(cosine, 2) + 0.0 for cosine in frame.orientation)
                _place(places, cell, (header.text("SeriesInstanceUID"), header.size, *turned)).append(
                    Image(header, frame)
                )
    planes = []
    for images in {id(images): images for images in places.values()}.values():
        of_series = references[images[0].header.text("SeriesInstanceUID")]
        reference = (
            next(iter(of_series)) if len(of_series) == 1 else ""
        )  # some exports give every image its own
        planes += [Plane(acquired, reference) for acquired in _acquisitions(images)]
    return sorted(planes, key=lambda plane: plane.rank)


def _place(
    places: dict[tuple[Any, ...], list[Image]], cell: tuple[int, ...], kind: tuple[Any, ...]
) -> list[Image]:
    """The images of a kind in a cell of space or, where that has none yet, in one that touches it: two positions may round apart."""
    found = places.get((cell, kind))
    if found is None:
        around = (tuple(map(sum, zip(cell, step, strict=True))) for step in product((-1, 0, 1), repeat=3))
        found = next((places[near, kind] for near in around if (near, kind) in places), [])
        places[cell, kind] = found
    return found


def _acquisitions(images: Sequence[Image]) -> list[tuple[Image, ...]]:
    """The images of a slice in one series, told apart by acquisition, each in order of time.

    Acquisitions are numbered, or times begin anew once or twice in the order of instances. Some scanners count every image as an
    acquisition; those belong together.
    """
    numbers = Counter(image.frame.acquisition for image in images)
    if len(numbers) > 1 and min(numbers.values()) > 1:
        return [
            _in_order([image for image in images if image.frame.acquisition == number])
            for number in sorted(numbers, key=lambda number: -1.0 if number is None else number)
        ]
    runs: list[list[Image]] = []
    for image in sorted(images, key=_instance):
        time = image.frame.trigger_ms
        if runs and time is not None and (runs[-1][-1].frame.trigger_ms or 0.0) < time:
            runs[-1].append(image)
        else:
            runs.append([image])
    alike = len({len(run) for run in runs}) == 1 and len(runs[0]) > 1
    return [_in_order(run) for run in runs] if alike and len(runs) <= MOST_RUNS else [_in_order(images)]


def _instance(image: Image) -> tuple[float, str]:
    return image.frame.order or 0.0, image.header.text("SOPInstanceUID")


def _in_order(images: Sequence[Image]) -> tuple[Image, ...]:
    """The images of one acquisition; of two at one time the later instance."""
    ordered = sorted(images, key=_instance)
    times = [image.frame.trigger_ms for image in ordered]
    if any(time is None for time in times) or len(set(times)) == 1:
        return tuple(ordered)
    latest = {image.frame.trigger_ms: image for image in ordered}
    return tuple(sorted(latest.values(), key=lambda image: image.frame.trigger_ms or 0.0))
