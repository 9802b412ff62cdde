"""How near `utseg_measure` comes to hearts that are known: made hearts with masks without error, whose volumes are known by formula.

python benchmarks/measures.py [ACDC]     a table a question; a minute on one core. ACDC: the native dataset, whose masks are of experts
"""

import sys
from pathlib import Path

import numpy as np

from utseg.cardiac.cine import find_phases, peak_rates, volume_curves
from utseg.phantom.anatomy import contraction
from utseg.phantom.cohort import design
from utseg.phantom.examination import Examination, PhantomSettings
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_label

LABELS = {"LV": 1, "MYO": 2, "RV": 3}
SUBJECTS, MATRIX = 24, 96


def curves_of(drawn, contracted):
    """ml of each structure at each contraction."""
    grid = drawn.scene.grid
    masks = np.stack([drawn.scene.label(each) for each in contracted])
    return volume_curves(masks, (grid.slice_spacing_mm, grid.pixel_mm, grid.pixel_mm), LABELS)


def ejected(curve, ed, es):
    """EF in %."""
    return 100 * (1 - curve[es] / curve[ed])


def show_phases():
    """ED and ES, rates, and the EF of cines one of whose frames is spoilt."""
    print("frames | ED right | ES right | furthest | rates/true | spoilt frame: EF within 3 points")
    for frames in (10, 14, 20, 30):
        right, off, rates, spoilt = [], [], [], []
        for subject in design(SUBJECTS):
            drawn = Examination(PhantomSettings(SUBJECTS, frames, MATRIX, seed=frames), subject)
            heart = drawn.scene.heart
            curve = curves_of(drawn, [contraction(phase, heart.end_systole) for phase in drawn.phases])["LV"]
            found = find_phases(curve)
            away = [
                abs((a - b + frames // 2) % frames - frames // 2)
                for a, b in ((found.ed, drawn.ed), (found.es, drawn.es))
            ]
            right.append([each == 0 for each in away])
            off.append(max(away))
            fine = np.linspace(0, 1, 4001)
            true = heart.lv_edv_ml * (
                1 - heart.lv_ejection_fraction * np.array([contraction(x, heart.end_systole) for x in fine])
            )
            slope = np.gradient(true, fine * drawn.heart_beat_s)
            peaks = peak_rates(curve, 1000 * drawn.heart_beat_s / frames)
            rates.append([peaks["peak_ejection"] / -slope.min(), peaks["peak_filling"] / slope.max()])
            for frame in range(frames):
                for factor in (0.05, 0.3, 1.7):
                    other = curve.copy()
                    other[frame] *= factor
                    again = find_phases(other)
                    spoilt.append(
                        abs(ejected(other, again.ed, again.es) - ejected(curve, drawn.ed, drawn.es)) < 3
                    )
        (ed, es), (down, up) = np.mean(right, axis=0), np.mean(rates, axis=0)
        print(
            f"{frames:6} | {ed:8.0%} | {es:8.0%} | {max(off):8} | {down:.2f} {up:.2f}  | {np.mean(spoilt):.0%}"
        )


def show_slices():
    """EF against the volumes that hearts are made of, by the distance of slices."""
    print("slices       | mm apart | LV EF: bias, mean and largest difference | RV EF | EDV / true")
    for slices in (None, 20, 40):
        rows = []
        for subject in design(12):
            drawn = Examination(PhantomSettings(12, 10, 192, slices), subject)
            heart, curves = drawn.scene.heart, curves_of(drawn, (0.0, 1.0))
            rows.append(
                (
                    drawn.scene.grid.slice_spacing_mm,
                    ejected(curves["LV"], 0, 1) - 100 * heart.lv_ejection_fraction,
                    ejected(curves["RV"], 0, 1) - 100 * heart.rv_ejection_fraction,
                    curves["LV"][0] / heart.lv_edv_ml,
                )
            )
        apart, left, right, volume = np.array(rows).T
        sides = " | ".join(f"{d.mean():+.2f} {abs(d).mean():.2f} {abs(d).max():.2f}" for d in (left, right))
        print(
            f"{slices or 'as needed':>12} | {apart.min():.1f}-{apart.max():.1f} | {sides} | {volume.min():.3f}-{volume.max():.3f}"
        )


def other_sums(masks, spacing, labels):
    """EF of the LV from the masks of ED and ES by discs and by three other sums, and the muscle at ES over ED.

    Straight lines between the middles of slices; half of the basal slice; a muscle of constant volume, which says how much of the basal
    slice of ES is missing, up to one slice.
    """
    ml = np.prod(spacing) / 1000
    cavities = [np.count_nonzero(mask == labels["LV"], axis=(1, 2)) * ml for mask in masks]
    muscles = [np.count_nonzero(mask == labels["MYO"], axis=(1, 2)) * ml for mask in masks]
    hearts = [np.count_nonzero(mask, axis=(1, 2)) for mask in masks]
    volumes = []
    for cavity, heart in zip(cavities, hearts, strict=True):
        there = np.flatnonzero(cavity)
        third = max(len(there) // 3, 1)
        basal_first = heart[there[:third]].sum() >= heart[there[-third:]].sum()
        basal = there if basal_first else there[::-1]
        own = cavity[basal]
        volumes.append((own.sum(), own.sum() - (own[0] + own[-1]) / 2, own.sum() - own[0] / 2, own[:2].max()))
    lacking = (muscles[0].sum() - muscles[1].sum()) / muscles[1][basal[:3]].max()
    ed, es = np.array(volumes)
    constant = es[0] + np.clip(lacking, -1, 1) * es[3]
    fractions = 100 * (1 - np.array([*es[:3], constant]) / np.array([*ed[:3], ed[0]]))
    return (*fractions, muscles[1].sum() / muscles[0].sum())


def show_sums(acdc=None):
    """EF of made hearts by other sums than discs; how far these would move EF of masks that experts drew."""
    rows = []
    for seed in (0, 1):
        for subject in design(12):
            drawn = Examination(PhantomSettings(12, 10, 192, None, seed), subject)
            grid, true = drawn.scene.grid, 100 * drawn.scene.heart.lv_ejection_fraction
            masks = [drawn.scene.label(contracted) for contracted in (0.0, 1.0)]
            *found, muscle = other_sums(masks, (grid.slice_spacing_mm, grid.pixel_mm, grid.pixel_mm), LABELS)
            rows.append([*(each - true for each in found), muscle])
    _show_sums("made hearts: EF − true", np.array(rows))
    if acdc is not None:
        dataset, rows, pairs = open_dataset(acdc), [], {}
        for case in dataset.training_cases():
            pairs.setdefault(case.subject, {})[case.phase] = read_label(
                case.label, dataset.labels, case.frame
            )
        for pair in pairs.values():
            (ed, geometry), (es, _) = pair["ED"], pair["ES"]
            discs, *found, muscle = other_sums((ed, es), geometry.spacing_zyx_mm, dataset.labels)
            rows.append([0.0, *(each - discs for each in found), muscle])
        _show_sums("experts' masks: EF − EF by discs", np.array(rows))


def _show_sums(head, rows):
    print(f"{head:33}| bias, mean and largest; muscle ES/ED {rows[:, 4].min():.2f}-{rows[:, 4].max():.2f}")
    for name, off in zip(
        ("discs", "straight lines", "half basal slice", "constant muscle"), rows.T, strict=False
    ):
        print(f"{name:33}| {off.mean():+.2f} {abs(off).mean():.2f} {abs(off).max():.2f}")


if __name__ == "__main__":
    show_phases()
    show_slices()
    show_sums(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
