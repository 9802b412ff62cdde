"""What whole runs of this room need: one thread, and no time for pictures, which `test_log` draws."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """`progress.png` is empty: drawing it takes as long as a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utseg.training.log.draw_progress", lambda history: b"")
        yield
