"""Format differences between models as table cells and sentences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from utseg.evaluate.metrics import METRIC
from utseg.evaluate.tables import (
    NOTHING,
    digits_apart,
    interval,
    number,
    p_text,
    signed_number,
    with_interval,
)
from utseg.report.scores.comparison_tables import MARK
from utseg.study.findings.difference import Difference

MOST_CLAUSES = 3
HOLM_NOTE = "p < 0.05 after Holm's correction over all rows of the table is marked †; else it is a tie."
RANKED = " of ranks, in which a structure that is missed or extra is worse than any value"


def plural(by: str) -> str:
    """More than one of a column's values, in words."""
    return f"{by[:-1]}ies" if by.endswith("y") else f"{by}s"


def plain(selection: str) -> str:
    """A selection in plain words: "vendor=A" → "vendor A", "vendor!=C" → "all but vendor C"."""
    column, equals, value = selection.partition("=")
    if column.endswith("!"):
        return f"all but {column[:-1]} {value}"
    return f"{column} {value}" if equals else selection


def slashed(values: Iterable[object]) -> str:
    """Counts that belong together, as 1/0/2."""
    return "/".join(map(str, values))


def mean_cell(found: Mapping[str, Any], metric: str = "dice") -> str:
    """The mean of statistics over subjects with its interval."""
    digits = METRIC[metric].digits
    return with_interval(number(found["mean"], digits), found["interval95"], digits)


def means_cells(one: Difference) -> tuple[str, str]:
    """The means of both sides, with as many digits as tell them apart."""
    a, b = one.means or (None, None)
    digits = digits_apart((a, b), METRIC[one.metric].digits)
    return number(a, digits), number(b, digits)


def difference_cell(one: Difference) -> str:
    """A difference with its interval, marked where it is beyond chance."""
    if one.difference is None:
        return NOTHING
    digits = METRIC[one.metric].digits
    text = with_interval(signed_number(one.difference, digits), one.interval95, digits, " to ", signed_number)
    return text + (MARK if one.significant else "")


def difference_cells(one: Difference, if_more: str, if_less: str) -> list[str]:
    """Difference, p, p after Holm, and verdict."""
    return [difference_cell(one), p_text(one.p), p_text(one.p_holm), one.verdict(if_more, if_less)]


class Claim(NamedTuple):
    """A difference of Dice for a sentence: of whom, and what is said of it beyond chance with its size for "{}"."""

    of: str
    difference: Difference
    if_more: str
    if_less: str


def sentence(where: str, claims: Sequence[Claim]) -> list[str]:
    """All claims, the least difference first; of many the least, the most, and how many are beyond chance."""
    known = [claim for claim in claims if claim.difference.difference is not None]
    known.sort(key=lambda claim: claim.difference.difference or 0.0)
    clauses = [_clause(claim) for claim in known]
    if len(clauses) > MOST_CLAUSES:
        beyond = sum(claim.difference.significant for claim in known)
        where = f"{where}, of {len(clauses)} the least and the most"
        clauses = [clauses[0], clauses[-1], f"{beyond} beyond chance"]
    return [f"{where}, {'; '.join(clauses)}."] if clauses else []


def _clause(claim: Claim) -> str:
    one = claim.difference
    assert one.difference is not None
    size = f"{number(abs(one.difference), 3)} Dice"
    evidence = [f"95 % {interval(one.interval95, 3)}".replace("-", "−")] if one.interval95 else []
    subjects = " and ".join(map(str, one.subjects))
    evidence.append(f"{subjects} subjects, {'paired' if one.paired else 'unpaired'}")
    if one.p_holm is not None:
        evidence.append(f"p = {p_text(one.p_holm)}".replace("= <", "< "))
    said = one.verdict(claim.if_more, claim.if_less)
    text = said.replace("{}", size, 1) if one.significant else f"{claim.of}: {said}, {size}"
    return f"{text} ({'; '.join(evidence)})"
