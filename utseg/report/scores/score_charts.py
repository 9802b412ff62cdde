"""Which charts the page has: distributions by label and group, agreement of volumes and clinical measures, training curves.

How a chart is drawn is in `utseg.figures.charts`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from utseg.evaluate.clinical import Clinical
from utseg.evaluate.clinical import agreement as agreement_of
from utseg.evaluate.compare import WRONG
from utseg.evaluate.metrics import METRIC, Metric, Row, metrics_for
from utseg.evaluate.summary import by_value
from utseg.figures.charts import Curve, Dots, agreement, curves, distribution
from utseg.report.entries import Entry, on_shared_cases
from utseg.report.page import Charts

MOST_VALUES = 14
MODELS_SHOWN = 6
CHARTS_IN_SIGHT = 2


def distributions(entries: Sequence[Entry], columns: Sequence[str]) -> list[Charts]:
    """For each metric and group column, one chart a label: all cases above, then the column's values.

    A point is a case; models stand over the cases that all have, where there are some. A distance is drawn at the far end where the
    structure is missed or extra.
    """
    scored = on_shared_cases([entry for entry in entries if entry.scores])[:MODELS_SHOWN]
    labels = list(dict.fromkeys(str(row["label_name"]) for entry in scored for row in entry.rows))
    found: list[Charts] = []
    for column in columns or ("",):
        for metric in (METRIC[key] for key in metrics_for("study")[:2]):
            if not all(metric.key in entry.rows[0] for entry in scored):
                continue
            name, far = metric.name, bool(metric.unit)
            unit = f"{name}, {metric.unit} (logarithmic)" if far else name
            rows = {label: _rows(scored, label, metric, column) for label in labels}
            charts = [
                distribution(f"{label}: {name}", unit, *some, logarithmic=far) for label, some in rows.items()
            ]
            caption = f"{name} of every case" + (f" by {column}" if column else "")
            caption += "; at the far end where a structure is missed or extra" if far else ""
            values = {str(row.get(column, "")) for entry in scored for row in entry.rows} - {""}
            if len(values) > MOST_VALUES:
                caption += f" (the first {MOST_VALUES} of {len(values)})"
            found.append(Charts(caption, charts, "closed" if len(found) >= CHARTS_IN_SIGHT else ""))
    return found


def _rows(
    entries: Sequence[Entry], label: str, metric: Metric, column: str
) -> tuple[list[Dots], tuple[float, float]]:
    """The rows of one chart, and the limits of its axis: Dice up to 1, distances from 0."""
    rows = [[row for row in entry.rows if row["label_name"] == label] for entry in entries]
    groups = [("all", rows)]
    if column:
        split = [by_value(some, column) for some in rows]
        names = sorted({value for some in split for value in some})
        groups += [(value, [some.get(value, []) for some in split]) for value in names[:MOST_VALUES]]
    dots = []
    every: list[float] = []
    for name, by_entry in groups:
        for number, some in enumerate(by_entry):
            defined = [row for row in some if row["status"] in WRONG or math.isfinite(row[metric.key])]
            values = np.array([row[metric.key] for row in defined], dtype=float)
            every += values[np.isfinite(values)].tolist()
            values = np.nan_to_num(values, nan=np.inf)
            cases = [str(row["case"]) for row in defined]
            dots.append(Dots(name if number == 0 else "", number, values, cases, len(some) - len(defined)))
    if metric.unit:
        return dots, (0.0, max(every, default=1.0) or 1.0)
    return dots, (min(every, default=0.0), 1.0)


def agreements(entry: Entry, clinical: Clinical | None, colour: int) -> list[Charts]:
    """Bland–Altman plots of the clinical measures, a point a subject, and of the volumes of each label, a point a case."""
    measured = clinical.rows if clinical else ()
    of_subjects = [
        _agreement(measure.replace("_", " "), str(rows[0]["unit"]), rows, "subject", "", colour)
        for measure in dict.fromkeys(str(row["measure"]) for row in measured)
        for rows in [[row for row in measured if row["measure"] == measure]]
    ]
    of_cases = [
        _agreement(f"{label} volume", "ml", rows, "case", "_ml", colour)
        for label, rows in by_value(entry.rows, "label_name").items()
    ]
    found = {"Clinical measures of every subject": of_subjects, "Volumes of every case": of_cases}
    return [
        Charts(f"{caption}: {entry.name}", drawn)
        for caption, charts in found.items()
        if (drawn := [chart for chart in charts if chart])
    ]


def _agreement(
    title: str, unit: str, rows: Sequence[Row], name: str, suffix: str, colour: int
) -> Markup | None:
    """A plot of the rows that have both values; None with fewer than two."""
    keys = f"reference{suffix}", f"prediction{suffix}"
    known = [row for row in rows if all(key in row and math.isfinite(float(row[key])) for key in keys)]
    if len(known) < 2:
        return None
    reference, prediction = (np.array([float(row[key]) for row in known]) for key in keys)
    found = agreement_of(reference, prediction)
    return agreement(title, unit, reference, prediction, [str(row[name]) for row in known], found, colour)


def training_curves(entries: Sequence[Entry]) -> Charts | None:
    """Training loss and validation Dice over epochs, a line a run; of a single run also the loss' terms and each label."""
    runs = [(number, entry, run) for number, entry in enumerate(entries) for run in entry.runs if run.epochs]
    if not runs:
        return None
    losses: list[Curve] = []
    dices: list[Curve] = []
    single = len(runs) == 1
    for colour, entry, run in runs:
        name = f"{entry.name} {run.record.selection}" if len(entry.runs) > 1 else entry.name
        validated = [epoch for epoch in run.epochs if epoch.get("mean_dice") is not None]
        if single:
            losses += _curves(run.epochs, "loss", "total", colour, "terms")
            dices += _curves(validated, "mean_dice", "mean", colour, "validation_dice")
        else:
            losses += _curves(run.epochs, "loss", name, colour)
            dices += _curves(validated, "mean_dice", name, colour)
    highest = max(value for line in losses for value in line.y if math.isfinite(value))
    charts = [curves("Training loss", "epoch", losses, (0.0, highest))]
    if any(line.x for line in dices):
        charts.append(curves("Validation Dice", "epoch", dices, (0.0, 1.0)))
    return Charts("Training curves", charts)


def _curves(
    epochs: Sequence[Mapping[str, Any]], key: str, name: str, colour: int, parts: str = ""
) -> list[Curve]:
    """A value over epochs, and dashed lines of its parts, which the epochs have under the key `parts`."""
    x = [epoch["epoch"] for epoch in epochs]
    lines = [Curve(name, colour, x, [epoch[key] for epoch in epochs])]
    of_part = [epoch.get(parts) or {} for epoch in epochs]
    for number, part in enumerate(of_part[0] if of_part else (), start=1):
        values = [values.get(part) for values in of_part]
        y = [math.nan if value is None else value for value in values]
        lines.append(Curve(part.replace("_", " "), number, x, y, dashed=True))
    return lines
