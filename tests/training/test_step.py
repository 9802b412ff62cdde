"""One step: the precision of each kind of device, and float16 with scaled losses."""

import math

import numpy as np
import pytest
import torch
from networks.small import build_flat
from torch._dynamo.exc import TorchDynamoException

from utseg.augment.loader import Batch
from utseg.errors import UtsegError
from utseg.training import step
from utseg.training.optimizer import make_optimizer
from utseg.training.recipe import find_recipe
from utseg.training.step import LossNotFinite, Sums, in_words, make_scaler, train_step, training_precision

CPU = torch.device("cpu")
RECIPE = find_recipe("UNet")


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    image_BCHW = rng.standard_normal((2, 1, 16, 16), dtype=np.float32)
    return Batch(image_BCHW, rng.integers(0, 4, (2, 16, 16), dtype=np.uint8), ("a/000", "b/001"), 0)


def stepped(batch, amp, scale=None):
    """A network after a step from a fixed start, what the step returned, and its scaler."""
    recipe = RECIPE.model_copy(update={"amp": amp})
    network = build_flat("UNet", aux_loss=True).train()
    optimizer = make_optimizer(network, recipe.optimizer, pretrained=False)
    scaler = make_scaler(amp, CPU)
    if scale is not None:
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale})
    return network, train_step(network, optimizer, batch, recipe, CPU, scaler=scaler), scaler


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")],
    ids=["Ampere and later", "Volta, Turing", "before"],
)
def test_a_gpu_computes_in_the_shortest_that_it_has_instructions_for(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda", 0)
    assert training_precision("auto", cuda) == expected
    assert training_precision("off", cuda) == "float32"
    assert (make_scaler("auto", torch.device("cpu")) is None) and make_scaler("float16", CPU) is not None


def test_a_float16_step_is_the_float32_one_but_for_rounding(batch):
    plain, (loss, terms, norm), _ = stepped(batch, "off")
    scaled, (their_loss, their_terms, their_norm), scaler = stepped(batch, "float16")
    assert their_loss == pytest.approx(loss, rel=5e-3) and their_norm == pytest.approx(norm, rel=2e-2)
    assert their_terms == pytest.approx(terms, rel=5e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(plain.parameters(), start(), strict=True)])
    error = torch.cat(
        [(a - b).flatten() for a, b in zip(plain.parameters(), scaled.parameters(), strict=True)]
    )
    assert 0 < error.norm() < 0.15 * moved.norm()
    assert scaler.get_scale() == 2**16


def start():
    return build_flat("UNet", aux_loss=True).parameters()


def test_a_gradient_too_large_for_float16_is_not_stepped_on_and_scaled_less_the_next_time(batch):
    network, (loss, terms, norm), scaler = stepped(batch, "float16", scale=2.0**40)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), start(), strict=True))
    assert math.isfinite(loss) and not math.isfinite(norm)
    assert scaler.get_scale() == 2**39
    sums = Sums()
    sums.add(loss, terms, norm, 1)
    sums.add(loss, terms, 3.0, 1)
    assert (sums.iterations, sums.skipped, sums.gradient_norm) == (2, 1, 3.0)


def test_a_loss_that_is_not_finite_is_no_matter_of_scale(batch):
    batch.image_BCHW[0, 0, 3, 3] = np.inf
    with pytest.raises(LossNotFinite, match="the loss is not finite"):
        stepped(batch, "float16")


def test_a_gradient_that_is_not_finite_even_unscaled_ends_training(batch):
    recipe = RECIPE.model_copy(update={"amp": "float16"})
    network = build_flat("UNet", aux_loss=True).train()
    next(network.parameters()).register_hook(lambda gradient: gradient * np.inf)
    optimizer, scaler = (
        make_optimizer(network, recipe.optimizer, pretrained=False),
        make_scaler("float16", CPU),
    )
    with pytest.raises(LossNotFinite, match=r"norm of the gradient of the loss is not finite \((nan|inf)\)"):
        for _ in range(30):
            train_step(network, optimizer, batch, recipe, CPU, scaler=scaler)
    assert scaler.get_scale() == 0.5


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_too_little_memory_is_said_with_what_to_do(batch, error):
    class Hungry(torch.nn.Module):
        def forward(self, x_BCHW):
            raise error

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    with pytest.raises(
        UtsegError, match=r"cpu has not the memory for a step on a batch of 2 × 1 × 16 × 16 .*batch_size"
    ):
        train_step(Hungry(), optimizer, batch, RECIPE, CPU)


@pytest.mark.parametrize("where", ["to_device", "add_gradients", "clip_grad_norm_", "read", "step"])
def test_memory_may_run_out_anywhere_in_a_step(batch, monkeypatch, where):
    def hungry(*words):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = build_flat("UNet", aux_loss=True).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    homes = {"clip_grad_norm_": torch.nn.utils, "step": optimizer}
    monkeypatch.setattr(homes.get(where, step), where, hungry)
    with pytest.raises(UtsegError, match="cpu has not the memory for a step"):
        train_step(network, optimizer, batch, RECIPE, CPU, total=lambda part: part)


def test_compiled_in_place_a_network_takes_the_same_step_by_the_same_names(batch):
    plain, (loss, *_), _ = stepped(batch, "off")
    network = build_flat("UNet", aux_loss=True).train()
    network.compile(backend="eager")  # traced as by any other backend
    optimizer = make_optimizer(network, RECIPE.optimizer, pretrained=False)
    recipe = RECIPE.model_copy(update={"amp": "off"})
    assert train_step(network, optimizer, batch, recipe, CPU)[0] == pytest.approx(loss, rel=1e-5)
    assert list(network.state_dict()) == list(plain.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], msg=name)


def test_what_torch_cannot_compile_is_one_line(batch):
    said = in_words(TorchDynamoException("no compiler\nmore of it"), CPU, batch)
    assert str(said) == "--compile: torch cannot compile the network (no compiler); train without it"
    assert in_words(RuntimeError("of another kind"), CPU, batch) is None
