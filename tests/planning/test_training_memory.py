"""Counted memory against what real tensors take."""

import time
from dataclasses import replace

import pytest
import torch
from plans import make_plan

from utseg.errors import SettingError
from utseg.networks import count_parameters
from utseg.planning.dry_run import dry_run, measure_step
from utseg.planning.memory import (
    GB,
    USABLE_SHARE,
    StepKind,
    forward_gmac,
    largest_batch,
    training_memory,
)
from utseg.planning.task import NetworkTask, for_network, planned_task

SMALL = {
    "base_channels": 8,
    "levels": 1,
    "block_list": (1,),
    "num_blocks": (1,),
    "num_heads": (2,),
    "reduce_size": 4,
}
TASK = NetworkTask("UTNet", 2, 3, (32, 48), 2, SMALL)
SGD = StepKind()


def small_figures(batch_size: int):
    return dry_run(replace(TASK, batch_size=batch_size))


def test_fake_and_real_tensors_live_alike():
    network = TASK.build()
    state = dict([*network.named_parameters(), *network.named_buffers()])
    image, target = torch.zeros(2, 2, 32, 48), torch.zeros(2, 32, 48, dtype=torch.long)
    real = measure_step(network, state, image, target)
    fake = small_figures(2)
    assert fake.peak_bytes == pytest.approx(real.peak_bytes, rel=0.02)
    assert (fake.state_bytes, fake.trainable_bytes) == (real.state_bytes, real.trainable_bytes)


def test_the_peak_is_at_least_what_autograd_saves():
    network = TASK.build()
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
    estimate = training_memory(replace(TASK, batch_size=4), SGD)
    count = count_parameters(TASK.build())
    assert estimate.gradients_gb == estimate.optimizer_gb == count * 4 / GB
    assert estimate.weights_gb >= estimate.gradients_gb
    parts = estimate.weights_gb + estimate.gradients_gb + estimate.optimizer_gb + estimate.activations_gb
    assert estimate.total_gb == pytest.approx(parts)
    assert f"{estimate.activations_gb:.2f} GB" in estimate.in_words()


def test_the_published_network_is_as_large_as_known():
    task = NetworkTask("UTNet", 1, 4, (256, 256), 32, {})
    estimate = training_memory(task, SGD)
    assert estimate.gradients_gb * GB / 4 == 10_018_500 + 1_804
    assert 6 < estimate.activations_gb < 12
    assert forward_gmac(replace(task, settings={"aux_loss": False})) == pytest.approx(16.77, abs=0.005)


def test_nothing_is_allocated_for_an_absurd_batch():
    started = time.monotonic()
    estimate = training_memory(replace(TASK, patch_size=(2048, 2048), batch_size=1000), SGD)
    assert estimate.total_gb > 500
    assert time.monotonic() - started < 20


def test_the_optimizer_the_average_and_the_precision_count():
    sgd = training_memory(TASK, SGD)
    adamw = training_memory(TASK, StepKind("adamw", averaged=True))
    assert adamw.optimizer_gb == 2 * sgd.optimizer_gb and adamw.weights_gb == 2 * sgd.weights_gb
    half = training_memory(TASK, StepKind(precision="bfloat16"))
    assert 0.4 * sgd.activations_gb < half.activations_gb < 0.95 * sgd.activations_gb


@pytest.mark.parametrize("half", [False, True])
def test_the_attention_of_gpus_is_another(half: bool):
    """It holds the position bias of every query and key, which the tiles of CPUs do not."""
    deep = SMALL | {"levels": 2, "block_list": (1, 2), "reduce_size": 16}
    large = replace(TASK, patch_size=(128, 128), settings=deep)
    plain = replace(large, settings=SMALL | {"block_list": ()})
    cpu, gpu = (dry_run(large, half=half, gpu=gpu).peak_bytes for gpu in (False, True))
    assert gpu > cpu
    cpu, gpu = (dry_run(plain, half=half, gpu=gpu).peak_bytes for gpu in (False, True))
    assert gpu == cpu


@pytest.mark.parametrize("step", [1, 2])
def test_the_largest_batch_is_the_last_that_fits(step: int):
    wanted = replace(TASK, batch_size=64)
    allowed = training_memory(replace(TASK, batch_size=11), SGD).total_gb / USABLE_SHARE
    found = largest_batch(wanted, SGD, allowed, step=step)
    assert found == (11 if step == 1 else 10)
    assert largest_batch(wanted, SGD, 1e-6) == 0 and largest_batch(wanted, SGD, 100) == 64


def test_other_networks_take_the_settings_that_they_have():
    plan = for_network(make_plan(network={"base_channels": 8}), "UNet")
    assert plan.network == {"base_channels": 8, "levels": 2}
    task = planned_task(plan)
    assert (
        0 < training_memory(task, SGD).total_gb < training_memory(replace(task, batch_size=8), SGD).total_gb
    )


def test_a_wrong_setting_is_refused_in_one_line():
    with pytest.raises(SettingError, match="num_heads"):
        training_memory(replace(TASK, settings=SMALL | {"num_heads": (3,)}), SGD)
