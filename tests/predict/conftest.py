"""One thread and one process for the tiny networks of this room."""

from collections.abc import Iterator

import pytest
import torch

from utseg.predict import ensemble, pipeline


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than such small arrays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def in_this_process() -> Iterator[None]:
    """Volumes are read and written here: workers take seconds to start. `in_workers` is for what is about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "WITHOUT_POOL", 1000)
        patch.setattr(ensemble, "INLINE", 1000)
        yield


@pytest.fixture
def in_workers(in_this_process: None) -> Iterator[None]:
    """Worker processes, however few volumes there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "WITHOUT_POOL", 0)
        yield
