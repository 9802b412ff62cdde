"""Subjects who share a scan are one, along chains too."""

from hypothesis import given
from hypothesis import strategies as st

from utseg.fingerprint.same_scan import same_subjects

pairs = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.lists(st.integers(0, 12).map(str), max_size=3)))


@given(pairs)
def test_who_is_reached_over_shared_scans_is_one_subject(scans):
    same = same_subjects(scans)
    reached = {subject: {subject} for subject, _ in scans}
    for _ in range(len(reached)):
        for one, mine in scans:
            for other, theirs in scans:
                if set(mine) & set(theirs):
                    reached[one] = reached[one] | reached[other]
        for one in reached:
            reached[one] = set().union(*(reached[other] for other in reached[one]))
    assert same == {one: " = ".join(sorted(others)) for one, others in reached.items() if len(others) > 1}
