"""What holds for any network that looks at one pixel at a time: windows, batches, mirroring and padding cannot show in its answer."""

import logging
from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from utseg.errors import UtsegError
from utseg.inference import views, windows
from utseg.inference.grid import GROWTH, gaussian_weights, overlap, weight_sum, window_grid
from utseg.inference.windows import predict_volumes

CPU = torch.device("cpu")


class PixelNetwork(nn.Module):
    """Logits that are a function of the pixel alone: (0, x, 2 − x²) of the first channel."""

    def __init__(self, most: int | None = None, shift: float = 0) -> None:
        super().__init__()
        self.shift = shift
        self.batches: list[tuple[int, ...]] = []
        self.most = most

    def main_logits(self, x: Tensor) -> Tensor:
        assert not self.training
        if self.most is not None and len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(tuple(x.shape))
        x = x + self.shift
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, :1], 2 - x[:, :1] ** 2], 1)


class SumNetwork(nn.Module):
    """Logits that depend on the whole window: its mean, and a ramp that mirroring turns round."""

    def main_logits(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[3]).expand_as(x[:, 0])
        return torch.stack([ramp * 0, ramp * x[:, 0], x.mean((1, 2, 3))[:, None, None].expand_as(ramp)], 1)


def oracle(image_CZYX: np.ndarray, shift: float = 0) -> np.ndarray:
    x = image_CZYX[0].astype(np.float64) + shift
    logits = np.stack([np.zeros_like(x), x, 2 - x**2])
    odds = np.exp(logits - logits.max(0))
    return odds / odds.sum(0)


def predict(networks, images, patch=(16, 16), batch=4, mirror=(), step=0.5):
    found = predicted(networks, images, patch, batch, mirror, step)
    return [volume.probabilities_KZYX for volume in found]


def predicted(networks, images, patch=(16, 16), batch=4, mirror=(), step=0.5, precision="float32"):
    return predict_volumes(
        networks,
        images,
        patch_size=patch,
        batch_size=batch,
        num_classes=3,
        device=CPU,
        step_size=step,
        precision=precision,
        views=views.TestTimeAugmentation(mirror_axes=mirror).views((1.0, 1.0)),
    )


def random_image(seed: int, shape: tuple[int, int, int], channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 50), st.integers(1, 50))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(shapes, max_size=5),
    st.integers(1, 9),
    st.sampled_from([(), ("y",), ("x",), ("y", "x")]),
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.integers(1, 2),
    st.floats(0.1, 1),
)
def test_a_pixelwise_network_gives_the_same_however_it_is_cut(
    image_shapes, batch, mirror, patch, channels, step
):
    images = [random_image(i, shape, channels) for i, shape in enumerate(image_shapes)]
    results = predict([PixelNetwork(), PixelNetwork()], images, patch, batch, mirror, step)
    assert len(results) == len(images)
    for image, result in zip(images, results, strict=True):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, oracle(image), atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(shapes, min_size=1, max_size=3),
    st.integers(1, 9),
    st.sampled_from([(), ("y",), ("y", "x")]),
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.lists(st.floats(-2, 2), min_size=1, max_size=3),
)
def test_the_members_agreement_is_that_of_the_volume_however_it_is_cut(
    image_shapes, batch, mirror, patch, shifts
):
    images = [random_image(i, shape) for i, shape in enumerate(image_shapes)]
    flips = 2 ** len(mirror)
    networks = [PixelNetwork(shift=shift) for shift in shifts]
    for image, volume in zip(images, predicted(networks, images, patch, batch, mirror), strict=True):
        members = np.stack([oracle(image, shift) for shift in shifts for _ in range(flips)])
        agreement = volume.agreement
        assert agreement.members == len(members)
        np.testing.assert_allclose(agreement.squares_K, (members**2).sum((0, 2, 3, 4)), rtol=1e-4)
        pairs = [(a * b).sum((1, 2, 3)) for a, b in combinations(members, 2)]
        expected = np.sum([np.zeros(3), *pairs], 0)
        np.testing.assert_allclose(agreement.products_K, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(8, 128), st.integers(8, 128)),
    st.floats(0.1, 1),
)
def test_windows_cover_every_pixel_within_their_step_and_are_few(size, patch, step):
    grid = window_grid(size, patch, step)
    total = weight_sum(grid)
    assert total.shape == size
    assert total.min() > 0
    seen = np.zeros(size, int)
    for start in grid.starts_yx:
        on_slice, in_window = overlap(grid, start)
        seen[on_slice] += 1
        assert total[on_slice].shape == gaussian_weights(grid.window_yx)[in_window].shape
    assert seen.min() >= 1
    for axis in range(2):
        window = grid.window_yx[axis]
        starts = sorted({start[axis] for start in grid.starts_yx})
        assert patch[axis] <= window <= patch[axis] * (1 + GROWTH)
        assert all(b - a <= window * step + 1 for a, b in pairwise(starts))
        if size[axis] <= window:
            assert len(starts) == 1
        else:
            assert starts[0] == 0
            assert starts[-1] == size[axis] - window
            assert (len(starts) - 2) * max(1, int(window * step)) < size[axis] - window


def test_padding_is_the_minimum_of_the_slice():
    image = random_image(0, (2, 5, 7))
    seen = []

    class Spy(PixelNetwork):
        def main_logits(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return super().main_logits(x)

    predict([Spy()], [image])
    for z in range(2):
        window = seen[0][z, 0].numpy()
        assert window.shape == (16, 16)
        np.testing.assert_array_equal(window[5:10, 4:11], image[0, z])
        window[5:10, 4:11] = image[0, z].min()
        np.testing.assert_array_equal(window, image[0, z].min())


def test_mirroring_is_the_mean_over_flipped_inputs():
    image = random_image(1, (3, 16, 16))
    plain = predict([SumNetwork()], [image])[0]
    flipped = predict([SumNetwork()], [image[..., ::-1].copy()])[0][..., ::-1]
    both = predict([SumNetwork()], [image], mirror=("x",))[0]
    assert not np.allclose(plain, flipped)
    np.testing.assert_allclose(both, (plain + flipped) / 2, atol=1e-6)


def test_several_networks_give_the_mean_of_their_probabilities_in_any_order():
    image = random_image(2, (3, 20, 40))
    one, two = predict([PixelNetwork()], [image])[0], predict([SumNetwork()], [image])[0]
    mean = predict([PixelNetwork(), SumNetwork()], [image])[0]
    np.testing.assert_allclose(mean, (one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(mean, predict([SumNetwork(), PixelNetwork()], [image])[0], atol=1e-6)
    np.testing.assert_allclose(mean.sum(0), 1, atol=1e-5)


def test_batches_are_those_of_one_volume():
    network = PixelNetwork()
    predict([network], [random_image(i, (5, 16, 16)) for i in range(2)], batch=4)
    assert [shape[0] for shape in network.batches] == [4, 1, 4, 1]


def test_what_a_volume_gets_does_not_depend_on_the_volumes_beside_it():
    """To the last bit, which a convolution's answer is not where the batch has another size."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=2))
    network.main_logits = network.forward
    images = [random_image(i, (slices, 30, 40)) for i, slices in enumerate((3, 7, 5))]
    together = predict([network], images, batch=4)
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(predict([network], [image], batch=4)[0], found)


def test_images_are_asked_for_one_by_one():
    given_out = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal given_out
        for i in range(30):
            given_out += 1
            yield random_image(i, (1, 16, 16))

    taken = 0
    for _ in predict_volumes(
        [PixelNetwork()],
        source(),
        patch_size=(16, 16),
        batch_size=4,
        num_classes=3,
        device=CPU,
        step_size=0.5,
    ):
        taken += 1
        assert given_out == taken
    assert taken == 30


def test_running_out_of_memory_halves_the_batch_and_says_so(caplog):
    image = random_image(3, (9, 16, 16))
    network = PixelNetwork(most=2)
    with caplog.at_level(logging.WARNING, logger="utseg"):
        result = predict([network], [image], batch=8)[0]
    np.testing.assert_allclose(result, oracle(image), atol=2e-6)
    assert max(shape[0] for shape in network.batches) == 2
    assert [record.getMessage().partition("going on")[2] for record in caplog.records] == [
        " with 4",
        " with 2",
    ]


def test_no_memory_for_one_slice_is_one_clear_line():
    with pytest.raises(UtsegError, match="not enough memory to predict one slice"):
        predict([PixelNetwork(most=0)], [random_image(3, (2, 16, 16))])


def test_another_error_of_the_network_is_not_taken_for_lack_of_memory():
    class Broken(PixelNetwork):
        def main_logits(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predict([Broken()], [random_image(3, (2, 16, 16))])


@pytest.mark.parametrize("training", [True, False])
def test_networks_are_left_in_the_mode_they_were_in(training):
    network = PixelNetwork().train(training)
    predict([network], [random_image(4, (2, 8, 8))])
    assert network.training is training


def test_a_device_without_memory_for_one_slice_hands_over_to_the_cpu(caplog, monkeypatch):
    original = windows.to_device

    def to_device(array, device):
        if device.type != "cpu":
            raise torch.OutOfMemoryError("out of memory")
        return original(array, device)

    monkeypatch.setattr(windows, "to_device", to_device)
    image, options = random_image(5, (3, 16, 16)), {"batch_size": 2, "num_classes": 3, "step_size": 0.5}
    device = torch.device("mps")
    with caplog.at_level(logging.WARNING, logger="utseg"):
        (result,) = predict_volumes([PixelNetwork()], [image], patch_size=(16, 16), device=device, **options)
    np.testing.assert_allclose(result.probabilities_KZYX, oracle(image), atol=2e-6)
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition("going on")[2] for line in said] == [" with 1", " on the CPU, slowly"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_that_cannot_hold_one_slice_hands_over_to_the_cpu(caplog):
    class CpuOnly(PixelNetwork):
        def main_logits(self, x: Tensor) -> Tensor:
            if x.is_cuda:
                raise torch.OutOfMemoryError("out of memory")
            return super().main_logits(x)

    image = random_image(5, (3, 16, 16))
    with caplog.at_level(logging.WARNING, logger="utseg"):
        results = list(
            predict_volumes(
                [CpuOnly()],
                [image],
                patch_size=(16, 16),
                batch_size=2,
                num_classes=3,
                device=torch.device("cuda"),
                step_size=0.5,
            )
        )
    np.testing.assert_allclose(results[0].probabilities_KZYX, oracle(image), atol=2e-6)
    assert "going on on the CPU" in caplog.text


@pytest.mark.parametrize("around", [True, False])
def test_half_precision_is_the_networks_affair_only(around):
    """Autocast around the whole, as in validation while training: what is made of the logits stays in full precision."""
    image = np.random.default_rng(0).normal(size=(1, 2, 20, 24)).astype(np.float32)
    networks = [PixelNetwork(), PixelNetwork(shift=0.3)]
    (plain,) = predicted(networks, [image], mirror=("x",))
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        precision = "float32" if around else "bfloat16"
        (half,) = predicted(networks, [image], mirror=("x",), precision=precision)
    assert half.probabilities_KZYX.dtype == np.float32
    np.testing.assert_array_equal(half.probabilities_KZYX, plain.probabilities_KZYX)
    for name, value in vars(plain.agreement).items():
        np.testing.assert_array_equal(getattr(half.agreement, name), value)


TURNED = views.TestTimeAugmentation(mirror_axes=("x",), rotation_degrees=(-10, 10))


def turned(networks, image, patch=(16, 16), spacing=(1.0, 1.5), order=1):
    (volume,) = predict_volumes(
        networks,
        [image],
        patch_size=patch,
        batch_size=3,
        num_classes=3,
        device=CPU,
        step_size=0.5,
        views=TURNED.views(spacing)[::order],
    )
    return volume


def smooth_image(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = (np.linspace(-2.2, 2.2, size, dtype=np.float32) for size in shape)
    return (np.exp(-(y[:, None] ** 2) - x**2)[None] * (2 + z[:, None, None] / 3))[None]


@pytest.mark.parametrize("size", [(40, 48), (64, 80), (100, 130)])
def test_turned_views_of_a_pixelwise_network_change_nothing_but_by_interpolation(size):
    """In one window with room, in one that just fits, and in many."""
    image = smooth_image((2, *size))
    networks = [PixelNetwork(), PixelNetwork(shift=0.5)]
    (plain,) = predict(networks, [image], (64, 80))
    found = turned(networks, image, (64, 80))
    np.testing.assert_allclose(found.probabilities_KZYX.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(found.probabilities_KZYX, plain, atol=0.01)
    assert found.agreement.members == 2 * TURNED.forwards


@settings(max_examples=20, deadline=None)
@given(
    shapes, st.tuples(st.integers(4, 24), st.integers(4, 24)), st.tuples(st.floats(0.5, 2), st.floats(0.5, 2))
)
def test_whatever_is_turned_probabilities_sum_to_one_in_any_order(shape, patch, spacing):
    image = random_image(6, shape)
    one = turned([SumNetwork(), PixelNetwork()], image, patch, spacing)
    other = turned([PixelNetwork(), SumNetwork()], image, patch, spacing, order=-1)
    np.testing.assert_allclose(one.probabilities_KZYX.sum(0), 1, atol=1e-5)
    assert one.probabilities_KZYX.min() >= 0
    np.testing.assert_allclose(one.probabilities_KZYX, other.probabilities_KZYX, atol=1e-5)
    np.testing.assert_allclose(one.agreement.products_K, other.agreement.products_K, rtol=1e-3, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(shapes, st.tuples(st.integers(4, 24), st.integers(4, 24)))
def test_members_that_say_the_same_of_all_they_see_agree_wholly(shape, patch):
    class Constant(nn.Module):
        def main_logits(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, -1.0])[:, None, None].expand(len(x), 3, *x.shape[2:])

    found = turned([Constant()], random_image(7, shape), patch)
    constant = torch.tensor([0.0, 1.0, -1.0]).softmax(0).numpy()
    np.testing.assert_allclose(
        found.probabilities_KZYX, np.broadcast_to(constant[:, None, None, None], (3, *shape)), atol=1e-5
    )
    np.testing.assert_allclose(found.agreement.dice(), 1, atol=1e-4)


def test_a_turned_member_is_taken_to_say_of_corners_that_it_did_not_see_what_all_say():
    image = random_image(8, (2, 16, 16))
    networks = [PixelNetwork(), SumNetwork()]
    found = turned(networks, image)
    members, seen = [], []
    for network in networks:
        for view in TURNED.views((1.0, 1.5)):
            margin = view.margin_yx((16, 16))
            lowest = image.min((2, 3), keepdims=True)[0]  # of each slice
            around = np.stack(
                [
                    np.pad(each, [(side, side) for side in margin], constant_values=low.item())
                    for each, low in zip(image[0], lowest, strict=True)
                ]
            )
            logits = network.eval().main_logits(view.show(torch.from_numpy(around[:, None]), (16, 16)))
            members.append(view.restore(logits.softmax(1)).numpy().transpose(1, 0, 2, 3).astype(np.float64))
            seen.append(views.coverage(view, (16, 16)))
    mean = np.sum(members, 0) / np.sum(seen, 0)
    completed = np.stack([member + (1 - part) * mean for member, part in zip(members, seen, strict=True)])
    assert np.min(seen) == 0
    np.testing.assert_allclose(completed.mean(0), mean, atol=1e-9)
    np.testing.assert_allclose(found.probabilities_KZYX, mean, atol=1e-5)
    np.testing.assert_allclose(found.agreement.squares_K, (completed**2).sum((0, 2, 3, 4)), rtol=1e-4)
    pairs = np.sum([(a * b).sum((1, 2, 3)) for a, b in combinations(completed, 2)], 0)
    np.testing.assert_allclose(found.agreement.products_K, pairs, rtol=1e-4)


def test_only_the_network_computes_in_half_precision():
    network = nn.Sequential(nn.Conv2d(1, 3, 1))
    seen = []
    network.main_logits = lambda x: seen.append(network(x)) or seen[-1]
    (found,) = predicted([network], [random_image(6, (2, 16, 16))], precision="bfloat16")
    assert seen[0].dtype == torch.bfloat16
    np.testing.assert_allclose(found.probabilities_KZYX.sum(0), 1, atol=1e-6)
