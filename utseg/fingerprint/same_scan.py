"""Count subjects that share a scan as one. What is the same scan is said by `CaseFingerprint.scans` and `rawdata/voxels.py`.

Files keep the names that the dataset gives; who is whose twin is worked out from checksums where it matters. Nothing is read here.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from utseg.errors import listing


class HasScans(Protocol):
    """`CaseFingerprint` and `CaseRecord` have it. `scans`: checksums of the case's voxels and image files; equal ones are one scan."""

    @property
    def subject(self) -> str: ...
    @property
    def scans(self) -> tuple[str, ...]: ...


def same_scans(cases: Iterable[HasScans]) -> dict[str, str]:
    """The name that a subject who shares a scan with others has together with them ("a = b"), by its own; the others are not in it."""
    return same_subjects((case.subject, case.scans) for case in cases)


def same_subjects(scans: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
    """The same from pairs of a subject and checksums of its scans."""
    groups: dict[str, set[str]] = {}
    holder: dict[str, str] = {}
    for subject, checksums in scans:
        groups.setdefault(subject, {subject})
        for checksum in checksums:
            other = holder.setdefault(checksum, subject)
            if groups[other] is not groups[subject]:
                groups[other] |= groups[subject]
                for each in groups[subject]:
                    groups[each] = groups[other]
    return {subject: " = ".join(sorted(group)) for subject, group in groups.items() if len(group) > 1}


def in_words(same: Mapping[str, str]) -> str:
    """Who is one with whom, for a line of a message."""
    return listing(sorted(set(same.values())))
