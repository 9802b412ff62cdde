"""Which precision a processor is best at."""

import pytest
import torch

from utseg.device import best_precision
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
