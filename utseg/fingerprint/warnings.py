"""Looks over a whole dataset for what no single case shows: labels that nobody has, mixed orientations, one image under two subjects.

What a single case shows (background only, say) the gate has warned of.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from utseg.fingerprint.model import CaseFingerprint

SHOWN = 8


def dataset_warnings(cases: Sequence[CaseFingerprint], labels: Mapping[str, int]) -> list[str]:
    """One line for each thing that a person should look at. None of them stops the work."""
    return [
        *_missing_labels(cases, labels),
        *_mixed_orientations(cases),
        *_shared_images(cases),
    ]


def _missing_labels(cases: Sequence[CaseFingerprint], labels: Mapping[str, int]) -> list[str]:
    missing = [
        f"{name} ({value})"
        for name, value in labels.items()
        if value and not any(name in case.labels for case in cases)
    ]
    return [
        f"label {name}: none of the {len(cases)} training cases has it; it cannot be learnt and its scores stay undefined"
        for name in missing
    ]


def _mixed_orientations(cases: Sequence[CaseFingerprint]) -> list[str]:
    counts = Counter(case.orientation for case in cases)
    if len(counts) < 2:
        return []
    found = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return [
        f"mixed orientations of the file axes: {found}; training scans are not turned, results keep each file's own"
    ]


def _shared_images(cases: Sequence[CaseFingerprint]) -> list[str]:
    holders: dict[str, list[CaseFingerprint]] = defaultdict(list)
    for case in cases:
        holders[case.pixels_sha256].append(case)
    lines = []
    for same in holders.values():
        if len(same) < 2:
            continue
        names = _some([case.case_id for case in same])
        if len({case.subject for case in same}) > 1:
            lines.append(
                f"the same image is in several subjects' cases: {names}; it may leak from training into validation"
            )
        else:
            lines.append(f"the same image is in several cases of subject {same[0].subject}: {names}")
    return lines


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
