"""Scores folders for tests of reports: rows without images, and a tiny scored cohort with images whose names are hostile."""

import csv
from pathlib import Path

import numpy as np
from rawfiles import LABELS, make_nifti

from utseg.case import Case
from utseg.compute.pool import InlineExecutor
from utseg.evaluate import evaluate_cases
from utseg.evaluate.records import METRIC_KEYS, case_columns, to_csv

HOSTILE_CASE = "<img src=x onerror=hacked=1>"
HOSTILE_SCRIPT = "</script><script>hacked=2</script>"
HOSTILE_VENDOR = '"><svg onload=hacked=3>'


def write_scores(folder: Path, dice_by_case: dict[str, dict[str, float]], **groups: dict[str, str]) -> Path:
    """A scores folder with nothing but a `metrics.csv`. Cases are called SUBJECT_PHASE; a Dice of NaN is an empty structure."""
    rows = []
    for case, dice in dice_by_case.items():
        subject, _, phase = case.rpartition("_")
        for name, value in dice.items():
            row = {
                "case": case,
                "subject": subject,
                "phase": phase,
                "label": LABELS[name],
                "label_name": name,
            }
            row |= {column: values[subject] for column, values in groups.items()}
            row |= dict.fromkeys(METRIC_KEYS, value)
            row |= {"hd95_mm": 10 * (1 - value), "slices_both": 1, "slices_missed": 0, "slices_extra": 0}
            rows.append(row | {"status": "both_empty" if np.isnan(value) else "ok"})
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(to_csv(rows, case_columns(("phase", *groups))))
    return folder


def heart(seed: int, shift: int = 0) -> np.ndarray:
    """A ring with a cavity and a neighbour, in all slices but the outermost: (5, 40, 36)."""
    rng = np.random.default_rng(seed)
    label = np.zeros((5, 40, 36), np.uint8)
    y, x = np.mgrid[:40, :36]
    radius = np.hypot(y - 20 - shift, x - 20 + rng.integers(-1, 2))
    inner = radius < 5, radius < 9
    for z in (1, 2, 3):
        label[z][np.hypot(y - 20 - shift, x - 10) < 6] = 3
        label[z][inner[1]] = 2
        label[z][inner[0]] = 1
    return label


def rename(folder: Path, old: str, new: str) -> None:
    """Gives a case another name in the files of a scores folder, as somebody might who means harm."""
    with (folder / "metrics.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))
    with (folder / "metrics.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([[new if cell == old else cell for cell in row] for row in rows])
    sources = folder / "sources.json"
    sources.write_text(sources.read_text().replace(f'"{old}": {{', f'"{new}": {{'))


def pictured_cases(folder: Path) -> list[Case]:
    """Six cases of vendors A, B and a hostile one, with files in `raw/`; the reference is `heart` of the case's number."""
    cases = []
    for seed, name in enumerate(("a_ED", "a_ES", "b_ED", "b_ES", HOSTILE_CASE, "c_ES")):
        image, label = (folder / "raw" / f"{seed}{suffix}.nii.gz" for suffix in ("_0000", ""))
        bright = 300 * (heart(seed) > 0)
        make_nifti(image, np.random.default_rng(seed).integers(0, 200, (5, 40, 36)).astype(np.int16) + bright)
        make_nifti(label, heart(seed))
        groups = {"vendor": ("A", "B", HOSTILE_VENDOR)[seed // 2]}
        phase = ("ED", "ES")[seed % 2]
        cases.append(Case(name, f"subject {seed // 2}", (image,), label, None, phase, groups=groups))
    return cases


def make_cohort(folder: Path) -> Path:
    """`good` and `poor`: two models' scores of six cases with images, of vendors A, B and a hostile one; case names are hostile, too."""
    cases = pictured_cases(folder)
    for seed, case in enumerate(cases):
        for model, shift in (("good", seed % 2), ("poor", 2 + seed % 3)):
            make_nifti(folder / model / "masks" / f"{case.case_id}.nii.gz", heart(seed, shift))
    for model in ("good", "poor"):
        scores = folder / model / "scores"
        evaluate_cases(cases, folder / model / "masks", LABELS, scores, executor=InlineExecutor())
        rename(scores, "b_ES", HOSTILE_SCRIPT)
    return folder


def write_hearts(folder: Path, scores: dict[tuple[str, str], tuple[float, float, str]]) -> Path:
    """A scores folder with one label, LV, of cases (subject, phase): Dice, HD95 in mm and status as they are given."""
    columns = case_columns(("phase",))
    rows = [
        dict.fromkeys(METRIC_KEYS, 1)
        | {"case": f"{subject}_{phase}", "subject": subject, "phase": phase, "label": 1, "label_name": "LV"}
        | {"dice": dice, "surface_dice": dice, "hd95_mm": hd95, "status": status}
        for (subject, phase), (dice, hd95, status) in scores.items()
    ]
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(to_csv(rows, columns))
    return folder
