"""Stacks of slices: which slices and which part of them, how large, which slice a figure shows."""

import numpy as np
import pytest
from rawfiles import make_affine, make_nifti

from utseg.errors import InputError
from utseg.report.case_files import CaseFiles
from utseg.report.stacks import StackRequest, make_stack, representative_slice, slice_dice

LABELS = {"LV": 1, "MYO": 2, "RV": 3}


def test_dice_of_a_slice():
    reference, prediction = np.array([[1, 1, 2, 0]], np.uint8), np.array([[1, 0, 2, 2]], np.uint8)
    assert slice_dice(prediction, reference, LABELS) == [0.667, 0.667, None]


def test_the_slice_shown_is_the_one_that_scores_as_the_case_does():
    reference = np.zeros((4, 10, 10), np.uint8)
    reference[:3, 2:8, 2:8] = 1
    reference[3, 2, 2] = 1
    prediction = reference.copy()
    prediction[0] = 0
    prediction[1, 2:5] = 0
    assert representative_slice(reference, [prediction]) == 1  # Dice 0, 0.67, 1 of slices, 0.67 of the volume
    assert representative_slice(np.zeros((5, 4, 4), np.uint8), [np.zeros((5, 4, 4), np.uint8)]) == 2


def test_files_that_do_not_lie_alike_are_refused(tmp_path):
    label = np.zeros((3, 20, 20), np.uint8)
    label[1, 5:9, 5:9] = 1
    image = make_nifti(tmp_path / "i.nii.gz", np.arange(1200, dtype=np.int16).reshape(3, 20, 20))
    reference = make_nifti(tmp_path / "r.nii.gz", label)
    shifted = make_nifti(tmp_path / "p.nii.gz", label, make_affine(origin=(0, 0, 0)))
    fine = CaseFiles("a", image, None, reference, None, {"m": reference})
    stack = make_stack(StackRequest(fine, LABELS, figure=True))
    assert stack.page["models"]["m"]["dice"][1] == [1.0, None, None] and stack.figure["slices"] == [2]
    with pytest.raises(InputError, match=r"p\.nii\.gz: does not lie on the grid of its image"):
        make_stack(StackRequest(CaseFiles("a", image, None, reference, None, {"m": shifted}), LABELS))
