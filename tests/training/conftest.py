"""What whole runs of this room need: one thread, and no time for pictures, which `test_log` draws."""

from collections.abc import Iterator

import pytest
from threads import one_thread  # noqa: F401 — used by being there


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """`progress.png` is empty: drawing it takes as long as a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utseg.training.log.draw_progress", lambda history: b"")
        yield
