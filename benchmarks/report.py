"""Time and size of `utseg_report` for 340 synthetic short-axis stacks (10 × 224 × 258, 170 subjects at ED and ES, four vendors).

    python benchmarks/report.py FOLDER [--cases 340] [--models 1] [--workers 2]

The cohort, predictions and scores are made once in FOLDER and kept. Images are blurred noise, in which there is more to encode than in
real scans: their stacks take more bytes, not fewer. Outlines are wavy ellipses. Reported: seconds, megabytes, and the largest process.
"""

import argparse
import resource
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from utseg.case import Case
from utseg.compute.pool import process_pool, run_each
from utseg.evaluate import evaluate_cases
from utseg.files import read_json
from utseg.report import write_report

SIZE_ZYX = (10, 224, 258)
SPACING_ZYX = (8.0, 1.25, 1.25)
LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}


def heart(rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """A label map of a ring, its cavity, and a crescent, the edges wavy; apical slices are smaller, the outermost are empty."""
    depth, height, width = SIZE_ZYX
    y, x = np.mgrid[:height, :width].astype(float)
    label = np.zeros(SIZE_ZYX, np.uint8)
    middle_y, middle_x = height / 2 + rng.uniform(-12, 12) + shift, width / 2 + rng.uniform(-12, 12) + shift
    waves = rng.uniform(0, 2 * np.pi, 3)
    for z in range(1, depth - 1):
        size = 1.15 - 0.75 * z / depth
        angle = np.arctan2(y - middle_y, x - middle_x)
        wave = 1 + 0.03 * sum(np.sin((k + 3) * angle + waves[k] + z) for k in range(3))
        radius = np.hypot(y - middle_y, x - middle_x) / (wave * size)
        crescent = np.hypot(y - middle_y, (x - middle_x + 26 * size) / 1.2) / (wave * size)
        label[z][crescent < 27] = 3
        label[z][radius < 30] = 2
        label[z][radius < 20] = 1
    return label


def make_case(job: tuple[Path, int, int]) -> None:
    """Writes image, reference and the models' predictions of one case."""
    folder, number, models = job
    rng = np.random.default_rng(number)
    label = heart(np.random.default_rng(number))
    image = gaussian_filter(rng.normal(size=SIZE_ZYX), (0, 2.5, 2.5)) * 900 + rng.normal(0, 6, SIZE_ZYX)
    image += np.choose(label, (90, 210, 70, 190))
    affine = np.diag([*SPACING_ZYX[::-1], 1.0])

    def save(array: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.ascontiguousarray(array.T), affine), path)

    name = case_name(number)
    save(image.clip(0).astype(np.int16), folder / "images" / f"{name}_0000.nii.gz")
    save(label, folder / "labels" / f"{name}.nii.gz")
    for model in range(models):
        shift = rng.normal(0, 1.0 + 0.5 * model)
        save(
            heart(np.random.default_rng(number), shift),
            folder / f"model{model}" / "masks" / f"{name}.nii.gz",
        )


def case_name(number: int) -> str:
    """ED and ES of a subject follow each other."""
    return f"subject{number // 2:03d}_{'ED' if number % 2 == 0 else 'ES'}"


def make_cases(folder: Path, count: int) -> list[Case]:
    """The cases of the cohort, as a raw dataset would give them."""
    return [
        Case(
            case_name(number),
            f"subject{number // 2:03d}",
            (folder / "images" / f"{case_name(number)}_0000.nii.gz",),
            folder / "labels" / f"{case_name(number)}.nii.gz",
            phase=case_name(number)[-2:],
            groups={"vendor": "ABCD"[number // 2 % 4], "centre": str(1 + number // 2 % 5)},
        )
        for number in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=340)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder / f"{arguments.cases}_cases_{arguments.models}_models"
    cases = make_cases(folder, arguments.cases)
    scores = [folder / f"model{model}" / "scores" for model in range(arguments.models)]
    if not all((place / "summary.json").is_file() for place in scores):
        jobs = [(folder, number, arguments.models) for number in range(arguments.cases)]
        with process_pool(arguments.workers) as pool:
            for _ in run_each(make_case, jobs, pool):
                pass
        for place in scores:
            evaluate_cases(cases, place.parent / "masks", LABELS, place, workers=arguments.workers)
    assert all(read_json(place / "summary.json")["all"]["cases"] == arguments.cases for place in scores)
    started = time.perf_counter()
    report = write_report(scores, folder / "report.html", workers=arguments.workers)
    seconds = time.perf_counter() - started
    largest = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{report.cases} cases, {report.pictured} with pictures, {arguments.models} models: {seconds:.1f} s, "
        f"{report.path.stat().st_size / 1e6:.1f} MB, largest process {largest / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
