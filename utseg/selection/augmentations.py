"""Whether test-time augmentation pays for the chosen models: measured on out-of-fold subjects, by the folds that held them back.

Tried are the views that training allows (`views.allowed`), against none at all, on some subjects only, drawn with a fixed seed: each costs
as many passes through the networks as it has views. Masks are predicted as any others are, at native resolution, and stay in
`selection/tta/A+B/VIEWS/FOLD/` with their `prediction.json`; they are not made again as long as images, weights and masks are those on
record. What validation or pairs have already predicted in the same way is taken from there. Scored is what would be written: the masks
after the chosen postprocessing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utseg.case import Case
from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS
from utseg.evaluate.subjects import bootstrap_interval, by_subject, mean_defined
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, NO_AUGMENTATION, TestTimeAugmentation, allowed
from utseg.postprocess import Postprocessing, postprocess
from utseg.predict.record import read_record
from utseg.predict.stages import MASK_SUFFIX
from utseg.progress import progress
from utseg.selection.choose import Candidate, Names, choose, too_few
from utseg.selection.gain import BeforeAfter, Gain, gain
from utseg.selection.masks import Inputs, is_made, labels_in, quietly
from utseg.selection.models import FoldRun, TrainedModel
from utseg.selection.scores import Floats, Scoring, dice_by_label, foreground, read_both
from utseg.settings import Settings

if TYPE_CHECKING:
    import torch

FOLDER = "tta"
SEED = 0
DEFAULT_SUBJECTS = 20
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
    interval95: tuple[float, float] | None
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
    rule: str
    seed: int
    subjects: tuple[str, ...]
    cases: int
    mean_dice: float | None
    interval95: tuple[float, float] | None
    trials: tuple[AugmentationTrial, ...]


@dataclass(frozen=True)
class Chosen:
    """The models, cases by the fold that held them back, and their masks by case id, mirrored as in training; what is done to masks."""

    models: tuple[TrainedModel, ...]
    cases: Mapping[str, Sequence[Case]]
    masks: Mapping[str, Path]
    postprocessing: Postprocessing
    labels: Mapping[str, int]
    reference_labels: Mapping[str, int]

    def runs(self, fold: str) -> tuple[FoldRun, ...]:
        """The runs of a fold."""
        return tuple(model.folds[fold] for model in self.models)

    @property
    def all_runs(self) -> tuple[FoldRun, ...]:
        """The runs of all folds that held somebody back."""
        return tuple(run for fold in self.cases for run in self.runs(fold))


def measure_augmentation(
    chosen: Chosen,
    subjects: Sequence[str],
    most_subjects: int,
    selection: Path,
    inputs: Inputs,
    *,
    device: "torch.device",
    workers: int | None = None,
) -> MeasuredAugmentation | None:
    """What test-time augmentation gains on at most so many of the subjects, which all have a score; none where they are too few to tell.

    None where there is nothing to measure: training allows no view, no subjects are wanted, or no score is defined.
    """
    trained = [run.record.plan.augmentation for run in chosen.all_runs]
    wanted = allowed(trained)
    drawn = draw_subjects(subjects, most_subjects)
    if not wanted or not drawn:
        return None
    if len(drawn) < LEAST_SUBJECTS or 2 * len(wanted) / 2 ** len(drawn) >= ALPHA:
        return _too_few(drawn, len(wanted))
    of_drawn = {fold: [case for case in some if case.subject in drawn] for fold, some in chosen.cases.items()}
    of_drawn = {fold: some for fold, some in of_drawn.items() if some}
    _predict_missing(chosen, (NO_AUGMENTATION, *wanted), of_drawn, selection, inputs, device, workers)
    cases = [case for some in of_drawn.values() for case in some]
    plain_CL, *tried_CL = (_dice(chosen, tta, of_drawn, selection) for tta in (NO_AUGMENTATION, *wanted))
    subjects_C = np.array([case.subject for case in cases])
    names = list(foreground(chosen.labels))
    trials = tuple(
        _trial(tta, chosen, gain(plain_CL, dice_CL, subjects_C, names, len(wanted)))
        for tta, dice_CL in zip(wanted, tried_CL, strict=True)
    )
    values_TS = np.stack(
        [by_subject(mean_defined(dice_CL, 1), subjects_C)[1] for dice_CL in (plain_CL, *tried_CL)]
    )
    names_S = np.unique(subjects_C)
    defined_S = ~np.isnan(values_TS).any(0)
    if not defined_S.any():
        return None
    best, why = _choose(trials, values_TS[1:, defined_S], names_S[defined_S])
    plain_S = values_TS[0, defined_S]
    interval = bootstrap_interval(plain_S, names_S[defined_S])
    return MeasuredAugmentation(
        chosen=best,
        why=why,
        rule=RULE_IN_WORDS,
        seed=SEED,
        subjects=drawn,
        cases=len(cases),
        mean_dice=float(plain_S.mean()),
        interval95=None if interval is None else (interval[0], interval[1]),
        trials=trials,
    )


def _too_few(drawn: tuple[str, ...], trials: int) -> MeasuredAugmentation:
    """None is the cheapest of what cannot be told apart."""
    few = too_few(len(drawn), "whether it pays") or (
        f"{len(drawn)} subjects are too few to tell which of {trials} pays"
    )
    return MeasuredAugmentation(
        chosen=NO_AUGMENTATION,
        why=f"{few}, so there is none",
        rule=RULE_IN_WORDS,
        seed=SEED,
        subjects=drawn,
        cases=0,
        mean_dice=None,
        interval95=None,
        trials=(),
    )


def draw_subjects(subjects: Sequence[str], most: int) -> tuple[str, ...]:
    """At most so many of the subjects, always the same ones, sorted."""
    ordered = sorted(set(subjects))
    drawn = np.random.default_rng(SEED).permutation(len(ordered))[:most]
    return tuple(ordered[number] for number in sorted(drawn))


def _is_as_validated(runs: Sequence[FoldRun], tta: TestTimeAugmentation) -> bool:
    """Whether the runs' validation, and pairs, were predicted just so."""
    trained = (run.record.plan.augmentation for run in runs)
    return all(tta.within(each) == AS_MIRRORED_IN_TRAINING.within(each) for each in trained)


def _folder(chosen: Chosen, tta: TestTimeAugmentation, fold: str, selection: Path) -> Path:
    models = "+".join(model.name.replace("/", "-") for model in chosen.models)
    views = [f"mirror_{''.join(tta.mirror_axes)}"] if tta.mirror_axes else []
    views += (
        [f"turn_{'_'.join(f'{angle:g}' for angle in tta.rotation_degrees)}"] if tta.rotation_degrees else []
    )
    return selection / FOLDER / models / ("+".join(views) or "none") / fold


def _masks(
    chosen: Chosen, tta: TestTimeAugmentation, fold: str, cases: Sequence[Case], selection: Path
) -> list[Path]:
    if _is_as_validated(chosen.all_runs, tta):
        return [chosen.masks[case.case_id] for case in cases]
    folder = _folder(chosen, tta, fold, selection)
    return [folder / f"{case.case_id}{MASK_SUFFIX}" for case in cases]


def _predict_missing(
    chosen: Chosen,
    wanted: Sequence[TestTimeAugmentation],
    cases: Mapping[str, Sequence[Case]],
    selection: Path,
    inputs: Inputs,
    device: "torch.device",
    workers: int | None,
) -> None:
    """Makes the masks that are not there yet."""
    todo = {
        fold: [
            (tta, missing)
            for tta in wanted
            if not _is_as_validated(chosen.all_runs, tta)
            and (missing := _missing(chosen, tta, fold, some, selection, inputs))
        ]
        for fold, some in cases.items()
    }
    with progress(
        "out-of-fold masks with test-time augmentation, parts", sum(map(len, todo.values()))
    ) as advance:
        for fold, parts in todo.items():
            if not parts:
                continue
            from utseg.predict.model import load_model
            from utseg.predict.pipeline import predict_cases

            models = [load_model(run.folder, device) for run in chosen.runs(fold)]
            for tta, missing in parts:
                with quietly():
                    predict_cases(
                        missing, models, _folder(chosen, tta, fold, selection), tta=tta, workers=workers
                    )
                advance()


def _missing(
    chosen: Chosen,
    tta: TestTimeAugmentation,
    fold: str,
    cases: Sequence[Case],
    selection: Path,
    inputs: Inputs,
) -> list[Case]:
    folder = _folder(chosen, tta, fold, selection)
    record = read_record(folder)
    return [
        case
        for case in cases
        if not is_made(folder, record, chosen.runs(fold), case, inputs, MASK_SUFFIX, tta)
    ]


def _dice(
    chosen: Chosen, tta: TestTimeAugmentation, cases: Mapping[str, Sequence[Case]], selection: Path
) -> Floats:
    """(C, L): of the masks after postprocessing, in the order of the cases."""

    def found() -> Iterator[Floats]:
        for fold, some in cases.items():
            paths = _masks(chosen, tta, fold, some, selection)
            numbering = {folder: labels_in(folder) for folder in {path.parent for path in paths}}
            for case, path in zip(some, paths, strict=True):
                own = numbering[path.parent]
                scoring = Scoring(case, path, chosen.labels, own, chosen.reference_labels)
                mask_ZYX, reference_ZYX = read_both(scoring)
                mask_ZYX = postprocess(mask_ZYX, chosen.postprocessing, chosen.labels)
                yield dice_by_label(mask_ZYX, reference_ZYX, chosen.labels)

    return np.stack(list(found()))


def _trial(tta: TestTimeAugmentation, chosen: Chosen, found: Gain) -> AugmentationTrial:
    pays, why = _verdict(found)
    passes = [tta.within(run.record.plan.augmentation).forwards for run in chosen.all_runs]
    return AugmentationTrial(
        augmentation=tta,
        words=tta.in_words(),
        passes=sum(passes) / len(passes),
        subjects_better=found.subjects_better,
        subjects_worse=found.subjects_worse,
        gain=found.mean,
        interval95=found.interval95,
        p=found.p,
        labels=found.labels,
        pays=pays,
        why=why,
    )


def _verdict(found: Gain) -> tuple[bool, str]:
    few = too_few(found.subjects, "whether it pays")
    if few or found.interval95 is None or found.p is None:
        return False, few or "no score is defined"
    if found.interval95[1] < 0:
        return False, "it costs Dice"
    if not found.interval95[0] > 0:
        return False, "the gain's interval does not lie above 0"
    if found.p >= ALPHA:
        return False, f"p {found.p:.3g} after correction is not below {ALPHA:g}"
    if found.mean < LEAST_GAIN:
        return False, f"a gain below {LEAST_GAIN:g} is not worth its passes"
    return True, "gains beyond noise"


def _choose(
    trials: Sequence[AugmentationTrial],
    values_TS: Floats,
    subjects_S: Names,
) -> tuple[TestTimeAugmentation, str]:
    """The augmentation to predict with, and why."""
    paying = [
        Candidate(trial.words, (), 1, trial.passes, values_S)
        for trial, values_S in zip(trials, values_TS, strict=True)
        if trial.pays
    ]
    if not paying:
        return NO_AUGMENTATION, "none of those tried pays, so there is none"
    name = choose(paying, subjects_S).chosen.candidate.name
    taken = next(trial for trial in trials if trial.words == name)
    why = (
        f"{taken.words} gains {taken.gain:.4f} over no augmentation, for {taken.passes:g} passes instead of 1"
    )
    return taken.augmentation, why if len(paying) == 1 else f"{why}; {len(paying)} of those tried pay"
