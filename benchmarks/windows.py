"""Dice, HD95 and time of prediction by where its windows lie, on the cases that a trained model held back.

    python benchmarks/windows.py RUN_FOLDER RAW_FOLDER [--cases 11] [--precision float32 bfloat16]
    python benchmarks/windows.py RUN_FOLDER RAW_FOLDER --all        # of another dataset, whose labels have the same names

Windows everywhere in steps of .5, .75 and 1, one window as large as the slice, and the one window that a first look finds (`focus`), all
on the same volumes in turns, on one thread, without other views. Scores are native: means over subjects, and paired differences from the
first way and precision asked for, with bootstrap intervals over subjects; a label that neither mask has does not count. Seconds are CPU
seconds of the network, a slice.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from utseg.case import Case
from utseg.evaluate import evaluate_pair
from utseg.inference.grid import GROWN_MULTIPLE
from utseg.inference.windows import default_batch_size, predict_volumes
from utseg.label_map import has_regions, structures
from utseg.labels import match_labels, to_values
from utseg.predict.accelerate import folded
from utseg.predict.model import load_model
from utseg.predict.stages import Volume, prepare
from utseg.preprocess.case import restore_labels
from utseg.preprocess.neighbours import with_neighbours
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case

CPU = torch.device("cpu")
WAYS = {
    "steps of .5": {"step_size": 0.5},
    "steps of .75": {"step_size": 0.75},
    "steps of 1": {"step_size": 1.0},
    "whole slice": {"step_size": 1.0, "whole": True},
    "focus": {"step_size": 0.5, "focus": True},
}
RESAMPLES = 5000


def spread(cases: list[Case], most: int | None) -> list[Case]:
    """So many of the cases, of as many subjects as there are, ED and ES in turns."""
    if most is None or most >= len(cases):
        return cases
    subjects: dict[str, list[Case]] = {}
    for case in cases:
        subjects.setdefault(case.subject, []).append(case)
    first = [group[number % len(group)] for number, group in enumerate(subjects.values())]
    return first[:most]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--precision", nargs="+", default=["float32"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.run, CPU)
    plan, network = model.record.plan, folded(model.network)
    dataset = open_dataset(arguments.raw, arguments.raw.name)
    held_back = [case for case in dataset.cases if case.label is not None]
    if not arguments.all:
        held_back = [case for case in held_back if case.case_id in model.record.validation_cases]
    cases = spread(held_back, arguments.cases)
    labels = structures(dataset.labels)
    ways = [(way, precision) for precision in arguments.precision for way in arguments.ways]
    scores = {way: {} for way in ways}  # by subject: Dice and HD95 of each case
    seconds, slices = dict.fromkeys(ways, 0.0), 0
    for case in cases:
        source = prepare(Volume(case, case.frame, 1, (plan.preprocessing,)))
        (image_CZYX,), (properties,) = source.images, source.properties
        image_CZYX = with_neighbours(image_CZYX, plan, source.geometry.spacing_zyx_mm[0])
        reference_ZYX = read_case(case, dataset.labels).label_ZYX
        slices += image_CZYX.shape[1]
        for way, precision in ways:
            options = dict(WAYS[way])
            patch = plan.patch_size
            if options.pop("whole", False):
                patch = tuple(-(-side // GROWN_MULTIPLE) * GROWN_MULTIPLE for side in image_CZYX.shape[2:])
            began = time.process_time()
            (predicted,) = predict_volumes(
                [network],
                [image_CZYX],
                patch_size=patch,
                batch_size=default_batch_size(patch, CPU),
                num_classes=plan.num_classes,
                regions=has_regions(plan.preprocessing.labels),
                device=CPU,
                precision=precision,
                **options,
            )
            seconds[way, precision] += time.process_time() - began
            ours = plan.preprocessing.labels
            mask_ZYX = to_values(restore_labels(predicted.probabilities_KZYX, properties, ours), ours)
            theirs_ZYX = match_labels(labels, ours, we="the dataset", they="the model").translate(mask_ZYX)
            found = evaluate_pair(theirs_ZYX, reference_ZYX, source.geometry.spacing_zyx_mm, labels)
            pair = [[found[name][key] for name in labels] for key in ("dice", "hd95_mm")]
            scores[way, precision].setdefault(case.subject, []).append(pair)
        means = {way: mean_of_known([pair[0] for pair in of[case.subject]]) for way, of in scores.items()}
        print(case.case_id, *(f"{mean:.4f}" for mean in means.values()), flush=True)
    report(scores, seconds, slices, list(labels))


def mean_of_known(values, axis: int | None = None):
    """The mean of what is no NaN; NaN where all is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(known, values, 0).sum(axis) / np.where(count, count, np.nan)


def report(scores, seconds, slices: int, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    subjects = list(scores[next(iter(scores))])
    means = {
        way: np.array([mean_of_known(of[s], axis=0) for s in subjects]) for way, of in scores.items()
    }  # (S, 2, L)
    first_S = mean_of_known(next(iter(means.values()))[:, 0], 1)
    draws = rng.integers(0, len(subjects), (RESAMPLES, len(subjects)))
    print(f"{len(subjects)} subjects, {slices} slices; labels {', '.join(names)}")
    for (way, precision), mean_SKL in means.items():
        dice_S = mean_of_known(mean_SKL[:, 0], 1)
        difference_S = dice_S - first_S
        low, high = np.nanpercentile(mean_of_known(difference_S[draws], 1), (2.5, 97.5))
        per_label = mean_of_known(mean_SKL, 0)
        print(
            f"{way}, {precision}: Dice {mean_of_known(dice_S):.4f} ({mean_of_known(difference_S):+.4f}, {low:+.4f} … {high:+.4f}), "
            f"of labels {np.round(per_label[0], 3)}, HD95 mm {np.round(per_label[1], 1)}, "
            f"mean {mean_of_known(mean_SKL[:, 1]):.1f}; {seconds[way, precision] / slices:.3f} s a slice"
        )


if __name__ == "__main__":
    main()
