"""Partners: of another subject always, of another vendor where there is one, each alike, at the same height of the stack."""

from collections import Counter

import numpy as np
import pytest

from utseg.augment.partners import Partners
from utseg.augment.sampling import SliceRef
from utseg.errors import InputError


def stack(case_id: str, subject: str, vendor: str, slices: int) -> list[SliceRef]:
    return [SliceRef(case_id, z, (), subject, vendor) for z in range(slices)]


COHORT = [
    *stack("1_ED", "1", "A", 4),
    *stack("1_ES", "1", "A", 4),
    *stack("2_ED", "2", "A", 9),
    *stack("3_ED", "3", "B", 6),
    *stack("4_ED", "4", "B", 5),
    *stack("5_ED", "5", "B", 5),
    *stack("6_ED", "6", "C", 3),
]
DRAWS = (np.arange(1200) + 0.5) / 1200


@pytest.mark.parametrize("ref", COHORT, ids=lambda ref: ref.name)
def test_another_vendor_each_alike_then_its_cases_alike(ref: SliceRef) -> None:
    partners = Partners(COHORT)
    drawn = [partners.of(ref, drawn) for drawn in DRAWS]
    vendors = Counter(each.vendor for each in drawn)
    assert ref.vendor not in vendors and len(vendors) == 2
    assert set(vendors.values()) == {len(DRAWS) // 2}
    for vendor in vendors:
        of_cases = Counter(each.case_id for each in drawn if each.vendor == vendor)
        assert max(of_cases.values()) - min(of_cases.values()) <= 1


def test_of_one_vendor_another_subject_never_its_own_other_phase() -> None:
    one_vendor = [ref for ref in COHORT if ref.vendor == "A"]
    partners = Partners(one_vendor)
    assert {partners.of(one_vendor[0], drawn).case_id for drawn in DRAWS} == {"2_ED"}
    assert {partners.of(one_vendor[-1], drawn).case_id for drawn in DRAWS} == {"1_ED", "1_ES"}


def test_slices_of_the_same_height() -> None:
    two = [*stack("a", "1", "", 4), *stack("b", "2", "", 12)]
    partners = Partners(two)
    assert [partners.of(ref, 0.3).z for ref in two[:4]] == [1, 4, 7, 10]
    assert [partners.of(ref, 0.3).z for ref in two[4:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_every_number_below_one_has_a_partner() -> None:
    partners = Partners(COHORT)
    for drawn in (0.0, np.nextafter(1, 0), np.nextafter(0.5, 0), 0.5):
        assert partners.of(COHORT[0], float(drawn)).vendor != "A"


def test_one_subject_has_no_partner() -> None:
    with pytest.raises(InputError, match="at least two subjects"):
        Partners([*stack("1_ED", "1", "A", 4), *stack("1_ES", "1", "A", 4)])
