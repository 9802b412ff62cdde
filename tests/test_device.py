"""Which precision a processor is best at."""

import pytest
import torch

from utseg.device import best_precision, has_instructions
from utseg.training.step import training_precision

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
