"""Looks over a whole dataset for what no single case shows: labels that nobody has, phases exchanged, one image under two subjects, ….

What a single case shows (background only, say) the gate has warned of.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from utseg.cardiac.structures import find_structures
from utseg.case import Dataset
from utseg.errors import listing, number_of
from utseg.fingerprint.model import CaseFingerprint
from utseg.fingerprint.same_scan import in_words, same_scans
from utseg.label_map import Labels, structures
from utseg.rawdata.ways import group_ways

# Cine scans have 0.7 to 2.1 mm in the plane and 5 to 15 mm between slices: within 3 times of any median of theirs.
FAR_SPACING = 3.0


def dataset_warnings(cases: Sequence[CaseFingerprint], dataset: Dataset) -> list[str]:
    """One line for each thing that a person should look at. None of them stops the work."""
    return [
        *_missing_labels(cases, dataset.labels),
        *_partly_annotated(cases),
        *_phases_exchanged(cases, dataset.labels),
        *_far_spacings(cases),
        *_mixed_orientations(cases),
        *_shared_images(cases),
        *_values_spelt_twice(dataset),
    ]


def _missing_labels(cases: Sequence[CaseFingerprint], labels: Labels) -> list[str]:
    missing = [
        f"{name} ({value})"
        for name, value in structures(labels).items()
        if not any(name in case.labels for case in cases)
    ]
    return [
        f"label {name}: none of the {len(cases)} training cases has it; it cannot be learnt and its scores stay undefined"
        for name in missing
    ]


def _partly_annotated(cases: Sequence[CaseFingerprint]) -> list[str]:
    """What is ignored is in no figure, and plans follow the figures."""
    shares = [case.ignored_share for case in cases if case.ignored_share]
    if not shares:
        return []
    return [
        f"{len(shares)} of {number_of(len(cases), 'case')} are annotated in part ({np.median(shares):.0%} ignored): sizes of labels are of "
        "what is annotated; look at what is planned from them (patch_size, network), or plan from whole annotations and --set those values"
    ]


def _phases_exchanged(cases: Sequence[CaseFingerprint], labels: Labels) -> list[str]:
    """The cavity of the left ventricle is largest at ED, in every heart that fills."""
    name = find_structures(labels).names.get("LV")
    volumes: dict[str, dict[str, float]] = defaultdict(dict)
    for case in cases:
        if name in case.labels:
            volumes[case.subject][case.phase] = case.labels[name].volume_ml
    pairs = {subject: found for subject, found in volumes.items() if {"ED", "ES"} <= found.keys()}
    larger = [subject for subject, found in pairs.items() if found["ES"] > found["ED"]]
    if not larger:
        return []
    return [
        f"{name} is larger at ES than at ED in {len(larger)} of {number_of(len(pairs), 'subject')} ({listing(larger)}): "
        "are ED and ES exchanged?"
    ]


def _far_spacings(cases: Sequence[CaseFingerprint]) -> list[str]:
    spacings = np.array([case.spacing_zyx_mm for case in cases])
    medians = np.median(spacings, axis=0)
    apart = np.exp(np.abs(np.log(spacings / medians))).max(axis=1)
    far = [
        f"{case.case_id} ({_mm(case.spacing_zyx_mm)})"
        for case, ratio in zip(cases, apart, strict=True)
        if ratio > FAR_SPACING
    ]
    if not far:
        return []
    return [
        f"spacing (z, y, x) is more than {FAR_SPACING:g} times above or below the median of all cases, {_mm(medians)}, "
        f"in {len(far)} of {len(cases)}: {listing(far)}: check the headers"
    ]


def _mm(spacing: Iterable[float]) -> str:
    return " × ".join(f"{length:.4g}" for length in spacing) + " mm"


def _mixed_orientations(cases: Sequence[CaseFingerprint]) -> list[str]:
    ways = group_ways([case.way for case in cases])
    if len(ways) < 2:
        return []
    found = ", ".join(f"{count} with {way}" for way, count in ways)
    return [f"mixed orientations, {len(ways)} ways: {found}; training scans are not turned"]


def _shared_images(cases: Sequence[CaseFingerprint]) -> list[str]:
    same = same_scans(cases)
    lines = []
    if same:
        lines.append(
            f"the same scan is there under several names, which count as one subject and lie on one side of every fold: {in_words(same)}"
        )
    holders: dict[tuple[str, tuple[str, ...]], list[CaseFingerprint]] = defaultdict(list)
    for case in cases:
        holders[case.subject, case.voxels_sha256].append(case)
    for (subject, _), alike in holders.items():
        if len(alike) > 1:
            names = listing([case.case_id for case in alike])
            lines.append(f"the same image is in several cases of subject {subject}: {names}")
    return lines


def _values_spelt_twice(dataset: Dataset) -> list[str]:
    """Of all cases, for what is left out by its vendor may be in the test cases too."""
    lines = []
    for column in dataset.group_columns:
        spellings: dict[str, set[str]] = defaultdict(set)
        for case in dataset.cases:
            if value := case.groups.get(column):
                spellings["".join(value.split()).casefold()].add(value)
        lines += [
            f"{column} is written {' and '.join(map(repr, sorted(alike)))}, which count as different: write them alike"
            for alike in spellings.values()
            if len(alike) > 1
        ]
    return lines
