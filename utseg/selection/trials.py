"""Which postprocessing helps, tried on out-of-fold masks: one rule after the other, each on top of those that were kept.

The order is nnU-Net's (Isensee et al., Nature Methods 2021): the largest component of everything, then of each label (where that does not
help, without its small islands), then holes of each label. Nothing is read or written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS
from utseg.evaluate.subjects import Floats, Interval
from utseg.label_map import Labels, structures
from utseg.postprocess import (
    FillHoles,
    KeepLargest,
    KeepLargestOfLabel,
    MaskArray,
    Postprocessing,
    RemoveIslands,
    Rule,
    in_words,
    postprocess,
)
from utseg.selection.scores import BeforeAfter, Gain, OutOfFoldMask, dice_by_label, measure_gain
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
    interval95: Interval | None
    p: float | None
    labels: dict[str, BeforeAfter]
    kept: bool
    why: str


@dataclass(frozen=True)
class ChosenRules:
    """The rules that are kept, all that were tried, and the Dice (cases, labels) of the masks after the kept ones."""

    postprocessing: Postprocessing
    trials: tuple[Trial, ...]
    dice_CL: Floats


def choose_postprocessing(volumes: Sequence[OutOfFoldMask], labels: Labels) -> ChosenRules:
    """Tries all rules, in their order, each on top of those kept. Holds all volumes in memory."""
    names = list(structures(labels))
    subjects_C = np.array([volume.subject for volume in volumes])
    stages = _stages(names)
    masks = [volume.mask_ZYX for volume in volumes]
    dice_CL = np.stack([dice_by_label(one.mask_ZYX, one, labels) for one in volumes])
    trials: list[Trial] = []
    for stage in stages:
        for rule in stage:
            tried, tried_CL = _try(rule, volumes, masks, dice_CL, labels)
            changed = sum(old is not new for old, new in zip(masks, tried, strict=True))
            found = measure_gain(dice_CL, tried_CL, subjects_C, names, sum(map(len, stages)))
            kept, why = _verdict(found, changed)
            facts = found.measured()
            trials.append(
                Trial(rule=rule, words=in_words(rule), cases_changed=changed, **facts, kept=kept, why=why)
            )
            if kept:
                masks, dice_CL = tried, tried_CL
                break
    rules = tuple(trial.rule for trial in trials if trial.kept)
    return ChosenRules(Postprocessing(rules=rules), tuple(trials), dice_CL)


def _stages(names: Sequence[str]) -> list[tuple[Rule, ...]]:
    """Of each stage the first rule that helps is kept. With a single label, everything and that label are the same."""
    stages: list[tuple[Rule, ...]] = [(KeepLargest(),)] if len(names) > 1 else []
    stages += [
        (KeepLargestOfLabel(label=name), RemoveIslands(label=name, share=ISLANDS_BELOW)) for name in names
    ]
    return stages + [(FillHoles(label=name),) for name in names]


def _try(
    rule: Rule,
    volumes: Sequence[OutOfFoldMask],
    masks: Sequence[MaskArray],
    dice_CL: Floats,
    labels: Labels,
) -> tuple[list[MaskArray], Floats]:
    """All masks after the rule, and their Dice; of a mask that stays as it is, both are the very same."""
    alone = Postprocessing(rules=(rule,))
    tried, tried_CL = list(masks), dice_CL.copy()
    for number, volume in enumerate(volumes):
        mask = postprocess(masks[number], alone, labels)
        if not np.array_equal(mask, masks[number]):
            tried[number] = mask
            tried_CL[number] = dice_by_label(mask, volume, labels)
    return tried, tried_CL


def _verdict(found: Gain, changed: int) -> tuple[bool, str]:
    if not changed:
        return False, "changes no mask"
    if doubt := found.doubt("whether it helps"):
        return False, doubt
    fallen = [
        name for name, (old, new) in found.labels.items() if old is not None and (new is None or new < old)
    ]
    return not fallen, f"the mean of {', '.join(fallen)} falls" if fallen else "helps beyond noise"
