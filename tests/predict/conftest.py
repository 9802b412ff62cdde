"""One thread and one process for the tiny networks of this room."""

from collections.abc import Iterator

import pytest
from threads import one_thread  # noqa: F401 — used by being there

from utseg.predict import ensemble, pipeline


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
