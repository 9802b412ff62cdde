"""The demo's results: a table of Dice by vendor, and a picture of each vendor's case of median Dice."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utseg.case import Case
from utseg.evaluate.records import METRICS_FILE, read_metrics
from utseg.evaluate.tables import mean_of, number, to_text
from utseg.figures.montage import comparison_montage, png
from utseg.figures.windows import largest_slice
from utseg.files import require_writable, write_bytes
from utseg.label_map import Labels
from utseg.rawdata.gate import read_image, read_label

SEEN = ("A", "B")
Dice = Mapping[str, float | None]


def score_table(vendors: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Plain text from a summary's groups by vendor: a line each, means over subjects, then the means over seen and unseen vendors."""
    labels = list(next(iter(vendors.values()))["labels"])
    rows = [["vendor", "in training", "cases", *labels, "mean"]]
    for vendor, group in sorted(vendors.items()):
        values = [*(group["labels"][label]["dice"]["mean"] for label in labels), group["mean_dice"]]
        figures = [number(value, 3) for value in values]
        rows.append([f"{vendor} {names[vendor]}", _seen(vendor), str(group["cases"]), *figures])
    for which in ("seen", "unseen"):
        value = mean_of(group["mean_dice"] for vendor, group in vendors.items() if _seen(vendor) == which)
        rows.append([f"mean of {which} vendors", *[""] * (len(labels) + 2), number(value, 3)])
    return "\n".join(to_text(rows))


def _seen(vendor: str) -> str:
    return "seen" if vendor in SEEN else "unseen"


def draw_pictures(cases: Sequence[Case], labels: Labels, testing: Path) -> list[Path]:
    """Writes `pictures/vendor_A.png`, … beside `masks` and `scores` in the folder `testing`; returns their paths.

    Each shows the vendor's case of median Dice in the slice with the largest reference.
    """
    require_writable(testing / "pictures")
    scores = read_dice(testing / "scores" / METRICS_FILE)
    pictures = []
    for vendor in sorted({case.groups["vendor"] for case in cases}):
        case = median_case([case for case in cases if case.groups["vendor"] == vendor], scores)
        assert case.label is not None, "only labelled cases are scored"
        image, geometry = read_image(case.images[0], case.frame)
        reference, _ = read_label(case.label, labels, case.frame)
        prediction, _ = read_label(testing / "masks" / f"{case.case_id}.nii.gz", labels)
        z = largest_slice(reference)
        dice = "  ".join(f"{name} {number(value, 3)}" for name, value in scores[case.case_id].items())
        title = (
            f"Vendor {vendor} ({case.groups['vendor_name']}), {_seen(vendor)} in training · {case.subject}, {case.phase}, "
            f"slice {z + 1} of {len(reference)}"
        )
        slices = image[z], reference[z], prediction[z]
        drawn = comparison_montage(*slices, geometry.spacing_zyx_mm[1:], labels, title, f"· Dice {dice}")
        path = testing / "pictures" / f"vendor_{vendor}.png"
        write_bytes(path, png(drawn, {"Title": f"{title}; prediction · Dice {dice}"}))
        pictures.append(path)
    return pictures


def read_dice(metrics: Path) -> dict[str, dict[str, float | None]]:
    """Dice by case and label name, from `metrics.csv`; None where it is not defined."""
    scores: dict[str, dict[str, float | None]] = {}
    for row in read_metrics(metrics):
        value = None if math.isnan(row["dice"]) else row["dice"]
        scores.setdefault(row["case"], {})[row["label_name"]] = value
    return scores


def median_case(cases: Sequence[Case], scores: Mapping[str, Dice]) -> Case:
    """The case in the middle by mean Dice over labels; the lower of two."""

    def mean(case: Case) -> tuple[float, str]:
        return mean_of(scores[case.case_id].values()) or 0.0, case.case_id

    return sorted(cases, key=mean)[(len(cases) - 1) // 2]
