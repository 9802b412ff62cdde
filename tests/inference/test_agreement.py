"""Agreement between members against all pairs counted one by one; expected Dice against masks drawn from the probabilities; entropy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.inference.agreement import Agreement, RunningAgreement, agreement_between, entropy, expected_dice

SHAPES = st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


def random_members(
    seed: int, members: int, shape_kzyx: tuple[int, ...], sharpness: float = 3.0
) -> np.ndarray:
    """(M, K, Z, Y, X), float32, sums over K are 1."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(members, *shape_kzyx))
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def agreement_of(members_MKZYX: np.ndarray) -> Agreement:
    """By the definition: every pair by itself."""
    members = members_MKZYX.astype(np.float64)
    products = [(a * b).sum((1, 2, 3)) for a, b in itertools.combinations(members, 2)]
    return Agreement(len(members), (members**2).sum((0, 2, 3, 4)), np.sum(products, axis=0))


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 1000), st.integers(1, 4), st.integers(1, 3))
def test_groups_join_as_if_all_members_were_one_group(shape, seed, first, second):
    members = random_members(seed, first + second, shape)
    groups = members[:first], members[first:]
    alone = [
        agreement_of(group)
        if len(group) > 1
        else Agreement(1, (group**2.0).sum((0, 2, 3, 4)), np.zeros(shape[0]))
        for group in groups
    ]
    joined, whole = agreement_between(alone, [group.mean(0) for group in groups]), agreement_of(members)
    assert joined.members == first + second
    np.testing.assert_allclose(joined.squares_K, whole.squares_K, rtol=1e-5)
    np.testing.assert_allclose(joined.products_K, whole.products_K, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined.scaled(0.3).dice(), joined.dice())


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 1000), st.integers(1, 4))
def test_members_may_come_one_by_one(shape, seed, count):
    members = random_members(seed, count, shape)
    running = RunningAgreement()
    for member in members:
        running.add(member)
    found = running.result()
    assert found.members == count
    np.testing.assert_allclose(found.squares_K, (members.astype(np.float64) ** 2).sum((0, 2, 3, 4)))
    if count > 1:
        np.testing.assert_allclose(found.products_K, agreement_of(members).products_K)
    else:
        np.testing.assert_array_equal(found.products_K, 0)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 1000), st.integers(2, 4))
def test_equal_members_agree_wholly_others_less(shape, seed, members):
    one = random_members(seed, 1, shape)
    np.testing.assert_allclose(agreement_of(np.repeat(one, members, 0)).dice(), 1, rtol=1e-6)
    dice = agreement_of(random_members(seed, members, shape)).dice()
    assert ((dice >= 0) & (dice <= 1 + 1e-6)).all()


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.uint8, (2, 2, 5, 4), elements=st.integers(0, 2)),
)
def test_of_two_masks_it_is_their_dice(masks):
    one_hot = np.stack([masks == k for k in range(3)], axis=1).astype(np.float32)
    found = agreement_of(one_hot).dice()
    for k in range(3):
        first, second = masks == k
        total = first.sum() + second.sum()
        if total:
            assert found[k] == pytest.approx(2 * (masks[0] == k)[masks[1] == k].sum() / ((masks == k).sum()))
        else:
            assert np.isnan(found[k])


def test_one_member_has_nobody_to_agree_with():
    assert np.isnan(Agreement(1, np.ones(3), np.zeros(3)).dice()).all()


def test_expected_dice_is_that_with_masks_drawn_from_the_probabilities():
    probabilities = random_members(5, 1, (3, 4, 20, 20), sharpness=1.5)[0]
    mask = probabilities.argmax(0).astype(np.uint8)
    rng = np.random.default_rng(0)
    drawn = (rng.random((300, 1, *mask.shape)) > probabilities.cumsum(0)[None]).sum(1)
    shared = ((drawn == mask) & (mask == 1)).sum((1, 2, 3))
    true = 2 * shared / ((drawn == 1).sum((1, 2, 3)) + (mask == 1).sum())
    assert expected_dice(probabilities, mask)[1] == pytest.approx(true.mean(), abs=0.005)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, (2, 4, 5), elements=st.integers(0, 2)))
def test_whoever_is_sure_expects_a_dice_of_one_where_there_is_something(mask):
    sure = np.stack([mask == k for k in range(3)]).astype(np.float32)
    found = expected_dice(sure, mask)
    for k in range(3):
        assert found[k] == 1 if (mask == k).any() else np.isnan(found[k])


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 1000), st.floats(0.1, 60))
def test_entropy_lies_between_sure_and_undecided(shape, seed, sharpness):
    from scipy.stats import entropy as reference

    probabilities = random_members(seed, 1, shape, sharpness)[0]
    found = entropy(probabilities)
    assert found.dtype == np.float32
    assert found.shape == shape[1:]
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found, reference(probabilities, axis=0) / np.log(shape[0]), atol=1e-4)


def test_entropy_at_its_ends():
    even, sure = np.full((4, 1, 2, 2), 0.25, np.float32), np.zeros((4, 1, 2, 2), np.float32)
    sure[2] = 1
    np.testing.assert_allclose(entropy(even), 1, rtol=1e-6)
    np.testing.assert_allclose(entropy(sure), 0, atol=1e-30)
    np.testing.assert_array_equal(entropy(np.ones((1, 1, 2, 2), np.float32)), 0)
