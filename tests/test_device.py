"""Which precision a processor is best at."""

import pytest
import torch

from utseg.device import (
    best_precision,
    chosen_precision,
    has_instructions,
    precision_to_predict_in,
    resolve_device,
)
from utseg.errors import UsageError
from utseg.training.step import training_precision

MPS = torch.device("mps")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "best"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_training_and_prediction_take_bfloat16_where_the_processor_has_it(monkeypatch, capabilities, best):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert best_precision(CPU) == best
    assert training_precision("auto", CPU) == best
    assert (training_precision("bfloat16", CPU), training_precision("off", CPU)) == ("bfloat16", "float32")


def test_each_gpu_is_asked_for_itself(monkeypatch):
    """A first card without bfloat16 says nothing of a second one."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(7, 5), (9, 0)][device.index])
    turing, hopper = torch.device("cuda", 0), torch.device("cuda", 1)
    assert (best_precision(turing), best_precision(hopper)) == ("float32", "bfloat16")
    assert has_instructions("float16", turing) and not has_instructions("bfloat16", turing)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "found"),
    [
        (True, True, "auto", "cuda"),
        (False, True, "auto", "mps"),
        (False, False, "auto", "cpu"),
        (False, True, "mps", "mps"),
        (False, False, "mps", "--device mps: PyTorch finds no Apple GPU here; use auto or cpu"),
        (False, True, "mps:1", "--device mps:1: PyTorch finds one Apple GPU only here"),
        (True, True, "xpu", "--device xpu: not supported; expected auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_apple_s_gpus_come_after_cuda(monkeypatch, cuda, mps, name, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    if len(found) < 5:
        assert resolve_device(name).type == found
    else:
        with pytest.raises(UsageError, match=found):
            resolve_device(name)


def test_apple_s_gpus_compute_in_float32_only(monkeypatch):
    """Whatever the CPU beside them can."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert (chosen_precision(None, MPS), training_precision("auto", MPS)) == ("float32", "float32")
    with pytest.raises(UsageError, match="bfloat16 on mps: networks compute in float32 there"):
        chosen_precision("bfloat16", MPS)
    with pytest.raises(UsageError, match="--set amp=off"):
        training_precision("bfloat16", MPS)


@pytest.mark.parametrize("asked", ["float16", "auto", "fp16"])
def test_nothing_is_predicted_in_a_precision_that_the_command_does_not_offer(asked):
    with pytest.raises(UsageError, match=f"precision '{asked}': expected float32 or bfloat16"):
        precision_to_predict_in(asked, torch.device("cpu"))
