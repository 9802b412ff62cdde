"""Of several cines: how their measures spread by vendor, centre and pathology, and how they agree with reference labels."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from utseg.cardiac.volumes import AT_PHASES, UNITS, BasalRule, column_of
from utseg.errors import InputError, listing
from utseg.evaluate.clinical import agreement
from utseg.evaluate.pairs import with_background
from utseg.evaluate.references import References
from utseg.measure.cines import join_cines, labelled_masks
from utseg.measure.measure import measure_cine
from utseg.measure.record import CineMeasures, Distribution, ReferencePair

logger = logging.getLogger("utseg")
GROUP_COLUMNS = ("vendor", "centre", "pathology")


def distributions(cines: Sequence[CineMeasures]) -> tuple[Distribution, ...]:
    """Of every measure that some cine has: over all cines, and over those of each vendor, centre and pathology."""
    groups = {("", ""): list(cines)}
    for column in GROUP_COLUMNS:
        for value in sorted({cine.groups[column] for cine in cines if column in cine.groups}):
            groups[column, value] = [cine for cine in cines if cine.groups.get(column) == value]
    found = []
    for (column, value), members in groups.items():
        for measure, unit in UNITS.items():
            key = column_of(measure)
            values = np.array([own for cine in members if (own := cine.values.get(key)) is not None])
            if len(values):
                found.append(
                    Distribution(
                        column=column,
                        value=value,
                        measure=key,
                        unit=unit,
                        n=len(values),
                        mean=float(values.mean()),
                        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
                        median=float(np.median(values)),
                        lowest=float(values.min()),
                        highest=float(values.max()),
                    )
                )
    return tuple(found)


def compare(
    cines: Sequence[CineMeasures], references: References, basal_rule: BasalRule
) -> tuple[tuple[ReferencePair, ...], dict[str, dict[str, Any]]]:
    """The measures of each subject beside those of its reference labels by the same rule, and by measure how they agree.

    Raises InputError where no subject has both. What cannot be compared is logged, subjects with several cines on a side among it.
    """
    joined, problems = join_cines(labelled_masks(references.cases))
    wanted, labels = {cine.subject for cine in cines}, with_background(references.labels)
    several = [
        *_several("masks", [(cine.subject, cine.cine) for cine in cines]),
        *_several("references", [(cine.about.subject, cine.name) for cine in joined]),
    ]
    ambiguous = [words for subject, words in several if subject in wanted]
    problems += ambiguous
    compared = wanted - {subject for subject, _ in several}
    measured: dict[str, CineMeasures] = {}
    for cine in joined:
        if cine.about.subject in compared:
            try:
                measured[cine.about.subject] = measure_cine(cine, labels, basal_rule)
            except InputError as error:
                problems.append(str(error))
    for problem in problems:
        logger.warning("references: %s", problem)
    paired = [cine for cine in cines if cine.subject in measured]
    if not paired and ambiguous:
        raise InputError(f"references: {'; '.join(ambiguous)}")
    if not paired:
        found_there = listing(sorted({cine.about.subject for cine in joined})) or "none"
        raise InputError(
            f"references: none is of a subject of the masks ({listing(sorted(wanted))}); found {found_there}; "
            "name the dataset that both are of with -d"
        )
    if lacking := sorted(compared - measured.keys()):
        logger.warning("%d subjects have no reference at ED and ES: %s", len(lacking), listing(lacking))
    pairs = tuple(
        ReferencePair(
            cine=cine.cine,
            subject=cine.subject,
            measure=column_of(measure),
            prediction=cine.values[column_of(measure)],
            reference=measured[cine.subject].values[column_of(measure)],
        )
        for measure in AT_PHASES
        for cine in paired
    )
    found = {}
    for measure in AT_PHASES:
        own = [pair for pair in pairs if pair.measure == column_of(measure)]
        sides = (
            np.array([getattr(pair, side) for pair in own], dtype=float)
            for side in ("reference", "prediction")
        )
        found[column_of(measure)] = {"unit": UNITS[measure], **agreement(*sides)}
    return pairs, found


def _several(side: str, cines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Subjects with several cines on a side, of pairs of subject and cine; and a line for each that names these."""
    names: dict[str, list[str]] = {}
    for subject, name in cines:
        names.setdefault(subject, []).append(name)
    return [
        (subject, f"subject {subject}: {len(own)} cines are among the {side} ({listing(own)}): not compared")
        for subject, own in names.items()
        if len(own) > 1
    ]
