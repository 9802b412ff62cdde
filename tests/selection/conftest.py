"""One home of two models and two folds for the whole room, and copies of it to change."""

import shutil
from pathlib import Path

import pytest
from made_folds import make_folds
from threads import one_thread  # noqa: F401 — used by being there

from utseg.commands.find_best_configuration import main as find
from utseg.selection import masks


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting others takes longer than so few volumes."""
    monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 100)
    monkeypatch.setattr("utseg.selection.find.INLINE", 100)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never write there."""
    return make_folds(tmp_path_factory.mktemp("folds") / "home")


@pytest.fixture(scope="session")
def chosen(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the choice was made once, pairs two cases at a time. Leave it as it was."""
    home = Path(shutil.copytree(made, tmp_path_factory.mktemp("chosen") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "CASES_AT_ONCE", 2)
        patch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 100)
        patch.setattr("utseg.selection.find.INLINE", 100)
        assert find(["-d", "Tiny", "--home", str(home), "--device", "cpu", "-np", "1", "--quiet"]) == 0
    return home


@pytest.fixture()
def home(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "home"))
