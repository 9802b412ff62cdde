"""A first look finds the window that shows everything, or says that there is none."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from utseg.inference.focus import find_focus, looked_at
from utseg.inference.grid import windows_per_slice
from utseg.inference.views import AS_MIRRORED_IN_TRAINING
from utseg.inference.windows import predict_volumes

PATCH = (16, 20)
BACKGROUND, STRUCTURE = -9.0, 9.0


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.tuples(st.integers(2, PATCH[0]), st.integers(2, PATCH[1])),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.floats(0.05, 1),
)
def test_a_structure_that_fits_is_seen_whole_wherever_it_lies(size, extent, where, weight):
    seen = np.zeros(size)
    extent = [min(pair) for pair in zip(extent, size, strict=True)]
    start = [round(share * (a - b)) for share, a, b in zip(where, size, extent, strict=True)]
    seen[start[0] : start[0] + extent[0], start[1] : start[1] + extent[1]] = 0.3
    seen[start[0] : start[0] + 1, start[1] : start[1] + extent[1]] = weight  # one end of it shows more often
    seen[0, -1] += 0.2  # an island that is outweighed
    focus = find_focus(seen, PATCH)
    assert focus is not None
    for first, window, begin, length, side in zip(focus, PATCH, start, extent, size, strict=True):
        assert first <= begin and begin + length <= first + window
        assert (first >= 0 and first + window <= side) or side <= window


def test_no_window_is_found_where_nothing_is_or_half_of_it_is_elsewhere():
    seen = np.zeros((60, 60))
    assert find_focus(seen, PATCH) is None
    seen[5:10, 5:10] = seen[45:50, 45:50] = 1
    assert find_focus(seen, PATCH) is None


def test_no_window_is_found_for_one_structure_that_is_larger():
    seen = np.zeros((60, 60))
    seen[20:40, 20:40] = 1
    assert find_focus(seen, PATCH) is None


@pytest.mark.parametrize("slices", range(1, 9))
def test_the_first_look_skips_no_more_than_two_slices(slices):
    found = range(slices)[looked_at(slices)]
    assert found[0] <= 1 and all(b - a == 3 for a, b in pairwise(found))
    assert slices - 1 - found[-1] <= 2


class Bright(nn.Module):
    """Class 1 where a pixel is bright, by so much; counts the windows that it is shown."""

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness, self.windows = sharpness, 0

    def main_logits(self, x: Tensor) -> Tensor:
        self.windows += len(x)
        return torch.cat([torch.zeros_like(x), x * self.sharpness, torch.full_like(x, -9.0)], 1)


def predicted(networks, image, *, focus):
    (volume,) = all_predicted(networks, [image], focus=focus)
    return volume


def all_predicted(networks, images, *, focus, cines=None):
    return predict_volumes(
        networks,
        images,
        patch_size=PATCH,
        batch_size=4,
        num_classes=3,
        device=torch.device("cpu"),
        step_size=0.5,
        focus=focus,
        views=AS_MIRRORED_IN_TRAINING.views((1.0, 1.0)),
        cines=cines,
    )


def volume_with(*corners_yx: tuple[int, int]) -> np.ndarray:
    """A block of 6 × 7 pixels at each corner, on all of seven slices."""
    image = np.full((1, 7, 50, 64), BACKGROUND, np.float32)
    for y, x in corners_yx:
        image[..., y : y + 6, x : x + 7] = STRUCTURE
    return image


def test_one_window_gives_what_windows_everywhere_give_and_background_beside_it():
    image = volume_with((31, 12))
    everywhere, focused = Bright(), Bright()
    expected = predicted([everywhere], image, focus=False)
    found = predicted([focused], image, focus=True)
    np.testing.assert_allclose(found.probabilities_KZYX, expected.probabilities_KZYX, atol=3e-4)
    assert (found.probabilities_KZYX[0] == 1).sum() == 7 * (50 * 64 - 16 * 20)
    assert (focused.windows, everywhere.windows) == (4 * (7 + 2 * 16), 4 * 7 * 36)
    assert windows_per_slice((50, 64), PATCH, 0.5) == 36
    assert windows_per_slice((50, 64), PATCH, 0.5, focus=True) == 1 + 16 / 3


def test_members_agree_beside_the_window():
    image = volume_with((31, 12))
    networks = [Bright(0.1), Bright(0.3)]
    found = predicted(networks, image, focus=True)
    inside = np.zeros(image.shape[2:], bool)
    inside[(found.probabilities_KZYX[0, 0] != 1)] = True
    ours = [
        1 / (1 + np.exp(image[0] * network.sharpness) + np.exp(-9.0))
        for network in networks
        for _ in range(4)
    ]
    background = [np.where(inside, p, 1) for p in ours]
    expected = sum(float((p.astype(np.float64) ** 2).sum()) for p in background)
    pairs = ((sum(background) ** 2).sum() - expected) / 2
    assert found.agreement.squares_K[0] == pytest.approx(expected, rel=1e-5)
    assert found.agreement.products_K[0] == pytest.approx(pairs, rel=1e-5)


def test_windows_are_everywhere_where_one_would_miss_half():
    image = volume_with((2, 2), (40, 50))
    expected = predicted([Bright()], image, focus=False)
    found = predicted([Bright()], image, focus=True)
    np.testing.assert_array_equal(found.probabilities_KZYX, expected.probabilities_KZYX)


@pytest.mark.parametrize("block", [np.s_[:, 0, 14:34, 10:40], np.s_[:, :, 20:26, 15:36]])
def test_what_the_window_would_cut_is_predicted_everywhere(block):
    """Larger than a window on a slice that no first look sees, or one column wider on all."""
    image = volume_with((20, 20))
    image[block] = STRUCTURE
    expected = predicted([Bright()], image, focus=False)
    found = predicted([Bright()], image, focus=True)
    np.testing.assert_array_equal(found.probabilities_KZYX, expected.probabilities_KZYX)


def test_a_speck_at_the_rim_of_the_window_brings_no_windows_everywhere():
    image = volume_with((20, 20))
    alone = predicted([Bright()], image, focus=True).probabilities_KZYX
    (first, *_, last) = np.flatnonzero((alone[0, 0] != 1).any(1))
    image[0, 0, last, 22] = STRUCTURE
    found = predicted([Bright()], image, focus=True).probabilities_KZYX
    assert first > 0 and last < 49 and found[1, 0, last, 22] > 0.5
    np.testing.assert_array_equal(found[0] != 1, alone[0] != 1)


def test_frames_of_a_cine_share_the_window_of_the_first_until_a_structure_reaches_its_rim():
    """A look at 2 of 7 slices by 16 windows, 7 windows of the volume itself; each in four views."""
    near, far, grown = volume_with((31, 12)), volume_with((8, 40)), volume_with((31, 12), (31, 18), (31, 21))
    frames = [near, near, grown, far, far, far, far]
    network, windows = Bright(), []
    found = []
    for each in all_predicted([network], frames, focus=True, cines=["a", "a", "a", "a", "a", "b", None]):
        found.append(each)
        windows.append(network.windows // 4 - sum(windows))
    look, volume = 2 * 16, 7
    again = volume + look + volume  # through the known window first
    assert windows == [look + volume, volume, again, again, volume, look + volume, look + volume]
    for frame, each in zip(frames, found, strict=True):
        alone = predicted([Bright()], frame, focus=True)
        np.testing.assert_array_equal(each.probabilities_KZYX, alone.probabilities_KZYX)
