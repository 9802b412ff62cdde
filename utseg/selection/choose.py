"""Ranks candidates by their mean Dice over subjects, calls a tie a tie, and lets the cheapest win it.

Two candidates differ where the bootstrap 95 % interval of their mean difference over subjects leaves 0 out and the paired permutation test
over subjects gives p < .05, which takes six subjects. Every candidate is compared with the best; those that do not differ from it are tied
with it. The p values are of single tests: a correction would only make more ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS, compare_pair
from utseg.evaluate.subjects import Floats, Interval
from utseg.evaluate.tables import interval, number, with_interval
from utseg.selection.scores import too_few
from utseg.settings import Settings

Names = NDArray[np.str_]


class Against(Settings):
    """How far a candidate is behind the best: mean difference over subjects, its interval, p of the paired test, subjects."""

    difference: float
    interval95: Interval | None
    p: float | None
    subjects: int


class Candidate(Settings):
    """One model, or two together. `labels`: mean Dice per label over subjects; `undefined` of its case–label pairs have none.

    `gmac`: 10⁹ multiply-accumulates for a slice of 320 × 320 mm with all members and mirrorings. `tied`: it does not differ from the best.
    """

    name: str
    models: tuple[str, ...] = ()
    members: int = 1
    gmac: float
    mean_dice: float
    interval95: Interval | None = None
    labels: dict[str, float | None] = Field(default_factory=dict)
    undefined: int = 0
    against_best: Against | None = None
    tied: bool = True


@dataclass(frozen=True)
class Choice:
    """All candidates, best first, the one that is chosen, and why in words. `tie`: whether best and runner-up are tied."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    tie: bool
    why: str


def choose(candidates: Sequence[tuple[Candidate, Floats]], subjects_S: Names) -> Choice:
    """The choice among candidates with the mean Dice of each of the same subjects, none of them NaN. Of equal cost the better one wins."""
    ordered = sorted(candidates, key=lambda one: (-one[0].mean_dice, one[0].gmac, one[0].name))
    (best, best_S), *others = ordered
    ranked = [best]
    for candidate, values_S in others:
        compared = compare_pair(best_S, values_S, subjects_S)
        against = Against(**{key: compared[key] for key in Against.model_fields})
        ranked.append(candidate.model_copy(update={"against_best": against, "tied": not differs(compared)}))
    tied = [one for one in ranked if one.tied]
    chosen = min(tied, key=lambda one: (one.gmac, -one.mean_dice, one.name))
    tie = len(ranked) > 1 and ranked[1].tied
    return Choice(tuple(ranked), chosen, tie, _why(ranked, tied, chosen, len(subjects_S)))


def differs(compared: Mapping[str, Any]) -> bool:
    """Whether the first of a compared pair is better beyond noise."""
    bounds, p = compared["interval95"], compared["p"]
    if compared["subjects"] < LEAST_SUBJECTS or bounds is None or p is None:
        return False
    return bool(bounds[0] > 0 and p < ALPHA)


def _why(ranked: Sequence[Candidate], tied: Sequence[Candidate], chosen: Candidate, subjects: int) -> str:
    best = ranked[0]
    few = too_few(subjects, "models apart")
    if few and len(ranked) > 1:
        return f"{few}: the cheapest, {chosen.name}, is taken"
    mean = with_interval(number(best.mean_dice, 4), best.interval95, 4, " … ")
    said = [f"{best.name} has the highest mean Dice over {subjects} out-of-fold subjects, {mean}"]
    if len(ranked) == 1:
        said.append("nothing else was there to compare it with")
    elif len(tied) == 1:
        said.append(f"it is better than the runner-up {ranked[1].name} beyond noise ({_behind(ranked[1])})")
    else:
        names = ", ".join(f"{one.name} ({_behind(one)})" for one in tied[1:])
        said.append(f"tied with it, as no difference beyond noise is seen: {names}")
        if chosen is best:
            said.append("of these it is the cheapest")
        else:
            said.append(
                f"the cheapest of these wins the tie: {chosen.name}, {chosen.gmac:.3g} GMAC a slice instead of {best.gmac:.3g}"
            )
    return "; ".join(said)


def _behind(candidate: Candidate) -> str:
    against = candidate.against_best
    assert against is not None, "only the best is not compared"
    text = f"{number(against.difference, 4)} behind"
    text += f", {interval(against.interval95, 4)}" if against.interval95 else ""
    return text + (f", p {against.p:.3g}" if against.p is not None else "")
