"""The ways in which the training scans lie, as a plan has them: by them a scan to predict is turned, or doubted."""

from utseg.errors import number_of
from utseg.fingerprint import Fingerprint
from utseg.rawdata.ways import SELDOM, Way, group_ways


def training_ways(fingerprint: Fingerprint) -> tuple[tuple[Way, ...], str]:
    """The ways in which the cases lie, the most frequent first; and the reason."""
    grouped = group_ways([case.way for case in fingerprint.cases])
    told = [
        f"{number_of(count, 'case')} with {way}"
        + (", by headers that hold no orientation" if way.nominal else "")
        for way, count in grouped
    ]
    number = "1 way" if len(grouped) == 1 else f"{len(grouped)} ways"
    rule = "a scan that lies otherwise is turned where headers say how for certain, else flagged"
    if len(grouped) > 1:
        rule += f", as is one that lies as fewer than {SELDOM} cases do"
    ways = tuple(
        way.model_copy(update={"seldom": len(grouped) > 1 and count < SELDOM}) for way, count in grouped
    )
    return ways, f"{number}: {'; '.join(told)}; {rule}"
