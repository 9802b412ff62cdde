"""Which precision a processor is best at."""

import pytest
import torch

from utseg.device import best_precision
from utseg.training.step import uses_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "best"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_training_and_prediction_take_bfloat16_where_the_processor_has_it(monkeypatch, capabilities, best):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert best_precision(CPU) == best
    assert uses_bfloat16("auto", CPU) == (best == "bfloat16")
    assert uses_bfloat16("bfloat16", CPU) and not uses_bfloat16("off", CPU)
