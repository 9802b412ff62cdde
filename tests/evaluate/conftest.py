"""Scoring in this process: starting others takes longer than so few volumes."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utseg.evaluate.score.INLINE", 100)
        yield
