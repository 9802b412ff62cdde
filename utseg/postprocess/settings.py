"""`Postprocessing`: which rules are applied to a mask, in which order, as a value that is stored as JSON.

Labels are named, so that a stored value says what it does; which number a name stands for comes with the mask.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from utseg.errors import SettingError
from utseg.postprocess.rules import Labels, fill_holes, keep_largest, keep_largest_of_label, remove_islands
from utseg.settings import Settings


class KeepLargest(Settings):
    """Of all labels together the largest component stays."""

    rule: Literal["keep_largest"] = "keep_largest"


class KeepLargestOfLabel(Settings):
    """Of one label the largest component stays."""

    rule: Literal["keep_largest_of_label"] = "keep_largest_of_label"
    label: str


class RemoveIslands(Settings):
    """Components of one label that are smaller than `share` of its largest go."""

    rule: Literal["remove_islands"] = "remove_islands"
    label: str
    share: Annotated[float, Field(gt=0, le=1)]


class FillHoles(Settings):
    """Background that one label encloses in a slice becomes that label."""

    rule: Literal["fill_holes"] = "fill_holes"
    label: str


Rule = Annotated[KeepLargest | KeepLargestOfLabel | RemoveIslands | FillHoles, Field(discriminator="rule")]


class Postprocessing(Settings):
    """Rules in the order in which they are applied; none leaves masks as they are."""

    format: Literal["utseg-postprocessing-1"] = "utseg-postprocessing-1"
    rules: tuple[Rule, ...] = ()


def postprocess(mask_ZYX: Labels, postprocessing: Postprocessing, labels: Mapping[str, int]) -> Labels:
    """The mask (Z, Y, X) after all rules, a new array if there are any. `labels` maps names to the values in the mask.

    Raises SettingError where a rule names a label that is not there.
    """
    check_labels(postprocessing, labels)
    for rule in postprocessing.rules:
        mask_ZYX = _apply(rule, mask_ZYX, labels)
    return mask_ZYX


def check_labels(postprocessing: Postprocessing, labels: Mapping[str, int]) -> None:
    """Raises SettingError where a rule names a label that is not there, or background."""
    known = [name for name, value in labels.items() if value != 0]
    for rule in postprocessing.rules:
        if not isinstance(rule, KeepLargest) and rule.label not in known:
            raise SettingError(
                f"postprocessing: {rule.rule} names the label {rule.label!r}; labels there: {', '.join(known)}"
            )


def in_words(rule: Rule) -> str:
    """What a rule does, for people."""
    if isinstance(rule, KeepLargest):
        return "largest component of everything"
    if isinstance(rule, KeepLargestOfLabel):
        return f"largest component of {rule.label}"
    if isinstance(rule, RemoveIslands):
        return f"no islands of {rule.label} below {rule.share:g} of its largest component"
    return f"holes of {rule.label} filled in each slice"


def _apply(rule: Rule, mask_ZYX: Labels, labels: Mapping[str, int]) -> Labels:
    if isinstance(rule, KeepLargest):
        return keep_largest(mask_ZYX)
    if isinstance(rule, KeepLargestOfLabel):
        return keep_largest_of_label(mask_ZYX, labels[rule.label])
    if isinstance(rule, RemoveIslands):
        return remove_islands(mask_ZYX, labels[rule.label], rule.share)
    return fill_holes(mask_ZYX, labels[rule.label])
