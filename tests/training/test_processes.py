"""Several processes as one: shares of a batch, their devices, and nothing of it in a process alone. `test_train_torchrun` has real ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utseg.errors import InputError
from utseg.training.processes import Processes, join_processes
from utseg.training.step import total_of_parts


def several(rank, size):
    return Processes(rank, size, rank, size)


@given(st.integers(1, 16), st.integers(1, 8))
def test_rows_are_shared_out_evenly_and_in_order(size, share):
    rows = [several(rank, size).rows(size * share) for rank in range(size)]
    assert [row for part in rows for row in part] == list(range(size * share))
    assert {len(part) for part in rows} == {share}


@pytest.mark.parametrize(("batch_size", "size"), [(4, 3), (2, 4), (1, 2)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch_size, size):
    with pytest.raises(InputError, match=f"batch_size: {batch_size} slices .* {size} processes"):
        several(0, size).rows(batch_size)


def test_alone_nothing_is_changed():
    processes = join_processes()
    assert (processes.rank, processes.size, processes.total) == (0, 1, None)
    x = torch.randn(3, requires_grad=True)
    assert total_of_parts(None)(x) is x
    assert processes.gather("a") == ["a"] and processes.on_first(lambda: 5) == 5
    with pytest.raises(InputError, match="as it is"), processes.naming_errors():
        processes.fail_together(lambda: (_ for _ in ()).throw(InputError("as it is")))


def test_a_named_gpu_or_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for processes, device in ((several(1, 2), "cuda:1"), (several(2, 3), "cuda")):
        with pytest.raises(InputError, match="which has 2 GPUs"):
            processes.device(torch.device(device))
    assert several(1, 2).device(torch.device("cpu")) == torch.device("cpu")
