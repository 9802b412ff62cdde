"""Fixtures that rooms import into their conftest, and with it use: one thread for tiny networks, no time for pictures."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than such small arrays, most of all on a busy machine."""
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
