"""Scores a folder of predictions against the references of cases, in parallel, and writes what a scores folder has.

`metrics.csv`, `slices.csv`, `sources.json`, `summary.json`, `tables.md` and `tables.tex`; `regions.csv` where a case is a cardiac stack,
`clinical.csv` where subjects have ED and ES, `official_utnet.csv` where it is asked for.
What is missing, mis-placed or mislabelled is refused as a whole, one line each, before anything is written. Which references there are is
decided elsewhere (`references.py`), how they are summarised too (`summary.py`, `clinical.py`).
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.compute.pool import InlineExecutor, process_pool, run_all
from utseg.evaluate.clinical import clinical_measures, summarise_clinical
from utseg.evaluate.metrics import Definition, Row
from utseg.evaluate.official import official_means, official_utnet_scores
from utseg.evaluate.pairs import MaskPair, UnrecordedSide, count_overlap, match, require_plausible
from utseg.evaluate.records import (
    CASE_FILES,
    CLINICAL_FILE,
    METRICS_FILE,
    OFFICIAL_FILE,
    REGIONS_FILE,
    SLICES_FILE,
    case_columns,
    clinical_columns,
    to_csv,
)
from utseg.evaluate.sources import SOURCES_FILE, sources_of
from utseg.evaluate.stack import evaluate_stack
from utseg.evaluate.summary import by_value, summarise, summarise_regions
from utseg.evaluate.tables import LATEX_FILE, MARKDOWN_FILE, summary_tables, to_latex, to_markdown
from utseg.files import folder_lock, json_text, remove_leftovers, require_writable, write_together
from utseg.fingerprint.same_scan import in_words, same_subjects
from utseg.label_map import IGNORE, Labels, painted, structures
from utseg.labels import match_labels
from utseg.predict.record import predicted_cases, seen_in_training
from utseg.training.record import SUMMARY_FILE

logger = logging.getLogger("utseg")
INLINE = 2
ALWAYS = (METRICS_FILE, SLICES_FILE)


@dataclass(frozen=True)
class ScoredPair(MaskPair):
    """One case with its mask, and how it is to be scored. `overlap`: count which labels lie on which."""

    definition: Definition
    as_official_utnet: bool
    overlap: bool


def evaluate_cases(
    cases: Sequence[Case],
    predictions: Path,
    labels: Labels,
    output: Path,
    *,
    definition: Definition | None = None,
    as_official_utnet: bool = False,
    refuse_extra: bool = False,
    reference_labels: Labels | None = None,
    mask_labels: Labels | None = None,
    assumed: UnrecordedSide | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Scores `predictions/CASE.nii.gz` of every case against its label, writes all files into `output`, returns the summary.

    definition: which surface, percentile and tolerance. as_official_utnet: also score as the official UTNet does (`official.py`).
    refuse_extra: a prediction that no case asks for is an error. reference_labels, mask_labels: labels of references and predictions where
    they are numbered otherwise than in `labels`; matched by name. assumed: the side whose numbering nothing says. Raises CaseErrors that
    lists every missing and extra file, or, where there is none, every mis-sized, mis-placed or mislabelled one; InputError where labels
    do not match, or masks lie on references of other labels; UtsegError where another run works in `output`. Then nothing is written.
    Subjects of one scan, by the record of the predictions, count as one.
    """
    definition = definition or Definition()
    theirs = reference_labels or labels, mask_labels or labels
    match_labels(*theirs, we="the references", they=str(predictions))
    matched = _one_subject_a_scan(match(cases, predictions, refuse_extra=refuse_extra), predictions)
    values, overlap = structures(labels), assumed is not None
    pairs = [
        ScoredPair(case, mask, values, *theirs, definition, as_official_utnet, overlap)
        for case, mask in matched
    ]
    require_writable(output)
    with folder_lock(output):
        remove_leftovers(output, recursive=False)
        with _executor(executor, len(pairs), workers) as pool:
            scored = run_all(
                score_pair, pairs, pool, "evaluate", name=lambda pair: pair.case.case_id, workers=workers
            )
        if assumed is not None:
            require_plausible([overlap for _, overlap in scored], labels, predictions, assumed)
        rows = {name: [row for by_file, _ in scored for row in by_file.get(name, ())] for name in CASE_FILES}
        whole = IGNORE not in theirs[0]
        if not whole:
            logger.info("volumes of references that are ignored in part are not known: no clinical measures")
        summary, texts = _results(rows, group_columns(cases), definition, whole=whole)
        texts[SOURCES_FILE] = sources_of(matched, labels, output, *theirs)
        by_path = {output / name: text for name, text in texts.items()}
        write_together(by_path, last=[output / METRICS_FILE, output / SUMMARY_FILE])
        return summary


def _executor(executor: Executor | None, count: int, workers: int | None) -> AbstractContextManager[Executor]:
    if executor is not None:
        return nullcontext(executor)
    return InlineExecutor() if count <= INLINE else process_pool(workers)


def _one_subject_a_scan(matched: Sequence[tuple[Case, Path]], predictions: Path) -> list[tuple[Case, Path]]:
    """The cases with one subject for all names of a scan. What a model was trained on is a warning."""
    known = predicted_cases(predictions)
    same = same_subjects(
        (case.subject, known[case.case_id].scans) for case, _ in matched if case.case_id in known
    )
    if same:
        logger.warning(
            "the same scan is there under several names, which count as one subject: %s", in_words(same)
        )
    if seen := seen_in_training(known, [case.case_id for case, _ in matched]):
        logger.warning("%s", seen)
    return [
        (replace(case, subject=same.get(case.subject, case.subject)), prediction)
        for case, prediction in matched
    ]


def _results(
    rows: Mapping[str, list[Row]],
    columns: Sequence[str],
    definition: Definition,
    *,
    whole: bool,
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The summary, and what the files of the folder say by name: None for one that an earlier run may have left and this one has not.

    `whole`: references are annotated everywhere, so that their volumes mean something.
    """
    clinical = clinical_measures(rows[METRICS_FILE], columns) if whole else None
    summary = summarise(rows[METRICS_FILE], columns) | {
        "definitions": asdict(definition),
        "regions": summarise_regions(rows[REGIONS_FILE]),
        "clinical": summarise_clinical(clinical, columns) if clinical else None,
        "official_utnet": _official_summary(rows[OFFICIAL_FILE], columns),
    }
    tables = summary_tables(summary)
    texts: dict[str, str | None] = {
        name: to_csv(rows[name], case_columns(columns, name)) if rows[name] or name in ALWAYS else None
        for name in CASE_FILES
    }
    texts[CLINICAL_FILE] = to_csv(clinical.rows, clinical_columns(columns)) if clinical else None
    texts |= {MARKDOWN_FILE: to_markdown(tables), LATEX_FILE: to_latex(tables)}
    texts[SUMMARY_FILE] = json_text(summary)
    return summary, texts


def _official_summary(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Any] | None:
    if not rows:
        return None
    groups = {
        column: {value: official_means(some) for value, some in by_value(rows, column).items()}
        for column in columns
    }
    return {"all": official_means(rows), "groups": groups}


def group_columns(cases: Sequence[Case]) -> tuple[str, ...]:
    """The columns to group by: phase where one is known, then the groups of the cases."""
    groups = dict.fromkeys(column for case in cases for column in case.groups if column != "phase")
    phase = ("phase",) if any(case.phase for case in cases) else ()
    return (*phase, *groups)


def score_pair(pair: ScoredPair) -> tuple[dict[str, list[Row]], NDArray[np.int64]]:
    """The rows of one case by the file that they go into, and the overlap. Raises InputError on a mis-placed or mislabelled prediction."""
    mask, reference, ignored, geometry = pair.read_whole()
    prediction = np.where(ignored, np.uint8(0), mask)
    case = pair.case
    about = {"case": case.case_id, "subject": case.subject, "phase": case.phase, **case.groups}
    volume = prediction, reference, geometry.spacing_zyx_mm, pair.labels
    found = evaluate_stack(*volume, pair.definition, whole=not ignored.any())
    official = official_utnet_scores(*volume) if pair.as_official_utnet else {}
    rows: dict[str, list[Row]] = {name: [] for name in CASE_FILES}
    for name, values in found.volume.items():
        row = about | {"label": painted(pair.labels[name]), "label_name": name}
        rows[METRICS_FILE].append(row | values)
        rows[SLICES_FILE] += [row | of_slice for of_slice in found.slices[name]]
        rows[REGIONS_FILE] += [row | of_region for of_region in found.regions[name]]
        rows[OFFICIAL_FILE] += [row | official[name]] if official else []
    overlap = (
        count_overlap(prediction, reference, pair.labels) if pair.overlap else np.zeros((0, 0), np.int64)
    )
    return rows, overlap
