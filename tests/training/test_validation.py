"""Validation during training: Dice per case in 3-D, absent labels, the network left as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_runs import make_plan
from torch import nn

from utseg.training.validation import Validation, dice, validate

masks = arrays(bool, (2, 4, 3))


class Echo(nn.Module):
    """Answers the label that its input spells: pixel value k means class k."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(1)

    def main_logits(self, x_BCHW):
        assert not self.training
        classes = torch.arange(4, dtype=torch.float32).view(1, 4, 1, 1)
        return -50 * self.scale * (x_BCHW - classes) ** 2


class Store:
    """Cases whose image spells one label map while the reference is another."""

    def __init__(self, cases):
        self.cases = cases

    def read_case(self, record):
        said, reference = self.cases[record.case_id]
        return said[np.newaxis].astype(np.float32), reference


def records(case_ids):
    return [SimpleNamespace(case_id=case_id, slice_distance_mm=8.0) for case_id in case_ids]


def run(cases, **options):
    plan = make_plan(patch_size=(16, 16), batch_size=2)
    network = Echo().train()
    found = validate(network, Store(cases), records(cases), plan, torch.device("cpu"), **options)
    assert network.training
    return found


@given(masks, masks)
def test_dice_is_twice_the_overlap_over_the_sizes(left, right):
    found = dice(left, right)
    if not left.any() and not right.any():
        assert np.isnan(found)
    else:
        both = sum(a and b for a, b in zip(left.flat, right.flat, strict=True))
        assert found == pytest.approx(2 * both / (int(left.sum()) + int(right.sum())))
        assert found == dice(right, left)


@settings(max_examples=15, deadline=None)
@given(st.lists(arrays(np.uint8, (2, 2, 18, 21), elements=st.integers(0, 3)), min_size=1, max_size=3))
def test_means_are_over_cases_that_have_the_label(maps):
    cases = {f"case{index}": (pair[0], pair[1]) for index, pair in enumerate(maps)}
    found = run(cases)
    for name, value in (("LV", 1), ("MYO", 2), ("RV", 3)):
        scores = [dice(said == value, reference == value) for said, reference in cases.values()]
        defined = [score for score in scores if not np.isnan(score)]
        assert found.empty[name] == len(scores) - len(defined)
        assert found.dice[name] == (pytest.approx(np.mean(defined)) if defined else None)


def test_labels_that_no_case_has_take_no_part_in_the_mean():
    blank = np.zeros((2, 18, 21), np.uint8)
    heart = blank.copy()
    heart[0, 3:9, 3:9] = 1
    found = run({"a": (heart, heart), "b": (blank, heart), "c": (blank, blank)})
    assert found.dice == {"LV": pytest.approx(0.5), "MYO": None, "RV": None}
    assert found.empty == {"LV": 1, "MYO": 3, "RV": 3}
    assert found.mean_dice == pytest.approx(0.5)
    assert Validation({"LV": None}, {"LV": 3}, 0.0).mean_dice is None


def test_pictures_are_of_as_many_cases_as_were_asked_for():
    heart = np.zeros((3, 18, 21), np.uint8)
    heart[1, 3:9, 3:9] = 2
    said = np.roll(heart, 5, axis=2)
    found = run({"a": (said, heart), "b": (heart, heart)}, overlays=1)
    ((name, picture),) = found.overlays
    assert name == "a"
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8


def test_stopping_in_the_middle_leaves_the_network_in_training_mode():
    blank = np.zeros((2, 18, 21), np.uint8)
    network, calls = Echo().train(), []

    def check():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    store = Store({"a": (blank, blank), "b": (blank, blank)})
    with pytest.raises(KeyboardInterrupt):
        validate(
            network, store, records("ab"), make_plan(patch_size=(16, 16)), torch.device("cpu"), check=check
        )
    assert network.training
