"""Whether test-time augmentation pays for the chosen models: measured on out-of-fold subjects, by the folds that held them back.

The views that training allows (`views.allowed`) are tried against none at all, on some subjects only, drawn with a fixed seed: each costs
as many passes through the networks as it has views. Masks stay in `selection/tta/A+B/VIEWS/FOLD/` with their `prediction.json`, and are
not made again as long as images, weights and masks are those on record. Scored are the masks after the chosen postprocessing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utseg.case import Case
from utseg.device import Precision
from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS
from utseg.evaluate.subjects import Floats, Interval, bootstrap_interval, subject_scores
from utseg.inference.views import (
    AS_MIRRORED_IN_TRAINING,
    NO_AUGMENTATION,
    TestTimeAugmentation,
    allowed,
)
from utseg.label_map import structures
from utseg.postprocess import Postprocessing, postprocess
from utseg.progress import progress
from utseg.selection.choose import Candidate, Names, choose
from utseg.selection.masks import CandidateMasks, Selection, load_runs, mask_file, missing, quietly
from utseg.selection.models import FoldRun
from utseg.selection.scores import (
    BeforeAfter,
    Gain,
    dice_by_label,
    mask_pairs,
    measure_gain,
    read_cut,
    too_few,
)
from utseg.settings import Settings

FOLDER = "tta"
SEED = 0
LEAST_GAIN = 0.001
"""Each view costs a pass through every network; what does not show in the third digit of a Dice is not worth that."""
RULE_IN_WORDS = (
    "pays where the mean Dice over subjects rises beyond noise against no augmentation: the gain's bootstrap 95 % interval over subjects "
    f"lies above 0, the paired permutation test over subjects, times the number of trials, gives p < {ALPHA:g}, and the gain is at least "
    f"{LEAST_GAIN:g}; of those that pay and are tied the one with the fewest passes is taken"
)


class AugmentationTrial(Settings):
    """One augmentation that was tried. `passes`: how often a network looks at a window, in the mean of the members.

    `gain`: the change of the subjects' mean Dice against no augmentation; `p` is corrected; `labels`: each mean before and after.
    """

    augmentation: TestTimeAugmentation
    words: str
    passes: float
    subjects_better: int
    subjects_worse: int
    gain: float
    interval95: Interval | None
    p: float | None
    labels: dict[str, BeforeAfter]
    pays: bool
    why: str


class MeasuredAugmentation(Settings):
    """What predicts and what it was chosen from. `subjects` were drawn with `seed`.

    `mean_dice`: theirs without augmentation, after postprocessing. None, and no trials, where they were too few to measure anything.
    """

    chosen: TestTimeAugmentation
    why: str
    rule: str = RULE_IN_WORDS
    seed: int = SEED
    subjects: tuple[str, ...]
    cases: int = 0
    mean_dice: float | None = None
    interval95: Interval | None = None
    trials: tuple[AugmentationTrial, ...] = ()


@dataclass(frozen=True)
class AugmentedMasks:
    """The masks of what was chosen with these or those views, and what is done to them after."""

    work: Selection
    chosen: CandidateMasks
    postprocessing: Postprocessing

    def runs(self, fold: str) -> tuple[FoldRun, ...]:
        """The runs of a fold."""
        return tuple(model.folds[fold] for model in self.chosen.models)

    @cached_property
    def all_runs(self) -> tuple[FoldRun, ...]:
        """The runs of all folds that held somebody back."""
        return tuple(run for fold in self.work.comparable.cases for run in self.runs(fold))

    @cached_property
    def precision(self) -> Precision:
        """What the runs' validations computed in; float32 where they differ, as models predict in one together."""
        first, *others = dict.fromkeys(run.precision for run in self.all_runs)
        return "float32" if others else first

    def is_as_validated(self, tta: TestTimeAugmentation) -> bool:
        """Whether the runs' validation, and pairs, were predicted just so."""
        trained = (run.record.plan.augmentation for run in self.all_runs)
        return all(tta.within(each) == AS_MIRRORED_IN_TRAINING.within(each) for each in trained)

    def folder(self, tta: TestTimeAugmentation, fold: str) -> Path:
        """Where the masks of a fold with these views are."""
        models = "+".join(model.name.replace("/", "-") for model in self.chosen.models)
        turns = "_".join(f"{angle:g}" for angle in tta.rotation_degrees)
        views = [f"mirror_{''.join(tta.mirror_axes)}"] if tta.mirror_axes else []
        views += [f"turn_{turns}"] if turns else []
        return self.work.folder / FOLDER / models / ("+".join(views) or "none") / fold

    def dice(self, tta: TestTimeAugmentation, cases: Mapping[str, Sequence[Case]]) -> Floats:
        """(C, L): of the masks with these views after postprocessing, in the order of the cases."""
        labels, rows = self.chosen.labels, []
        validated = {
            case.case_id: mask for case, mask in zip(self.work.cases, self.chosen.masks, strict=True)
        }
        for fold, some in cases.items():
            if self.is_as_validated(tta):
                masks = [validated[case.case_id] for case in some]
            else:
                masks = [mask_file(self.folder(tta, fold), case) for case in some]
            for pair in mask_pairs(some, masks, labels, self.work.comparable.labels):
                volume = read_cut(pair)
                mask_ZYX = postprocess(volume.mask_ZYX, self.postprocessing, labels)
                rows.append(dice_by_label(mask_ZYX, volume, labels))
        return np.stack(rows)


def measure_augmentation(
    masks: AugmentedMasks, subjects: Collection[str], most_subjects: int
) -> MeasuredAugmentation | None:
    """What test-time augmentation gains on at most so many of the subjects, which all have a score; none where they are too few to tell.

    None where there is nothing to measure: training allows no view, no subjects are wanted, or no score is defined.
    """
    wanted = allowed([run.record.plan.augmentation for run in masks.all_runs])
    drawn = draw_subjects(subjects, most_subjects)
    if not wanted or not drawn:
        return None
    few = too_few(len(drawn), "whether it pays")
    if not few and 2 * len(wanted) / 2 ** len(drawn) >= ALPHA:
        few = f"{len(drawn)} subjects are too few to tell which of {len(wanted)} pays"
    if few:
        return MeasuredAugmentation(chosen=NO_AUGMENTATION, why=f"{few}, so there is none", subjects=drawn)
    of_drawn = {
        fold: [case for case in some if case.subject in drawn]
        for fold, some in masks.work.comparable.cases.items()
    }
    of_drawn = {fold: some for fold, some in of_drawn.items() if some}
    _predict_missing(masks, (NO_AUGMENTATION, *wanted), of_drawn)
    subjects_C = np.array([case.subject for some in of_drawn.values() for case in some])
    plain_CL, *tried_CL = (masks.dice(tta, of_drawn) for tta in (NO_AUGMENTATION, *wanted))
    names = list(structures(masks.chosen.labels))
    trials = tuple(
        _trial(tta, masks, measure_gain(plain_CL, dice_CL, subjects_C, names, len(wanted)))
        for tta, dice_CL in zip(wanted, tried_CL, strict=True)
    )
    values_TS = np.stack([subject_scores(dice_CL, subjects_C) for dice_CL in (plain_CL, *tried_CL)])
    defined_S = ~np.isnan(values_TS).any(0)
    if not defined_S.any():
        return None
    values_TS, names_S = values_TS[:, defined_S], np.unique(subjects_C)[defined_S]
    best, why = _choose(trials, values_TS[1:], names_S)
    return MeasuredAugmentation(
        chosen=best,
        why=why,
        subjects=drawn,
        cases=len(subjects_C),
        mean_dice=float(values_TS[0].mean()),
        interval95=bootstrap_interval(values_TS[0], names_S),
        trials=trials,
    )


def draw_subjects(subjects: Collection[str], most: int) -> tuple[str, ...]:
    """At most so many of the subjects, always the same ones, sorted."""
    ordered = sorted(set(subjects))
    drawn = np.random.default_rng(SEED).permutation(len(ordered))[:most]
    return tuple(ordered[number] for number in sorted(drawn))


def _predict_missing(
    masks: AugmentedMasks, wanted: Sequence[TestTimeAugmentation], cases: Mapping[str, Sequence[Case]]
) -> None:
    """Makes the masks that are not there yet."""
    todo: dict[str, list[tuple[TestTimeAugmentation, list[Case]]]] = {}
    for fold, some in cases.items():
        for tta in wanted:
            if not masks.is_as_validated(tta) and (
                absent := missing(
                    masks.folder(tta, fold),
                    masks.runs(fold),
                    some,
                    masks.work.inputs,
                    tta=tta,
                    precision=masks.precision,
                )
            ):
                todo.setdefault(fold, []).append((tta, absent))
    parts = sum(map(len, todo.values()))
    with progress("out-of-fold masks with test-time augmentation, parts", parts) as advance:
        for fold, of_fold in todo.items():
            from utseg.predict.pipeline import predict_cases

            models = load_runs(masks.runs(fold), masks.work.device)
            for tta, absent in of_fold:
                with quietly():
                    predict_cases(
                        absent,
                        models,
                        masks.folder(tta, fold),
                        tta=tta,
                        precision=masks.precision,
                        workers=masks.work.request.workers,
                    )
                advance()


def _trial(tta: TestTimeAugmentation, masks: AugmentedMasks, found: Gain) -> AugmentationTrial:
    passes = [tta.within(run.record.plan.augmentation).forwards for run in masks.all_runs]
    doubt = found.doubt("whether it pays")
    if found.subjects >= LEAST_SUBJECTS and found.interval95 and found.interval95[1] < 0:
        doubt = "it costs Dice"
    elif not doubt and found.gain < LEAST_GAIN:
        doubt = f"a gain below {LEAST_GAIN:g} is not worth its passes"
    return AugmentationTrial(
        augmentation=tta,
        words=tta.in_words(),
        passes=sum(passes) / len(passes),
        **found.measured(),
        pays=not doubt,
        why=doubt or "gains beyond noise",
    )


def _choose(
    trials: Sequence[AugmentationTrial], values_TS: Floats, subjects_S: Names
) -> tuple[TestTimeAugmentation, str]:
    """The augmentation to predict with, and why."""
    paying = [
        (Candidate(name=trial.words, gmac=trial.passes, mean_dice=float(values_S.mean())), values_S)
        for trial, values_S in zip(trials, values_TS, strict=True)
        if trial.pays
    ]
    if not paying:
        return NO_AUGMENTATION, "none of those tried pays, so there is none"
    name = choose(paying, subjects_S).chosen.name
    taken = next(trial for trial in trials if trial.words == name)
    why = (
        f"{taken.words} gains {taken.gain:.4f} over no augmentation, for {taken.passes:g} passes instead of 1"
    )
    return taken.augmentation, why if len(paying) == 1 else f"{why}; {len(paying)} of those tried pay"
