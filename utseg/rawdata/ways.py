"""In-plane orientation: compare a scan's with the training scans', and say how to turn it where it differs.

A way is where rows and columns of the slices point to in the patient: all that a network sees. A *nominal* way is that of a header whose
writer had no directions to write (axes along R, A, S or opposite, origin at 0, as all of ACDC's): it turns no scan for certain.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from utseg.settings import Settings

Cosine = Annotated[float, Field(ge=-1, le=1)]
Vector = tuple[Cosine, Cosine, Cosine]
Floats = NDArray[np.float64]

# A score is the sum of two cosines, between rows and rows and between columns and columns: 2 where both lie alike, 1.41 at 45° in the
# plane. Short-axis planes of several hearts differ by 30° and more, which leaves about 1.6.
BELONGS = 1.0
CERTAIN = 1.4
CLEARLY_BETTER = 0.25
SELDOM = 10  # scans: ED and ES of five hearts


class Way(Settings):
    """Unit vectors in RAS along the array's Y axis (from row to row) and X axis (from column to column).

    `nominal`: the header that says so has nothing to say it from. `seldom`: of several ways of a training set, one of few scans.
    """

    y: Vector
    x: Vector
    nominal: bool = False
    seldom: bool = False

    @property
    def normal(self) -> tuple[float, float, float]:
        """X × Y: two ways whose normals are opposite show mirrored slices."""
        normal = np.cross(self.x, self.y)
        r, a, s = (round(float(value), 4) for value in normal / np.linalg.norm(normal))
        return r, a, s

    def __str__(self) -> str:
        y, x = tuple(anatomical_axes([self.y, self.x]))
        return f"rows towards {y} and columns towards {x}"

    @property
    def is_exact(self) -> bool:
        """Whether both vectors lie along R, A or S: those of a header that was resampled, made up, or copied from such a one."""
        return all(abs(value) in (0, 1) for value in (*self.y, *self.x))

    def includes(self, scan: "Way") -> bool:
        """Whether a scan lies this way: no other arrangement of its slices would lie nearer. A nominal way has to be met exactly."""
        if self.nominal:
            return (scan.y, scan.x) == (self.y, self.x)
        if scan.nominal:
            return False
        (score, arrangement), *_ = _scores(scan, self)
        return arrangement == AS_IT_LIES and score >= BELONGS


class Arrangement(Settings):
    """How slices are turned in their plane: rows and columns are swapped, then rows (`flip_y`) and columns (`flip_x`) reversed."""

    swap: bool = False
    flip_y: bool = False
    flip_x: bool = False


AS_IT_LIES = Arrangement()
ARRANGEMENTS = tuple(
    Arrangement(swap=swap, flip_y=flip_y, flip_x=flip_x)
    for swap, flip_y, flip_x in product((False, True), repeat=3)
)


@dataclass(frozen=True)
class Placement:
    """How a scan is arranged for the network, and why that may be wrong; "" where it is certain."""

    arrangement: Arrangement = AS_IT_LIES
    doubt: str = ""


def arrange(scan: Way, ways: Sequence[Way]) -> Placement:
    """As it lies, where training scans lay so. Else turned to the nearest of their ways, if headers say enough; else with a doubt.

    No ways: nothing is known of the training scans, and nothing is turned or doubted.
    """
    met = next((way for way in ways if way.includes(scan)), None)
    if met is not None and met.seldom:
        few = f"the training scans lie {len(ways)} ways and fewer than {SELDOM} of them as it does"
        return Placement(doubt=f"{few}; it is segmented as it lies")
    if met is not None or not ways:
        return Placement()
    if scan.nominal:
        doubt = "its header holds no orientation (axes along R, A, S, origin 0), unlike the training scans'"
        return Placement(doubt=f"{doubt}; it is segmented as it lies")
    real = [way for way in ways if not way.nominal]
    if not real and not scan.is_exact:
        return Placement(doubt="the training scans' headers hold no orientation; it is segmented as it lies")
    found = [_scores(scan, way) for way in real or ways]
    (best, arrangement), (second, _), *_ = max(found, key=lambda scores: scores[0][0])
    if best < CERTAIN or best - second < CLEARLY_BETTER:
        doubt = "it lies between the training scans' ways or in another plane; it is segmented as it lies"
        return Placement(doubt=doubt)
    if not real:
        doubt = "it is turned as the training scans' headers say, which hold no orientation for certain"
    elif len(ways) > 1:
        doubt = f"the training scans lie {len(ways)} ways and it lies in none of them; it is turned to the nearest"
    else:
        doubt = ""
    return Placement(arrangement, doubt)


def group_ways(scans: Sequence[Way]) -> list[tuple[Way, int]]:
    """The ways in which scans lie, and how many lie in each (in the first that includes them); the largest first.

    Nominal ways are kept as they are. The others are grouped about the scan that most lie alike with, each group's way being the mean.
    """
    counts = Counter(scans)
    ways: list[Way] = []
    left = sorted((way for way in counts if not way.nominal), key=lambda way: (way.y, way.x))
    while left:
        alike = _alike(left)
        seed = int((alike * [counts[way] for way in left]).sum(1).argmax())
        members = [left[index] for index in np.flatnonzero(alike[seed])]
        mean = _mean(members, [counts[way] for way in members])
        ways.append(mean if all(mean.includes(member) for member in members) else left[seed])
        left = [way for way in left if not ways[-1].includes(way)]
    ways += [way for way in counts if way.nominal]
    held: Counter[Way] = Counter()
    for scan, count in counts.items():
        held[next(way for way in ways if way.includes(scan))] += count
    return sorted(held.items(), key=lambda item: (-item[1], item[0].y, item[0].x))


def _scores(scan: Way, way: Way) -> list[tuple[float, Arrangement]]:
    """How near each arrangement of a scan's slices lies to a way, the nearest first; of equals the one that moves least."""
    axes = {False: (np.array(scan.y), np.array(scan.x)), True: (np.array(scan.x), np.array(scan.y))}
    scores = []
    for arrangement in ARRANGEMENTS:
        y, x = axes[arrangement.swap]
        across = float(y @ np.array(way.y)) * (-1 if arrangement.flip_y else 1)
        along = float(x @ np.array(way.x)) * (-1 if arrangement.flip_x else 1)
        scores.append((round(across + along, 6), arrangement))
    return sorted(scores, key=lambda item: -item[0])  # stable: the first is the one as it lies


def _alike(ways: Sequence[Way]) -> NDArray[np.bool_]:
    """(N, N): whether way i includes way j; none of them nominal."""
    y, x = (np.array([getattr(way, axis) for way in ways]) for axis in "yx")
    yy, xx, yx, xy = y @ y.T, x @ x.T, y @ x.T, x @ y.T
    as_they_lie = np.round(yy + xx, 6)
    best = np.round(np.maximum(np.abs(yy) + np.abs(xx), np.abs(yx) + np.abs(xy)), 6)
    return np.asarray((as_they_lie >= best) & (as_they_lie >= BELONGS))


def _mean(ways: Sequence[Way], counts: Sequence[int]) -> Way:
    y, x = (np.average([getattr(way, axis) for way in ways], axis=0, weights=counts) for axis in "yx")
    return Way(y=unit_vector(y), x=unit_vector(x))


def anatomical_axes(vectors: ArrayLike) -> str:
    """Where vectors at right angles (N, 3) in RAS point to, most nearly: letters of RLAPSI, each axis once, the clearest first."""
    cosines = np.array(vectors, dtype=np.float64)
    letters = [""] * len(cosines)
    left = np.abs(cosines)
    for i in np.argsort(-left.max(1), kind="stable"):
        axis = int(left[i].argmax())
        letters[i] = ("RAS" if cosines[i, axis] > 0 else "LPI")[axis]
        left[:, axis] = -1
    return "".join(letters)


def unit_vector(values: Floats) -> Vector:
    """Of length 1, to six digits; no negative zeros."""
    r, a, s = (round(float(value), 6) + 0.0 for value in values / np.linalg.norm(values))
    return r, a, s
