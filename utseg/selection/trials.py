"""Which postprocessing helps, tried on out-of-fold masks: one rule after the other, each on top of those that were kept.

The order is nnU-Net's (Isensee et al., Nature Methods 2021): the largest component of everything, then of each label (where that does not
help, without its small islands), then holes of each label. A rule is kept where the subjects' mean Dice rises beyond noise: the bootstrap
95 % interval of the gain over subjects lies above 0, the paired permutation test over subjects gives p < .05 after multiplication with the
number of rules (Bonferroni), and no label's mean falls. Below six subjects none is kept. Nothing is read or written here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS
from utseg.postprocess import Postprocessing, Rule, in_words, postprocess
from utseg.postprocess.settings import FillHoles, KeepLargest, KeepLargestOfLabel, RemoveIslands
from utseg.selection.choose import too_few
from utseg.selection.gain import gain
from utseg.selection.scores import Floats, Labels, dice_by_label, foreground
from utseg.settings import Settings

ISLANDS_BELOW = 0.1
RULE_IN_WORDS = (
    "kept where the mean Dice over subjects rises beyond noise: the gain's bootstrap 95 % interval over subjects lies above 0, the paired "
    f"permutation test over subjects, times the number of rules that may be tried, gives p < {ALPHA:g}, and no label's mean falls; below "
    f"{LEAST_SUBJECTS} subjects none is kept"
)


class Trial(Settings):
    """One rule that was tried. `gain` is the change of the subjects' mean Dice; `p` is corrected; `labels`: each mean before and after."""

    rule: Rule
    words: str
    cases_changed: int
    subjects_better: int
    subjects_worse: int
    gain: float
    interval95: tuple[float, float] | None
    p: float | None
    labels: dict[str, tuple[float | None, float | None]]
    kept: bool
    why: str


@dataclass(frozen=True)
class Volume:
    """An out-of-fold mask and its reference, both (Z, Y, X), and whose they are. May be cut to what is labelled in either."""

    subject: str
    mask_ZYX: Labels
    reference_ZYX: Labels


@dataclass(frozen=True)
class Outcome:
    """The rules that are kept, all that were tried, and the Dice (cases, labels) of the masks after the kept ones."""

    postprocessing: Postprocessing
    trials: tuple[Trial, ...]
    dice_CL: Floats


def choose_postprocessing(volumes: Sequence[Volume], labels: Mapping[str, int]) -> Outcome:
    """Tries all rules, in their order, each on top of those kept. Holds all volumes in memory."""
    names = list(foreground(labels))
    masks = [volume.mask_ZYX for volume in volumes]
    dice_CL = np.stack(
        [
            dice_by_label(mask, volume.reference_ZYX, labels)
            for mask, volume in zip(masks, volumes, strict=True)
        ]
    )
    kept: list[Rule] = []
    trials: list[Trial] = []
    for stage in _stages(names):
        for rule in stage:
            tried, tried_CL = _try(rule, volumes, masks, dice_CL, labels)
            trial = _trial(rule, dice_CL, tried_CL, _changed(masks, tried), volumes, names)
            trials.append(trial)
            if trial.kept:
                kept.append(rule)
                masks, dice_CL = tried, tried_CL
                break
    return Outcome(Postprocessing(rules=tuple(kept)), tuple(trials), dice_CL)


def _stages(names: Sequence[str]) -> list[tuple[Rule, ...]]:
    """Of each stage the first rule that helps is kept. With a single label, everything and that label are the same."""
    stages: list[tuple[Rule, ...]] = [(KeepLargest(),)] if len(names) > 1 else []
    stages += [
        (KeepLargestOfLabel(label=name), RemoveIslands(label=name, share=ISLANDS_BELOW)) for name in names
    ]
    return stages + [(FillHoles(label=name),) for name in names]


def _try(
    rule: Rule, volumes: Sequence[Volume], masks: Sequence[Labels], dice_CL: Floats, labels: Mapping[str, int]
) -> tuple[list[Labels], Floats]:
    """All masks after the rule, and their Dice; of a mask that stays as it is, both are the very same."""
    alone = Postprocessing(rules=(rule,))
    tried, tried_CL = list(masks), dice_CL.copy()
    for number, volume in enumerate(volumes):
        mask = postprocess(masks[number], alone, labels)
        if not np.array_equal(mask, masks[number]):
            tried[number] = mask
            tried_CL[number] = dice_by_label(mask, volume.reference_ZYX, labels)
    return tried, tried_CL


def _changed(before: Sequence[Labels], after: Sequence[Labels]) -> int:
    return sum(old is not new for old, new in zip(before, after, strict=True))


def _trial(
    rule: Rule,
    before_CL: Floats,
    after_CL: Floats,
    changed: int,
    volumes: Sequence[Volume],
    names: Sequence[str],
) -> Trial:
    tests = sum(map(len, _stages(names)))
    found = gain(before_CL, after_CL, _subjects_of(volumes), names, tests)
    fallen = [
        name for name, (old, new) in found.labels.items() if old is not None and (new is None or new < old)
    ]
    few = too_few(found.subjects, "whether it helps")
    kept, why = (False, few) if changed and few else _verdict(changed, found.interval95, found.p, fallen)
    return Trial(
        rule=rule,
        words=in_words(rule),
        cases_changed=changed,
        subjects_better=found.subjects_better,
        subjects_worse=found.subjects_worse,
        gain=found.mean,
        interval95=found.interval95,
        p=found.p,
        labels=found.labels,
        kept=kept,
        why=why,
    )


def _verdict(
    changed: int, interval: Sequence[float] | None, p: float | None, fallen: Sequence[str]
) -> tuple[bool, str]:
    if not changed:
        return False, "changes no mask"
    if interval is None or p is None or not interval[0] > 0:
        return False, "the gain's interval does not lie above 0"
    if p >= ALPHA:
        return False, f"p {p:.3g} after correction is not below {ALPHA:g}"
    if fallen:
        return False, f"the mean of {', '.join(fallen)} falls"
    return True, "helps beyond noise"


def _subjects_of(volumes: Sequence[Volume]) -> NDArray[np.str_]:
    """(C,): whose each volume is."""
    return np.array([volume.subject for volume in volumes])
