"""What is shown to a network comes back to where it was: mirrored exactly, turned as far as interpolation allows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_models import make_plan

from utseg.augment.spatial import pixel_matrix, warp
from utseg.inference import views
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, NO_AUGMENTATION, View, allowed, coverage, union

axes = st.lists(st.sampled_from(["y", "x"]), max_size=3)
windows = st.tuples(st.integers(2, 40), st.integers(2, 40))
angles = st.floats(-45, 45).filter(lambda angle: abs(angle) > 0.5)
spacings = st.tuples(st.floats(0.5, 3), st.floats(0.5, 3))
augmentations = st.builds(
    lambda mirror, turn: views.TestTimeAugmentation(mirror_axes=mirror, rotation_degrees=turn),
    axes,
    st.lists(angles, max_size=3),
)
trainings = st.builds(
    lambda mirror, degrees, often: make_plan().augmentation.model_copy(
        update={"mirror_axes": tuple(mirror), "rotation_deg": degrees, "rotation_probability": often}
    ),
    axes,
    st.floats(0, 60),
    st.sampled_from([0.0, 0.5]),
)


def plane(size_yx: tuple[int, int], window_yx: tuple[int, int]) -> torch.Tensor:
    """1 + y − 2x about the centre, in windows: interpolated linearly it stays itself. (1, 2, H, W), the second channel ones."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in size_yx)
    values = 1 + np.add.outer(y / window_yx[0], -2 * x / window_yx[1])
    return torch.tensor(np.stack([values, np.ones_like(values)])[None], dtype=torch.float32)


@settings(max_examples=60, deadline=None)
@given(
    windows,
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.lists(st.sampled_from(["y", "x"]), unique=True),
)
def test_mirrored_is_exactly_undone(window_yx, margin_yx, mirror):
    height, width = (size + 2 * margin for size, margin in zip(window_yx, margin_yx, strict=True))
    x = torch.rand(2, 3, height, width)
    view = View(tuple(mirror))
    shown = view.show(x, window_yx)
    inner = x[:, :, margin_yx[0] : height - margin_yx[0], margin_yx[1] : width - margin_yx[1]]
    assert torch.equal(view.restore(shown), inner)
    assert torch.equal(shown, inner.flip([{"y": 2, "x": 3}[axis] for axis in mirror]))
    assert view.margin_yx(window_yx) == (0, 0)
    assert (coverage(view, window_yx) == 1).all()


@settings(max_examples=100, deadline=None)
@given(windows, angles, spacings, axes)
def test_turned_is_undone_where_it_was_seen(window_yx, angle, spacing_yx_mm, mirror):
    view = View(tuple(dict.fromkeys(mirror)), angle, spacing_yx_mm)
    margins = view.margin_yx(window_yx)
    whole = plane(
        tuple(size + 2 * margin for size, margin in zip(window_yx, margins, strict=True)), window_yx
    )
    shown = view.show(whole, window_yx)
    assert shown.shape == (1, 2, *window_yx)
    np.testing.assert_allclose(shown[0, 1], 1, atol=1e-4)  # its margin is all that it looks at
    found, seen = view.restore(shown)[0].numpy()
    covered = coverage(view, window_yx)
    np.testing.assert_allclose(seen, covered, atol=1e-4)
    own = plane(window_yx, window_yx)[0, 0].numpy()
    inside = covered > 1 - 1e-6
    np.testing.assert_allclose(found[inside], own[inside], atol=2e-3)
    assert covered.min() >= 0


def test_it_turns_as_training_does():
    x = torch.rand(1, 1, 9, 9)
    np.testing.assert_allclose(View((), 90.0).show(x, (9, 9))[0, 0], np.rot90(x[0, 0]), atol=1e-5)
    image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
    label = np.zeros((40, 40), np.uint8)
    trained, _ = warp(image, label, pixel_matrix(10.0, 1, (1.0, 2.0)), (8, 8), (24, 24))
    view = View((), 10.0, (1.0, 2.0))
    margin = view.margin_yx((24, 24))
    around = tuple(slice(8 - each, 32 + each) for each in margin)
    shown = view.show(torch.tensor(image[None, :, *around]), (24, 24))
    np.testing.assert_allclose(shown[0], trained, atol=1e-4)


@given(augmentations)
def test_views_are_all_mirrorings_of_all_rotations_the_plain_one_first(augmentation):
    found = augmentation.views((1.5, 1.5))
    assert len(set(found)) == len(found) == augmentation.forwards
    assert (found[0].mirror_axes, found[0].rotation_deg) == ((), 0)
    assert {view.rotation_deg for view in found} == {0, *augmentation.rotation_degrees}
    again = views.TestTimeAugmentation(
        mirror_axes=augmentation.mirror_axes[::-1], rotation_degrees=augmentation.rotation_degrees[::-1]
    )
    assert again == augmentation and again.views((1.5, 1.5)) == found
    assert views.TestTimeAugmentation.model_validate_json(augmentation.model_dump_json()) == augmentation


@given(augmentations, st.lists(trainings, min_size=1, max_size=3))
def test_of_what_several_networks_do_together_each_gets_back_its_own(augmentation, trained):
    own = [augmentation.within(each) for each in trained]
    together = union(own)
    assert [together.within(each) for each in trained] == own
    assert union(own[::-1]) == together
    for each, part in zip(trained, own, strict=True):
        assert set(part.mirror_axes) <= set(each.mirror_axes)
        assert all(abs(angle) <= each.rotation_deg for angle in part.rotation_degrees)
        assert each.rotation_probability or not part.rotation_degrees


@given(st.lists(trainings, min_size=1, max_size=3))
def test_only_what_training_had_is_tried_and_nothing_twice(trained):
    found = allowed(trained)
    assert len(set(found)) == len(found)
    assert NO_AUGMENTATION not in found
    for each in found:
        assert each == union([each.within(settings) for settings in trained])


def test_hearts_that_were_never_mirrored_are_only_turned():
    trained = make_plan().augmentation.model_copy(update={"rotation_deg": 48.0, "rotation_probability": 0.5})
    assert [each.in_words() for each in allowed([trained])] == ["turned by −10° and 10°"]
    mirrored = trained.model_copy(update={"mirror_axes": ("x",)})
    assert [each.in_words() for each in allowed([mirrored])] == [
        "mirrored along x",
        "turned by −10° and 10°",
        "mirrored along x, turned by −10° and 10°",
    ]
    assert AS_MIRRORED_IN_TRAINING.within(mirrored).forwards == 2
    assert NO_AUGMENTATION.in_words() == "none"


@pytest.mark.parametrize("angles", [(0.0,), (60.0,)])
def test_angles_that_make_no_sense_are_refused(angles):
    with pytest.raises(ValidationError, match="expected angles up to 45 either way, none of them 0"):
        views.TestTimeAugmentation(rotation_degrees=angles)
