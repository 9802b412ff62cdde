"""One tiny exported model for the room."""

from pathlib import Path

import pytest
from made_archives import Members, make_finished_run, packed, unpacked
from threads import one_thread  # noqa: F401 — used by being there

from utseg.archive import export_model


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Never write there."""
    return make_finished_run(tmp_path_factory.mktemp("home") / "results" / "Tiny")


@pytest.fixture(scope="package")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its archive. Never write there."""
    path = tmp_path_factory.mktemp("archive") / "model.zip"
    export_model([run_folder], path)
    return path


@pytest.fixture()
def members(exported: Path) -> Members:
    """The files of the archive, to be changed."""
    return unpacked(exported)


@pytest.fixture()
def archive(exported: Path, tmp_path: Path) -> Path:
    """A copy of the archive, to be changed."""
    return packed(tmp_path / "model.zip", unpacked(exported))
