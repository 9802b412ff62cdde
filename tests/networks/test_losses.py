"""The loss against a plain float64 oracle in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainers.nnunet import recipe
from utseg.labels import IGNORED_CLASS
from utseg.networks.losses import (
    Counts,
    LossSettings,
    one_hot,
    soft_counts,
    soft_dice_loss,
    training_loss,
    volume_loss,
    weighted_cross_entropy,
)


def oracle_softmax(logits_BKHW):
    shifted = np.exp(logits_BKHW - logits_BKHW.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def oracle_dice(logits_BKHW, target_BHW):
    p = oracle_softmax(logits_BKHW)
    losses = []
    for k in range(1, logits_BKHW.shape[1]):
        g = target_BHW == k
        if not g.any():
            continue
        tp, fp, fn = p[:, k][g].sum(), p[:, k][~g].sum(), (1 - p[:, k][g]).sum()
        losses.append(1 - 2 * tp / (2 * tp + fp + fn))
    return np.mean(losses) if losses else 0.0


def oracle_cross_entropy(logits_BKHW, target_BHW, background):
    p = oracle_softmax(logits_BKHW)
    total = weights = 0.0
    for b, y, x in np.ndindex(target_BHW.shape):
        k = target_BHW[b, y, x]
        weight = background if k == 0 else 1.0
        total -= weight * np.log(p[b, k, y, x])
        weights += weight
    return total / weights


def dice_of(logits_BKHW, target_BHW):
    classes = logits_BKHW.shape[1]
    return soft_dice_loss(Counts(*soft_counts(logits_BKHW, one_hot(target_BHW, classes))))


def cross_entropy_of(logits_BKHW, target_BHW, background):
    classes = logits_BKHW.shape[1]
    counts = Counts(*soft_counts(logits_BKHW, one_hot(target_BHW, classes)))
    return weighted_cross_entropy(counts, background)


def draw(seed, classes, b=2, h=5, w=4):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (b, classes, h, w)), rng.integers(0, classes, (b, h, w)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.sampled_from([0.1, 0.5, 1.0]))
def test_terms_equal_the_oracle(seed, classes, background):
    logits, target = draw(seed, classes)
    as_tensor, labels = torch.from_numpy(logits).float(), torch.from_numpy(target)
    assert dice_of(as_tensor, labels).item() == pytest.approx(oracle_dice(logits, target), abs=1e-5)
    assert cross_entropy_of(as_tensor, labels, background).item() == pytest.approx(
        oracle_cross_entropy(logits, target, background), rel=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.floats(0, 1))
def test_ignored_pixels_count_nowhere(seed, classes, share):
    """The loss is that of the other pixels, as one row; nothing flows into what is ignored, and without a pixel it is 0."""
    logits, target = draw(seed, classes)
    known = np.random.default_rng(seed).random(target.shape) >= share
    settings_ = LossSettings(deep_supervision_weights=(1,))
    logits_BKHW = torch.from_numpy(logits).float().requires_grad_()
    loss, _ = training_loss(logits_BKHW, torch.from_numpy(np.where(known, target, IGNORED_CLASS)), settings_)
    loss.backward()
    assert not logits_BKHW.grad.movedim(1, -1)[torch.from_numpy(~known)].any()
    others = logits.transpose(0, 2, 3, 1)[known].T[None, :, None], target[known][None, None]
    if known.any():
        expected, _ = training_loss(*map(torch.from_numpy, others), settings_)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    else:
        assert loss.item() == 0
    probability_KZYX = oracle_softmax(logits).transpose(1, 0, 2, 3).astype(np.float32)
    found = volume_loss(probability_KZYX, np.where(known, target, IGNORED_CLASS), settings_)
    assert found["total"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.9))
def test_regions_have_binary_cross_entropy_and_dice_of_their_own(seed, share):
    """Against float64: a heart of two classes and one of them, which overlap; the third channel is background."""
    members_KN = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    logits, target = draw(seed, 3)
    known = np.random.default_rng(seed).random(target.shape) >= share
    assume(known.any())
    p_KN = 1 / (1 + np.exp(-logits.transpose(1, 0, 2, 3)[:, known]))
    g_KN = members_KN[:, target[known]]
    cross_entropy = -np.mean(np.where(g_KN, np.log(p_KN), np.log(1 - p_KN)))
    dice = [
        1 - 2 * p[g].sum() / (p.sum() + g.sum()) for p, g in zip(p_KN[1:], g_KN[1:], strict=True) if g.any()
    ]
    settings_ = LossSettings(deep_supervision_weights=(1,))
    ignoring = np.where(known, target, IGNORED_CLASS)
    members = torch.from_numpy(members_KN)
    _, terms = training_loss(
        torch.from_numpy(logits), torch.from_numpy(ignoring), settings_, members_KN=members
    )
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert terms["dice"].item() == pytest.approx(np.mean(dice) if dice else 0, abs=1e-5)
    probability_KZYX = (1 / (1 + np.exp(-logits))).transpose(1, 0, 2, 3).astype(np.float32)
    found = volume_loss(probability_KZYX, ignoring, settings_, members_KN)
    assert found["total"] == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_class_weights_weigh_the_pixels_or_channels_of_the_cross_entropy_alone(regions):
    """Against float64; and the loss of a volume is that of its slices."""
    logits, target = draw(5, 4)
    weight_K = np.array([1 if regions else 0.3, 1, 2.5, 0.5])
    settings_ = LossSettings(
        background_weight=0.3,
        class_weights={"LV": 1, "MYO": 2.5, "RV": 0.5},
        deep_supervision_weights=(1,),
    )
    members_KN = np.eye(4, dtype=bool) | (np.arange(4)[:, None] * np.arange(4) == 6) if regions else None
    if regions:
        p_KN = 1 / (1 + np.exp(-np.moveaxis(logits, 1, 0).reshape(4, -1)))
        logs_KN = np.log(np.where(members_KN[:, target.ravel()], p_KN, 1 - p_KN))
        expected = -(weight_K @ logs_KN).sum() / (weight_K.sum() * target.size)
        probability_KZYX = (1 / (1 + np.exp(-logits))).transpose(1, 0, 2, 3).astype(np.float32)
    else:
        probability_KZYX = oracle_softmax(logits).transpose(1, 0, 2, 3).astype(np.float32)
        p_BHW = np.take_along_axis(oracle_softmax(logits), target[:, None].astype(int), 1)[:, 0]
        expected = -(weight_K[target] * np.log(p_BHW)).sum() / weight_K[target].sum()
    values = torch.from_numpy(logits).float(), torch.from_numpy(target)
    members = None if members_KN is None else torch.from_numpy(members_KN)
    _, terms = training_loss(*values, settings_, members_KN=members)
    _, plain = training_loss(*values, LossSettings(deep_supervision_weights=(1,)), members_KN=members)
    assert terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["dice"].item() == plain["dice"].item()
    found = volume_loss(probability_KZYX, target, settings_, members_KN)
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_the_recipe_of_nnunet_is_its_formula(seed, outputs):
    """Outputs at their own sizes, weights that add up to 1, and a Dice of classes that the reference lacks, against float64."""
    drawn = [draw(seed + level, 4, h=16 // 2**level, w=16 // 2**level) for level in range(outputs)]
    target = np.where(drawn[0][1] == 3, 0, drawn[0][1])  # no pixel of the class 3
    expected = 0.0
    for level, (logits, _) in enumerate(drawn):
        at = np.arange(16 // 2**level) * 2**level + 2**level // 2
        sampled, p = target[:, at[:, None], at], oracle_softmax(logits)
        dice = [
            (2 * p[:, k][sampled == k].sum() + 1e-5) / (p[:, k].sum() + (sampled == k).sum() + 1e-5)
            for k in (1, 2, 3)
        ]
        both = oracle_cross_entropy(logits, sampled, 1.0) + 1 - np.mean(dice)
        expected += both * 0.5**level / sum(0.5**each for each in range(outputs))
    as_tensors = [torch.from_numpy(logits).float() for logits, _ in drawn]
    loss, _ = training_loss(as_tensors, torch.from_numpy(target), recipe("").loss)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_the_weighted_sum_over_outputs():
    settings_ = LossSettings(
        cross_entropy_weight=0.7, dice_weight=1.3, deep_supervision_weights=(1, 0.4, 0.2)
    )
    (first, target), (second, _) = draw(0, 4), draw(1, 4)

    def expected(logits):
        return 0.7 * oracle_cross_entropy(logits, target, 0.5) + 1.3 * oracle_dice(logits, target)

    outputs = [torch.from_numpy(logits).float() for logits in (first, second)]
    loss, terms = training_loss(outputs, torch.from_numpy(target), settings_)
    assert loss.item() == pytest.approx(expected(first) + 0.4 * expected(second), rel=1e-5)
    assert terms["auxiliary"].item() == pytest.approx(0.4 * expected(second), rel=1e-5)
    assert terms["dice"].item() == pytest.approx(oracle_dice(first, target), rel=1e-5)
    alone, terms = training_loss(outputs[0], torch.from_numpy(target), settings_)
    assert alone.item() == pytest.approx(expected(first), rel=1e-5)
    assert "auxiliary" not in terms


def test_classes_that_the_batch_lacks_take_no_part():
    logits, target = draw(3, 4)
    target[target == 3] = 0
    loss = dice_of(torch.from_numpy(logits).float(), torch.from_numpy(target))
    assert loss.item() == pytest.approx(oracle_dice(logits, target), abs=1e-5)
    background_only = torch.zeros(2, 5, 4, dtype=torch.uint8)
    with_gradient = torch.from_numpy(logits).float().requires_grad_()
    nothing = dice_of(with_gradient, background_only)
    nothing.backward()
    assert nothing.item() == 0
    assert not with_gradient.grad.any()


def test_a_perfect_prediction_has_almost_no_loss():
    _, target = draw(4, 3)
    logits = 50 * np.moveaxis(np.eye(3)[target], -1, 1)
    loss, _ = training_loss(torch.from_numpy(logits).float(), torch.from_numpy(target), LossSettings())
    assert 0 <= loss.item() < 1e-5


def test_half_precision_logits_are_summed_in_float32():
    logits, target = draw(5, 4, b=4, h=64, w=64)
    rounded = torch.from_numpy(logits).bfloat16()
    loss = dice_of(rounded, torch.from_numpy(target))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle_dice(rounded.double().numpy(), target), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans())
def test_the_loss_of_a_volume_is_that_of_training_on_its_slices_as_one_batch(seed, classes, empty):
    logits, target = draw(seed, classes)
    target = np.zeros_like(target) if empty else target
    weights = LossSettings(background_weight=0.3, cross_entropy_weight=0.7, dice_weight=1.3)
    as_tensor = torch.from_numpy(logits).float()
    total, terms = training_loss(as_tensor, torch.from_numpy(target), weights)
    probability_KZYX = as_tensor.softmax(1).movedim(0, 1).contiguous().numpy()
    assume(probability_KZYX.min() >= 1e-7)  # where a volume's loss stops
    found = volume_loss(probability_KZYX, target, weights)
    assert found.pop("total") == pytest.approx(total.item(), rel=1e-4, abs=1e-5)
    assert found == {name: pytest.approx(value.item(), rel=1e-4, abs=1e-5) for name, value in terms.items()}


def test_a_certain_error_costs_a_finite_loss():
    wrong_KZYX = np.stack([np.ones((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)])
    found = volume_loss(wrong_KZYX, np.ones((1, 2, 2), np.uint8), LossSettings())
    assert found["cross_entropy"] == pytest.approx(-np.log(1e-7), rel=1e-5)
    assert found["dice"] == 1.0
