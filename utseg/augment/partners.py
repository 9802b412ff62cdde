"""Which slice lends its look to another: one of another subject, of another vendor where the training set has several.

A function of the drawn number only. The vendor is chosen first, each alike, then one of its cases, then the slice at the same relative
height of the stack: the histograms of apex and base differ by anatomy, not by scanner.
"""

from collections.abc import Sequence

from utseg.augment.sampling import SliceRef
from utseg.errors import InputError


class Partners:
    """The slices of a training set as each other's partners. Raises InputError where all are of one subject."""

    def __init__(self, slices: Sequence[SliceRef]) -> None:
        self._stacks: dict[str, list[SliceRef]] = {}
        for ref in slices:
            self._stacks.setdefault(ref.case_id, []).append(ref)
        self._pools: dict[tuple[str, str], list[list[str]]] = {}
        if len({ref.subject for ref in slices}) < 2:
            raise InputError(
                "training: augmentation.histogram_probability and augmentation.amplitude_probability need slices of at least two "
                "subjects, and the selection has one; set both to 0 or train on more"
            )

    def of(self, ref: SliceRef, drawn: float) -> SliceRef:
        """The partner of a slice. `drawn`: from 0 to below 1."""
        key = ref.subject, ref.vendor
        if key not in self._pools:
            self._pools[key] = self._find_pools(*key)
        pools = self._pools[key]
        pool, drawn = _pick(len(pools), drawn)
        case, _ = _pick(len(pools[pool]), drawn)
        stack, own = self._stacks[pools[pool][case]], self._stacks[ref.case_id]
        return stack[(2 * own.index(ref) + 1) * len(stack) // (2 * len(own))]

    def _find_pools(self, subject: str, vendor: str) -> list[list[str]]:
        """Cases of other subjects, by other vendor; all together where there is no other vendor."""
        others = [case_id for case_id, stack in self._stacks.items() if stack[0].subject != subject]
        by_vendor: dict[str, list[str]] = {}
        for case_id in others:
            by_vendor.setdefault(self._stacks[case_id][0].vendor, []).append(case_id)
        by_vendor.pop(vendor, None)
        return list(by_vendor.values()) or [others]


def _pick(count: int, drawn: float) -> tuple[int, float]:
    """Which of `count` equal parts of 0 … 1 the number falls into, and where in that part it lies: again a number from 0 to below 1."""
    place = drawn * count
    index = min(int(place), count - 1)
    return index, place - index
