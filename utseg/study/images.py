"""What the images of a study are like, a row a case (`images.csv`): spacing, intensities, contrast between labels, noise and sharpness.

A feature's name begins with its kind: `spacing_`, `intensity_`, `contrast_`, `texture_`, and `raw_` for intensities in the scanner's own
units, which networks never see. All but `spacing_` and `raw_` are in units of the image's own standard deviation.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case, Dataset
from utseg.compute.pool import process_pool, run_all
from utseg.errors import InputError
from utseg.evaluate.metrics import Row
from utseg.evaluate.records import read_rows, to_csv
from utseg.files import sha256, write_text
from utseg.fingerprint.model import PERCENTILES
from utseg.label_map import Labels, LabelValue, inside, structures
from utseg.labels import without_ignored
from utseg.study.record import IMAGES_FILE, read_study

IMAGES_FORMAT = "2"
"""Part of every row's checksum: another value measures anew."""
KINDS = ("spacing", "intensity", "contrast", "texture", "raw")
SHOWN_PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
RAW_PERCENTILES = (1.0, 50.0, 99.0)
MOST_PAIRED_LABELS = 5
BOX_MARGIN_MM = 10.0


@dataclass(frozen=True)
class _Task:
    """One case to measure. `known`: rows of before by their checksum."""

    case: Case
    dataset: str
    labels: dict[str, LabelValue]
    channel_names: tuple[str, ...]
    known: Mapping[str, Row]


def measure_study(folder: Path) -> list[Row]:
    """Writes `images.csv` into a study's folder: all cases of the subjects that a run trains on, validates on or is tested on.

    Raises UtsegError where a raw dataset is not where it was any more, or holds damaged cases.
    """
    from utseg.rawdata import open_dataset

    record = read_study(folder)
    involved: dict[str, set[str]] = {}
    for run in record.runs:
        trained_on = (*run.subjects.training, *run.subjects.validation)
        involved.setdefault(run.dataset, set()).update(trained_on)
        for name, subjects in run.subjects.testing.items():
            involved.setdefault(name, set()).update(subjects)
    datasets = []
    for name, wanted in involved.items():
        dataset = open_dataset(Path(record.datasets[name].folder), name)
        cases = tuple(case for case in dataset.cases if case.subject in wanted)
        datasets.append(replace(dataset, cases=cases))
    with process_pool() as pool:
        return write_images(datasets, folder / IMAGES_FILE, pool)


def write_images(datasets: Sequence[Dataset], path: Path, executor: Executor) -> list[Row]:
    """Measures all labelled cases of the datasets into a CSV file; cases that are in it and have not changed are not read again.

    A row has dataset, case, subject, phase, groups, checksum and features. Raises CaseErrors with a line for every problem of every case.
    """
    known = {str(row["checksum"]): row for row in read_images(path)} if path.is_file() else {}
    tasks = [
        _Task(case, dataset.name, dict(dataset.labels), dataset.channel_names, known)
        for dataset in datasets
        for case in dataset.cases
        if case.label is not None
    ]
    rows = run_all(_measure, tasks, executor, "measuring images", name=lambda task: task.case.case_id)
    which = dict.fromkeys(column for row in rows for column in _split(row)[0])
    write_text(path, to_csv(rows, [*which, "checksum", *features_of(rows)]))
    return rows


def read_images(path: Path) -> list[Row]:
    """The rows of an `images.csv`: features as numbers (none: NaN), everything else as text. Raises InputError naming file and line."""
    return read_rows(path, {"dataset", "case", "subject", "checksum"})


def features_of(rows: Sequence[Row]) -> list[str]:
    """The names of the features that these rows have, in their order: the columns after `checksum`."""
    return list(dict.fromkeys(column for row in rows for column in _split(row)[1]))


def _split(row: Row) -> tuple[list[str], list[str]]:
    """The columns that say which case it is, and those of its features."""
    columns = list(row)
    checksum = columns.index("checksum")
    return columns[:checksum], columns[checksum + 1 :]


def kind_of(feature: str) -> str:
    """What a feature describes: one of KINDS."""
    return feature.partition("_")[0]


def _measure(task: _Task) -> Row:
    from utseg.rawdata.gate import read_case

    case = task.case
    if not all(path.is_file() for path in case.files):
        read_case(case, task.labels)  # says what is missing
    checksum = _checksum(task)
    own: Row = {"dataset": task.dataset, "case": case.case_id, "subject": case.subject, "phase": case.phase}
    own |= {**case.groups, "checksum": checksum}
    if known := task.known.get(checksum):
        return own | {feature: known[feature] for feature in features_of([known])}
    loaded = read_case(case, task.labels)
    assert loaded.label_ZYX is not None, "only labelled cases are measured"
    label_ZYX = without_ignored(loaded.label_ZYX, task.labels)
    spacing = loaded.geometry.spacing_zyx_mm
    own |= spacing_features(label_ZYX.shape, spacing)
    names = task.channel_names
    for number, (name, image_ZYX) in enumerate(zip(names, loaded.image_CZYX, strict=True)):
        found = channel_features(image_ZYX, label_ZYX, spacing, task.labels)
        suffix = f"_{name}" if len(names) > 1 else ""
        suffix += f"_{number}" if names.count(name) > 1 else ""
        own |= {f"{feature}{suffix}": value for feature, value in found.items()}
    return own


def _checksum(task: _Task) -> str:
    parts = [IMAGES_FORMAT, str(task.case.frame), str(sorted(task.labels.items())), *task.channel_names]
    try:
        parts += [sha256(path) for path in task.case.files]
    except OSError as error:
        raise InputError(f"case {task.case.case_id}: cannot be read ({error.strerror or error})") from None
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def spacing_features(shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float]) -> dict[str, float]:
    """Distance of slices and pixels, and the field of view's side, in mm; in the plane the geometric mean of both axes."""
    z, y, x = spacing_zyx_mm
    in_plane = float(np.sqrt(y * x))
    side = in_plane * float(np.sqrt(shape_zyx[1] * shape_zyx[2]))
    return {"spacing_z_mm": z, "spacing_yx_mm": in_plane, "spacing_field_mm": side}


def channel_features(
    image_ZYX: NDArray[np.float32],
    label_ZYX: NDArray[np.uint8],
    spacing_zyx_mm: Sequence[float],
    labels: Labels,
) -> dict[str, float]:
    """Features of one channel. What needs a label that the case has not, or a constant image, is NaN."""
    from utseg.fingerprint.case import measure_channel

    figures = measure_channel(image_ZYX, label_ZYX)
    percentile = dict(zip(PERCENTILES, figures.percentiles, strict=True))
    sd = figures.sd or float("nan")
    found = {
        f"intensity_p{level:02.0f}": (percentile[level] - figures.mean) / sd for level in SHOWN_PERCENTILES
    }
    names = structures(labels)
    means = {name: _mean(image_ZYX[inside(label_ZYX, value)]) for name, value in names.items()}
    found |= {f"intensity_{name}": (mean - figures.mean) / sd for name, mean in means.items()}
    for a, b in combinations(list(names)[:MOST_PAIRED_LABELS], 2):
        found[f"contrast_{a}_{b}"] = abs(means[a] - means[b]) / sd
    found["texture_noise"] = noise(image_ZYX) / sd
    found["texture_sharpness_per_mm"] = sharpness(image_ZYX, label_ZYX, spacing_zyx_mm) / sd
    found |= {f"raw_p{level:02.0f}": percentile[level] for level in RAW_PERCENTILES}
    return found | {"raw_sd": figures.sd}


def noise(image_ZYX: NDArray[np.float32]) -> float:
    """Standard deviation of the noise, in the image's units, by the difference of two Laplacians in the plane (Immerkær 1996, CVIU 64:300).

    The mean over the inner pixels of all slices; NaN for planes of less than 3 × 3.
    """
    planes: NDArray[Any] = image_ZYX
    for axis in (1, 2):
        length = planes.shape[axis]
        if length < 3:
            return float("nan")
        first, middle, last = (np.take(planes, range(k, length - 2 + k), axis) for k in (0, 1, 2))
        planes = first - 2 * middle + last
    return float(np.sqrt(np.pi / 2) * np.abs(planes).mean(dtype=np.float64) / 6)


def sharpness(
    image_ZYX: NDArray[np.float32], label_ZYX: NDArray[np.uint8], spacing_zyx_mm: Sequence[float]
) -> float:
    """Root mean square of the in-plane gradient, per mm, in the box around all labels with a margin of BOX_MARGIN_MM.

    Squared, for blurring an edge leaves the mean gradient as it is. NaN where nothing is labelled.
    """
    held = [np.flatnonzero((label_ZYX > 0).any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not held[0].size:
        return float("nan")
    window = [slice(held[0][0], held[0][-1] + 1)]
    for places, step in zip(held[1:], spacing_zyx_mm[1:], strict=True):
        margin = int(np.ceil(BOX_MARGIN_MM / step))
        window.append(slice(max(0, places[0] - margin), places[-1] + margin + 1))
    box_ZYX = image_ZYX[tuple(window)]
    if min(box_ZYX.shape[1:]) < 2:
        return float("nan")
    dy, dx = np.gradient(box_ZYX, *spacing_zyx_mm[1:], axis=(1, 2))
    return float(np.sqrt((dy**2 + dx**2).mean(dtype=np.float64)))


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
