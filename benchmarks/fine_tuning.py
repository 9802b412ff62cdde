"""What weights of another dataset are worth: 5, 10, 20 patients of M&Ms' vendor B, from scratch and from a training on ACDC.

    python benchmarks/fine_tuning.py OUT --source raw/ACDC --target raw/MnM_AB [--patients 5 10 20] [--iterations 250 500 1000 2000]

In OUT, a home: the source is planned and trained on all of its subjects for `--source-iterations`. Of the target's subjects with
that vendor, so many train as the largest number says, fewer are of these, and all others are held back and scored at the end of each run.
Three ways: `scratch`, by the target's own plan; `like`, by the source's plan with random weights; `weights`, by that plan from the source's
weights. Plans see how the held-back scans lie, no training does. Prints Dice by patients and iterations, writes OUT/fine_tuning.csv, a
row a run, and goes on where it stopped. The target in nnU-Net's layout, with `vendor` in cases.csv; iterations in multiples of 50.
"""

import argparse
import csv
import json
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from utseg.api import plan_and_preprocess, train
from utseg.home import Home
from utseg.planning.like import LIKE
from utseg.preprocess.splits import Split, write_splits
from utseg.rawdata import open_dataset
from utseg.training.record import SUMMARY_FILE, VALIDATION_FOLDER, is_finished

SOURCE, TARGET = "Source", "Target"
COLUMNS = ("way", "patients", "iterations", "seed", "held_back", "dice", "labels")
ITERATIONS_PER_EPOCH = 50


def link(source: Path, target: Path, raw: Path, vendor: str) -> list[str]:
    """Links the source, and the labelled cases of one vendor of the target; the subjects of these, in a drawn order."""
    cases = [case for case in open_dataset(target).training_cases() if case.groups["vendor"] == vendor]
    links = {raw / SOURCE: source}
    for case in cases:
        for file in (*case.images, case.label):
            links[raw / TARGET / file.relative_to(target)] = file
    for place, original in links.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(original.resolve())
    described = json.loads((target / "dataset.json").read_text()) | {"numTraining": len(cases)}
    (raw / TARGET / "dataset.json").write_text(json.dumps(described))
    with (raw / TARGET / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "subject", "phase"])
        writer.writerows([case.case_id, case.subject, case.phase] for case in cases)
    subjects = sorted({case.subject for case in cases})
    random.Random(0).shuffle(subjects)
    return subjects


def splits_of(subjects: Sequence[str], patients: Sequence[int]) -> list[Split]:
    """A fold for each number of patients, all with the same subjects held back."""
    held_back = sorted(subjects[max(patients) :])
    if not held_back:
        raise SystemExit(
            f"{len(subjects)} subjects are there, and {max(patients)} to train on leave none to score"
        )
    return [{"training": sorted(subjects[:number]), "validation": held_back} for number in patients]


def trained(
    dataset: str, selection: str, arguments: argparse.Namespace, *, iterations: int, **options: Any
) -> Path:
    """A finished run of so many iterations."""
    settings = {"iterations_per_epoch": min(iterations, ITERATIONS_PER_EPOCH)}
    common = {"home": arguments.out, "model": arguments.network, "device": arguments.device}
    length = {"epochs": max(1, iterations // ITERATIONS_PER_EPOCH), "settings": settings}
    (run,) = train("2d", selection, dataset=dataset, overwrite=True, **common, **length, **options)
    return run


def prepare(arguments: argparse.Namespace) -> tuple[Path, list[Split]]:
    """The source's run, and the folds of the target, which is planned in both ways."""
    home, planner, network = arguments.out, arguments.planner, arguments.network
    subjects = link(arguments.source, arguments.target, home / "raw", arguments.vendor)
    splits = splits_of(subjects, arguments.patients)
    planned = {"planner": planner, "network_name": network, "home": home, "device": arguments.device}
    base = home / "results" / SOURCE / f"{planner}_2d" / network / "all"
    if not is_finished(base):
        plan_and_preprocess(SOURCE, **planned)
        trained(SOURCE, "all", arguments, planner=planner, iterations=arguments.source_iterations)
    plan_and_preprocess(TARGET, **planned)
    plan_and_preprocess(TARGET, like=base, home=home, device=arguments.device)
    write_splits(splits, Home.locate(home).preprocessed / TARGET)
    return base, splits


def measured(run: Path) -> dict[str, object]:
    """Dice of the subjects that a run holds back."""
    scores = json.loads((run / VALIDATION_FOLDER / SUMMARY_FILE).read_text())["all"]
    labels = {name: entry["dice"]["mean"] for name, entry in scores["labels"].items()}
    return {"held_back": scores["subjects"], "dice": scores["mean_dice"], "labels": json.dumps(labels)}


def show(rows: Sequence[Mapping[str, object]], iterations: Sequence[int]) -> None:
    """Mean Dice over the seeds: a line for each way and number of patients, a column for each length."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        line = found.setdefault((str(row["way"]), str(row["patients"])), {})
        line.setdefault(int(str(row["iterations"])), []).append(float(str(row["dice"])))
    print(f"{'iterations':>22}", *(f"{length:>6}" for length in iterations))
    for (way, patients), line in found.items():
        means = (f"{fmean(line[length]):6.3f}" if length in line else "     –" for length in iterations)
        print(f"{way:>8}, {patients:>3} patients", *means)


def main() -> None:
    """Train what is not there yet, and show all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--vendor", default="B")
    parser.add_argument("--patients", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--iterations", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--source-iterations", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--network", default="UTNet")
    parser.add_argument("--planner", default="cpu")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    base, splits = prepare(arguments)
    table = arguments.out / "fine_tuning.csv"
    rows: list[dict[str, object]] = list(csv.DictReader(table.open())) if table.is_file() else []
    done = {tuple(row[key] for key in COLUMNS[:4]) for row in rows}
    ways = {
        "scratch": {"planner": arguments.planner},
        "like": {"planner": LIKE},
        "weights": {"planner": LIKE, "weights": base},
    }
    folds = [f"fold{number}" for number in range(len(splits))]
    for way, (fold, patients), length, seed in product(
        ways, zip(folds, arguments.patients, strict=True), arguments.iterations, arguments.seeds
    ):
        key = (way, str(patients), str(length), str(seed))
        if key not in done:
            run = trained(TARGET, fold, arguments, iterations=length, seed=seed, **ways[way])
            rows.append(dict(zip(COLUMNS, key, strict=False)) | measured(run))
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    show(rows, arguments.iterations)


if __name__ == "__main__":
    main()
