"""How clinical measures of prediction and reference (`utseg.cardiac.volumes`) agree, per subject with one case at ED and one at ES.

Over subjects, d = prediction − reference: bias (mean of d) with its bootstrap interval, sd of d (n−1), limits of agreement bias ± 1.96·sd
(Bland and Altman, Lancet 1986), mean absolute difference, Pearson's r, and Lin's concordance (Biometrics 1989). A structure that the
prediction lacks has volume 0; one that the reference lacks was not drawn, and its volume is undefined. Subjects without both phases, or
with two cases of one, are named and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.structures import find_structures
from utseg.cardiac.volumes import PHASES, UNITS, measures_of
from utseg.evaluate.metrics import Row
from utseg.evaluate.subjects import bootstrap_interval
from utseg.evaluate.summary import by_value

LIMITS = 1.96
SOURCES = ("reference", "prediction")


@dataclass(frozen=True)
class Clinical:
    """Tidy rows, one a subject and measure (`clinical_columns` in `records.py`), and the subjects that are left out."""

    rows: list[Row]
    incomplete: list[str]
    ambiguous: list[str]


def clinical_measures(rows: Sequence[Row], columns: Sequence[str]) -> Clinical | None:
    """From the rows of `metrics.csv`. None where no label is a cardiac structure or no case has a phase."""
    names = find_structures(list(dict.fromkeys(str(row["label_name"]) for row in rows))).names
    if not names or not any(row.get("phase") in PHASES for row in rows):
        return None
    found = Clinical([], [], [])
    for subject, of_subject in by_value(rows, "subject").items():
        cases = {phase: {row["case"] for row in of_subject if row.get("phase") == phase} for phase in PHASES}
        if any(len(there) > 1 for there in cases.values()):
            found.ambiguous.append(subject)
        elif not all(cases.values()):
            found.incomplete.append(subject)
        else:
            shared = {
                column: of_subject[0].get(column, "")
                for column in columns
                if column != "phase" and len({str(row.get(column, "")) for row in of_subject}) == 1
            }
            found.rows.extend(_rows_of(subject, shared, of_subject, names))
    return found


def _rows_of(subject: str, groups: Row, rows: Sequence[Row], names: dict[str, str]) -> list[Row]:
    volumes = {(row["label_name"], row["phase"]): row for row in rows}
    measured: dict[str, dict[str, float]] = {}
    for source in SOURCES:
        for role, name in names.items():
            end_diastole, end_systole = (_volume_ml(volumes[name, phase], source) for phase in PHASES)
            for measure, value in measures_of(role, end_diastole, end_systole).items():
                measured.setdefault(measure, {})[source] = value
    return [
        {
            "subject": subject,
            **groups,
            "measure": measure,
            "unit": unit,
            **measured[measure],
            "difference": measured[measure]["prediction"] - measured[measure]["reference"],
        }
        for measure, unit in UNITS.items()
        if measure in measured
    ]


def _volume_ml(row: Row, source: str) -> float:
    volume = float(row[f"{source}_ml"])
    return volume if volume or source == "prediction" else float("nan")


def over_same_subjects(every: Sequence[Clinical]) -> list[Clinical]:
    """The measures of several models, each only of the subjects for whom it is defined in all of them."""
    defined = [
        {(row["subject"], row["measure"]) for row in one.rows if not np.isnan(row["difference"])}
        for one in every
    ]
    shared = set.intersection(*defined) if defined else set()
    return [
        replace(one, rows=[row for row in one.rows if (row["subject"], row["measure"]) in shared])
        for one in every
    ]


def summarise_clinical(clinical: Clinical, columns: Sequence[str]) -> dict[str, Any]:
    """Agreement per measure, over all subjects and for each value of each group column."""
    return {
        "subjects": len({row["subject"] for row in clinical.rows}),
        "incomplete": clinical.incomplete,
        "ambiguous": clinical.ambiguous,
        "all": _by_measure(clinical.rows),
        "groups": {
            column: {value: _by_measure(some) for value, some in by_value(clinical.rows, column).items()}
            for column in columns
            if column != "phase"
        },
    }


def _by_measure(rows: Sequence[Row]) -> dict[str, Any]:
    measures = {}
    for measure, of_measure in by_value(rows, "measure").items():
        sides = (np.array([row[source] for row in of_measure], dtype=float) for source in SOURCES)
        measures[measure] = {"unit": UNITS[measure], **agreement(*sides)}
    return {measure: measures[measure] for measure in UNITS if measure in measures}


def agreement(reference_S: NDArray[np.float64], prediction_S: NDArray[np.float64]) -> dict[str, Any]:
    """How the predicted values of subjects agree with those of the reference. Pairs with an undefined value are left out and counted.

    What cannot be said (fewer than two subjects, no spread) is None.
    """
    defined = ~(np.isnan(reference_S) | np.isnan(prediction_S))
    reference, prediction = reference_S[defined], prediction_S[defined]
    n = int(defined.sum())
    keys = ("reference_mean", "prediction_mean", "bias", "bias_interval95", "sd", "limits", "mae", "r", "ccc")
    found: dict[str, Any] = {"n": n, "undefined": len(defined) - n} | dict.fromkeys(keys)
    if n == 0:
        return found
    difference = prediction - reference
    means = (reference, prediction, difference, np.abs(difference))
    found |= dict(
        zip(
            ("reference_mean", "prediction_mean", "bias", "mae"),
            (float(values.mean()) for values in means),
            strict=True,
        )
    )
    if n > 1:
        bias, sd = found["bias"], float(difference.std(ddof=1))
        interval = bootstrap_interval(difference, np.arange(n).astype(str))
        found |= {"bias_interval95": interval, "sd": sd, "limits": [bias - LIMITS * sd, bias + LIMITS * sd]}
        spread = float(reference.std() * prediction.std())
        shared = float(((reference - reference.mean()) * (prediction - prediction.mean())).mean())
        if spread > 0:
            found["r"] = shared / spread
        if (whole := float(reference.var() + prediction.var() + bias**2)) > 0:
            found["ccc"] = 2 * shared / whole
    return found
