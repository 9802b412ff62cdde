"""Ranking, ties, and the cheaper one that wins them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.evaluate.compare import LEAST_SUBJECTS
from utseg.selection.choose import Candidate, choose, differs

NAMES = np.array([f"s{number:02d}" for number in range(40)])


def candidate(name: str, values: np.ndarray, gmac: float = 1.0) -> tuple[Candidate, np.ndarray]:
    return Candidate(name=name, gmac=gmac, mean_dice=float(np.mean(values))), np.asarray(values, dtype=float)


def noise(seed: int, count: int, sd: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, count)


def test_clearly_better_is_chosen_whatever_it_costs():
    base = 0.8 + noise(0, 30)
    found = choose(
        [candidate("cheap", base), candidate("dear", base + 0.05 + noise(1, 30, 0.005), 100)], NAMES[:30]
    )
    assert found.chosen.name == "dear"
    assert not found.tie
    assert found.candidates[1].against_best.p < 0.05
    assert "better than the runner-up cheap beyond noise" in found.why


def test_a_tie_is_called_a_tie_and_the_cheaper_one_wins():
    base = 0.8 + noise(0, 30)
    found = choose(
        [
            candidate("dear", base + 0.001 + noise(1, 30), 100),
            candidate("cheap", base + noise(2, 30), 1),
            candidate("worse", base - 0.2, 0.1),
        ],
        NAMES[:30],
    )
    assert found.tie
    assert found.chosen.name == "cheap"
    assert {one.name: one.tied for one in found.candidates} == {
        "dear": True,
        "cheap": True,
        "worse": False,
    }
    assert "the cheapest of these wins the tie: cheap" in found.why or found.candidates[0].name == "cheap"


def test_a_tie_reaches_past_the_runner_up():
    """A pair, another pair and a single that all score the same: the single is chosen."""
    base = 0.8 + noise(0, 30)
    found = choose(
        [
            candidate(name, base + noise(seed, 30, 0.01), gmac)
            for seed, (name, gmac) in enumerate([("a+b", 2), ("a+c", 3), ("a", 1)])
        ],
        NAMES[:30],
    )
    assert found.chosen.name == "a"


def test_identical_scores_are_a_tie_with_p_one():
    values = 0.8 + noise(0, 10)
    found = choose([candidate("b", values, 2), candidate("a", values, 2)], NAMES[:10])
    assert found.candidates[1].against_best.p == 1
    assert found.tie
    assert found.chosen.name == "a"  # by name, and so always the same


@pytest.mark.parametrize("count", range(1, 8))
def test_below_six_subjects_nobody_wins_and_it_is_said(count):
    values = 0.8 + noise(0, count)
    found = choose([candidate("cheap", values - 0.3), candidate("dear", values, 50)], NAMES[:count])
    assert found.tie is (count < 6)
    assert found.chosen.name == ("cheap" if count < 6 else "dear")
    said = f"{count} subject{'s are' if count > 1 else ' is'} too few to tell models apart: the cheapest, cheap, is taken"
    assert (found.why == said) is (count < 6)


def test_six_is_the_first_number_that_a_paired_test_can_tell_by():
    assert 2 / 2 ** (LEAST_SUBJECTS - 1) > 0.05 > 2 / 2**LEAST_SUBJECTS


def test_one_candidate_is_the_best():
    found = choose([candidate("only", [0.5, 0.7])], NAMES[:2])
    assert found.chosen.mean_dice == pytest.approx(0.6)
    assert not found.tie
    assert "nothing else was there" in found.why


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_holds_for_all_choices(data):
    count = data.draw(st.integers(1, 15))
    scores = st.lists(st.floats(0, 1), min_size=count, max_size=count)
    candidates = [
        candidate(f"m{number}", data.draw(scores), data.draw(st.floats(0.1, 100)))
        for number in range(data.draw(st.integers(1, 4)))
    ]
    found = choose(candidates, NAMES[:count])
    means = [one.mean_dice for one in found.candidates]
    assert means == sorted(means, reverse=True)
    tied = [one for one in found.candidates if one.tied]
    assert found.candidates[0] in tied
    assert found.chosen.gmac == min(one.gmac for one in tied)
    for one in found.candidates[1:]:
        assert one.against_best.difference == pytest.approx(means[0] - one.mean_dice)
        assert one.tied is not differs(one.against_best.model_dump())
        interval = one.against_best.interval95
        if not one.tied:
            assert interval[0] > 0
    shuffled = data.draw(st.permutations(candidates))
    assert choose(shuffled, NAMES[:count]).chosen == found.chosen


def test_under_no_difference_the_dearer_one_rarely_wins():
    """Two models of the same quality: the test holds its level, so the cheap one is chosen nearly always."""
    dear = 0
    for seed in range(100):
        pair = np.random.default_rng(seed).normal(0.8, 0.03, (2, 15))
        found = choose([candidate("cheap", pair[0], 1), candidate("dear", pair[1], 2)], NAMES[:15])
        dear += found.chosen.name == "dear"
    assert dear <= 8
