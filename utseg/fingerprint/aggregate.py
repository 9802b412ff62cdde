"""Summarises measured cases: overall, and for each value of each group column."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from utseg.fingerprint.model import Aggregate, CaseFingerprint, Spread, rounded

MANY_VALUES = 12


def aggregate_cases(cases: Sequence[CaseFingerprint]) -> Aggregate:
    """Counts, medians and ranges of at least one case."""
    structures = list(dict.fromkeys(name for case in cases for name in case.labels))
    return Aggregate(
        cases=len(cases),
        subjects=len({case.subject for case in cases}),
        slices=sum(case.size_zyx[0] for case in cases),
        labelled_slices=sum(case.foreground.slices for case in cases if case.foreground is not None),
        phases=dict(sorted(Counter(case.phase for case in cases).items())),
        orientations=dict(Counter(case.orientation for case in cases).most_common()),
        size_zyx=_spreads(case.size_zyx for case in cases),
        spacing_zyx_mm=_spreads(case.spacing_zyx_mm for case in cases),
        percentiles=tuple(
            tuple(map(rounded, np.median([each.percentiles for each in figures], axis=0)))
            for figures in zip(*(case.channels for case in cases), strict=True)
        ),
        label_cases={name: sum(name in case.labels for case in cases) for name in structures},
        volume_ml={name: _label_spread(cases, name, "volume_ml") for name in structures},
        diameter_mm={name: _label_spread(cases, name, "diameter_mm") for name in structures},
        thickness_mm={name: _label_spread(cases, name, "thickness_mm") for name in structures},
    )


def aggregate_groups(cases: Sequence[CaseFingerprint]) -> dict[str, dict[str, Aggregate]]:
    """One aggregate for each value of each group column; a case without the column is left out of it.

    Columns in which nearly every subject has its own value (age, weight) say nothing about groups and are left out.
    """
    columns = dict.fromkeys(column for case in cases for column in case.groups)
    subjects = len({case.subject for case in cases})
    grouped: dict[str, dict[str, Aggregate]] = {}
    for column in columns:
        values = sorted({case.groups[column] for case in cases if case.groups.get(column)})
        if len(values) > MANY_VALUES and 2 * len(values) > subjects:
            continue
        grouped[column] = {
            value: aggregate_cases([case for case in cases if case.groups.get(column) == value])
            for value in values
        }
    return grouped


def spread(values: Iterable[float]) -> Spread:
    """Minimum, median and maximum of at least one value."""
    array = np.array(list(values), dtype=np.float64)
    return Spread(minimum=float(array.min()), median=rounded(np.median(array)), maximum=float(array.max()))


def _spreads(triples: Iterable[tuple[float, float, float]]) -> tuple[Spread, Spread, Spread]:
    z, y, x = zip(*triples, strict=True)
    return spread(z), spread(y), spread(x)


def _label_spread(cases: Sequence[CaseFingerprint], name: str, figure: str) -> Spread:
    return spread(getattr(case.labels[name], figure) for case in cases if name in case.labels)
