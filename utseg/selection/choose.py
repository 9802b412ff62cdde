"""Ranks candidates by their mean over subjects, calls a tie a tie, and lets the cheaper one win it.

Two candidates are apart where the bootstrap 95 % interval of their mean difference over subjects leaves 0 out and the paired permutation
test over subjects gives p < .05, which takes six subjects. Every other candidate is compared with the best; all that are not apart from it
are tied with it, and the cheapest of them is chosen. The p values are of single tests: a correction would only make more ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS, compare_pair
from utseg.evaluate.subjects import Floats, Interval, bootstrap_interval
from utseg.evaluate.tables import interval, number, with_interval
from utseg.selection.gain import too_few

Names = NDArray[np.str_]


@dataclass(frozen=True)
class Candidate:
    """One model, or two together. `gmac`: cost of a slice with all `members`, 10⁹ multiply-accumulates. `values_S`: mean Dice a subject."""

    name: str
    models: tuple[str, ...]
    members: int
    gmac: float
    values_S: Floats


@dataclass(frozen=True)
class Standing:
    """A candidate's mean over subjects with its interval, and how it compares with the best: `difference` = best − this one.

    `against_best` is what `compare_pair` says, None for the best itself.
    """

    candidate: Candidate
    mean: float
    interval95: Interval | None
    against_best: Mapping[str, Any] | None
    tied: bool


@dataclass(frozen=True)
class Choice:
    """All standings, best first, the one that is chosen, and why in words. `tie`: whether best and runner-up are tied."""

    standings: tuple[Standing, ...]
    chosen: Standing
    tie: bool
    why: str


def choose(candidates: Sequence[Candidate], subjects_S: Names) -> Choice:
    """The choice among candidates with scores of the same subjects, none of them NaN. Of equal cost the better one is chosen."""
    ordered = sorted(candidates, key=lambda one: (-float(one.values_S.mean()), one.gmac, one.name))
    best = ordered[0]
    standings = []
    for candidate in ordered:
        against = None if candidate is best else compare_pair(best.values_S, candidate.values_S, subjects_S)
        standings.append(
            Standing(
                candidate,
                float(candidate.values_S.mean()),
                bootstrap_interval(candidate.values_S, subjects_S),
                against,
                against is None or not are_apart(against),
            )
        )
    tied = [standing for standing in standings if standing.tied]
    chosen = min(
        tied, key=lambda standing: (standing.candidate.gmac, -standing.mean, standing.candidate.name)
    )
    tie = len(standings) > 1 and standings[1].tied
    return Choice(tuple(standings), chosen, tie, _why(standings, tied, chosen, len(subjects_S)))


def are_apart(compared: Mapping[str, Any]) -> bool:
    """Whether the first of a compared pair is better beyond noise."""
    interval, p = compared["interval95"], compared["p"]
    if compared["subjects"] < LEAST_SUBJECTS or interval is None or p is None:
        return False
    return bool(interval[0] > 0 and p < ALPHA)


def _why(standings: Sequence[Standing], tied: Sequence[Standing], chosen: Standing, subjects: int) -> str:
    best = standings[0]
    few = too_few(subjects, "models apart")
    if few and len(standings) > 1:
        return f"{few}: the cheapest, {chosen.candidate.name}, is taken"
    said = [
        f"{best.candidate.name} has the highest mean Dice over {subjects} out-of-fold subjects, {_scored(best)}"
    ]
    if len(standings) == 1:
        said.append("nothing else was there to compare it with")
    elif len(tied) == 1:
        runner_up = standings[1]
        said.append(
            f"it is better than the runner-up {runner_up.candidate.name} beyond noise ({compared_in_words(runner_up)})"
        )
    else:
        names = ", ".join(f"{one.candidate.name} ({compared_in_words(one)})" for one in tied[1:])
        said.append(f"tied with it, as no difference beyond noise is seen: {names}")
        if chosen is best:
            said.append("of these it is the cheapest")
        else:
            said.append(
                f"the cheapest of these wins the tie: {chosen.candidate.name}, {chosen.candidate.gmac:.3g} GMAC a slice instead of "
                f"{best.candidate.gmac:.3g}"
            )
    return "; ".join(said)


def _scored(standing: Standing) -> str:
    return with_interval(number(standing.mean, 4), standing.interval95, 4, " … ")


def compared_in_words(standing: Standing) -> str:
    """How far a candidate is behind the best, with interval and p."""
    against = standing.against_best
    if against is None:
        return "the best"
    bounds, p = against["interval95"], against["p"]
    text = f"{number(against['difference'], 4)} behind"
    text += f", {interval(bounds, 4)}" if bounds else ""
    return text + (f", p {p:.3g}" if p is not None else "")
