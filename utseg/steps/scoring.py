"""`evaluate`: masks against reference labels, wherever both lie."""

import logging
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from utseg.case import Dataset
from utseg.errors import explained_by
from utseg.evaluate.metrics import Definition
from utseg.evaluate.pairs import files_by_case, require_masks
from utseg.evaluate.references import find_references, of_predicted
from utseg.evaluate.score import evaluate_cases
from utseg.evaluate.sources import check_references
from utseg.home import FilePath
from utseg.label_map import Labels
from utseg.labels import checked_labels
from utseg.rawdata import require_outside_datasets
from utseg.steps.datasets import named_dataset

logger = logging.getLogger("utseg")


def evaluate(
    predictions: FilePath,
    references: FilePath,
    output: FilePath,
    *,
    dataset: Dataset | str | None = None,
    home: FilePath | None = None,
    labels: Labels | None = None,
    only_predicted: bool = False,
    only_referenced: bool = False,
    definition: Definition | None = None,
    as_official_utnet: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Scores the masks `predictions`/CASE.nii.gz against `references`, a folder of labels or a raw dataset; returns `summary.json`.

    Distances are in mm, volumes in ml, on the native grid. `output`: the folder for metrics.csv, summary.json and the tables.
    dataset: names labels and groups of the references; opened, or its name below `home`. labels: names and values of both sides, where
    nothing beside them says it. only_predicted, only_referenced: leave out the cases that lack the other side. The rest, and errors, as of
    `find_references` and `evaluate_cases`.
    """
    predictions, references, output = Path(predictions), Path(references), Path(output)
    require_outside_datasets(output)
    found = find_references(
        references,
        predictions,
        named_dataset(dataset, home),
        None if labels is None else checked_labels(labels),
    )
    require_masks(predictions)
    extra = files_by_case(predictions).keys() - {case.case_id for case in found.cases}
    if only_referenced and extra:
        names = ", ".join(sorted(extra))
        logger.warning("%d predictions have no reference and are not scored: %s", len(extra), names)
    if only_predicted:
        found = of_predicted(found, predictions)
    check_references(found.cases, predictions)
    with explained_by(found.warnings):
        return evaluate_cases(
            found.cases,
            predictions,
            found.labels,
            output,
            definition=definition,
            as_official_utnet=as_official_utnet,
            refuse_extra=not only_referenced,
            mask_labels=found.mask_labels,
            assumed=found.assumed,
            executor=executor,
            workers=workers,
        )
