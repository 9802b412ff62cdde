"""Fixtures for commands."""

from pathlib import Path

import pytest
from inprocess import Typed
from threads import no_pictures, one_thread  # noqa: F401 — used by being there
from tiny_models import make_run_folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one trained run of a tiny UTNet; its weights are random."""
    home = tmp_path_factory.mktemp("model")
    folder = make_run_folder(home / "results" / "Tiny", fold="fold0", seed=0)
    (folder / "validation").mkdir()
    (folder / "validation" / "summary.json").write_text("{}")  # the last thing that training writes
    return home


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Commands as they are typed, in this process."""
    return Typed(capfd, monkeypatch)
