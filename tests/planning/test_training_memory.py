"""Counted memory against what real tensors take."""

import time

import pytest
import torch

from utseg.errors import SettingError
from utseg.networks import build_network, count_parameters
from utseg.planning.dry_run import dry_run, measure_step
from utseg.planning.memory import GB, forward_gmac, training_memory

SMALL = {
    "base_channels": 8,
    "levels": 2,
    "block_list": (1, 2),
    "num_blocks": (1, 1),
    "num_heads": (2, 2),
    "reduce_size": 4,
}
SHAPE = {"in_channels": 2, "num_classes": 3, "patch_size": (32, 48)}


def small_figures(batch_size: int):
    return dry_run("UTNet", **SHAPE, batch_size=batch_size, settings=SMALL)


def real_network() -> torch.nn.Module:
    return build_network("UTNet", in_channels=2, num_classes=3, **SMALL)


def test_fake_and_real_tensors_live_alike():
    network = real_network()
    state = dict([*network.named_parameters(), *network.named_buffers()])
    image, target = torch.zeros(2, 2, 32, 48), torch.zeros(2, 32, 48, dtype=torch.long)
    real = measure_step(network, state, image, target)
    fake = small_figures(2)
    assert fake.peak_bytes == pytest.approx(real.peak_bytes, rel=0.02)
    assert (fake.state_bytes, fake.trainable_bytes) == (real.state_bytes, real.trainable_bytes)


def test_the_peak_is_at_least_what_autograd_saves():
    network = real_network()
    lasting = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in lasting:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network(torch.zeros(2, 2, 32, 48))
    held = sum(saved.values())
    assert outputs
    assert held <= small_figures(2).peak_bytes <= 3 * held


def test_activations_grow_with_the_batch_in_proportion():
    two, six = small_figures(2).peak_bytes, small_figures(6).peak_bytes
    assert six == pytest.approx(3 * two, rel=0.03)
    assert six <= 3 * two * 1.001, "the estimate, which scales from two, must not be too small"


def test_parts_add_up_and_parameters_are_exact():
    estimate = training_memory("UTNet", **SHAPE, batch_size=4, settings=SMALL)
    count = count_parameters(real_network())
    assert estimate.gradients_gb == estimate.optimizer_gb == count * 4 / GB
    assert estimate.parameters_gb >= estimate.gradients_gb
    parts = estimate.parameters_gb + estimate.gradients_gb + estimate.optimizer_gb + estimate.activations_gb
    assert estimate.total_gb == pytest.approx(parts)
    assert f"{estimate.activations_gb:.2f} GB" in estimate.describe()


def test_the_published_network_is_as_large_as_known():
    settings = {"base_channels": 32, "levels": 4, "block_list": (1, 2, 3, 4), "aux_loss": True}
    shape = {"in_channels": 1, "num_classes": 4, "patch_size": (256, 256)}
    estimate = training_memory("UTNet", **shape, batch_size=32, settings=settings)
    assert estimate.gradients_gb * GB / 4 == 10_018_500 + 1_804
    assert 6 < estimate.activations_gb < 12
    assert forward_gmac("UTNet", **shape, settings=settings | {"aux_loss": False}) == pytest.approx(
        16.77, abs=0.005
    )


def test_nothing_is_allocated_for_an_absurd_batch():
    started = time.monotonic()
    estimate = training_memory(
        "UTNet", in_channels=1, num_classes=4, patch_size=(2048, 2048), batch_size=1000, settings=SMALL
    )
    assert estimate.total_gb > 500
    assert time.monotonic() - started < 20


def test_other_networks_take_the_settings_that_they_have():
    plain = training_memory("UNet", **SHAPE, batch_size=2, settings=SMALL)
    assert 0 < plain.total_gb < training_memory("UNet", **SHAPE, batch_size=8, settings=SMALL).total_gb


def test_a_wrong_setting_is_refused_in_one_line():
    with pytest.raises(SettingError, match="num_heads"):
        training_memory("UTNet", **SHAPE, batch_size=2, settings=SMALL | {"num_heads": (3, 3)})
