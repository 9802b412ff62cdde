"""The demo's pictures: of each vendor the test case whose mean Dice is the median, in the slice with the largest reference area."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from utseg.case import Case
from utseg.evaluate.records import METRICS_FILE, read_metrics
from utseg.evaluate.tables import mean_of, number
from utseg.figures.montage import comparison_montage, png
from utseg.figures.windows import largest_slice
from utseg.files import require_writable, write_bytes
from utseg.rawdata.gate import read_image, read_label

Scores = dict[str, dict[str, float | None]]


def draw_pictures(
    cases: Sequence[Case], labels: Mapping[str, int], testing: Path, seen: Collection[str]
) -> list[Path]:
    """Writes `pictures/vendor_A.png`, … beside `masks` and `scores` in the folder `testing`; returns their paths."""
    require_writable(testing / "pictures")
    scores = read_dice(testing / "scores" / METRICS_FILE)
    by_vendor = defaultdict(list)
    for case in cases:
        by_vendor[case.groups["vendor"]].append(case)
    pictures = []
    for vendor, candidates in sorted(by_vendor.items()):
        case = median_case(candidates, scores)
        path = testing / "pictures" / f"vendor_{vendor}.png"
        seen_in_words = "seen in training" if vendor in seen else "not seen in training"
        title = (
            f"Vendor {vendor} ({case.groups['vendor_name']}), {seen_in_words} · {case.subject}, {case.phase}"
        )
        _draw(case, labels, testing / "masks" / f"{case.case_id}.nii.gz", scores[case.case_id], title, path)
        pictures.append(path)
    return pictures


def read_dice(metrics: Path) -> Scores:
    """Dice by case and label name, from `metrics.csv`; None where it is not defined."""
    scores: Scores = defaultdict(dict)
    for row in read_metrics(metrics):
        scores[row["case"]][row["label_name"]] = None if math.isnan(row["dice"]) else row["dice"]
    return dict(scores)


def median_case(cases: Sequence[Case], scores: Scores) -> Case:
    """The case in the middle by mean Dice over labels; the lower of two."""

    def mean(case: Case) -> tuple[float, str]:
        return mean_of(scores[case.case_id].values()) or 0.0, case.case_id

    return sorted(cases, key=mean)[(len(cases) - 1) // 2]


def _draw(
    case: Case,
    labels: Mapping[str, int],
    mask: Path,
    dice: Mapping[str, float | None],
    title: str,
    path: Path,
) -> None:
    assert case.label is not None, "only labelled cases are scored"
    image, geometry = read_image(case.images[0], case.frame)
    reference, _ = read_label(case.label, labels, case.frame)
    prediction, _ = read_label(mask, labels)
    z = largest_slice(reference)
    scores = "· Dice " + "  ".join(f"{name} {number(value, 3)}" for name, value in dice.items())
    title = f"{title}, slice {z + 1} of {len(reference)}"
    spacing = geometry.spacing_zyx_mm[1:]
    picture = comparison_montage(image[z], reference[z], prediction[z], spacing, labels, title, scores)
    write_bytes(path, png(picture, {"Title": f"{title}; prediction {scores}"}))
