"""Fixtures that all rooms share. Tests that use real scans or golden numbers skip, with a reason, where those are not there."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "2")
for moved in ("UTSEG_HOME", "UTSEG_RAW", "UTSEG_PREPROCESSED", "UTSEG_RESULTS"):
    os.environ.pop(moved, None)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
settings.register_profile("suite", max_examples=30, deadline=None)
settings.load_profile("suite")
PROJECT = Path(__file__).parents[1]
# What takes longest is begun first: begun last, it would keep one worker busy and leave the others idle.
BEGUN_FIRST = (
    "study/test_engines.py",
    "networks/test_contract.py",
    "commands/test_train_torchrun.py",
    "selection/",
    "commands/test_networks.py",
    "walk/",
    "commands/test_plan_and_preprocess.py",
    "demo/",
)
# A room whose fixtures of a session take seconds: in one worker they are made once.
IN_ONE_WORKER = "tests/selection/"


def pytest_xdist_auto_num_workers() -> int:
    """Give the number of workers of `--numprocesses auto`: one more than cores, as tests of whole commands also wait."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Make the scheduler of `--dist loadscope`: a test file is one worker's, and a whole room is."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class RoomScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return IN_ONE_WORKER if nodeid.startswith(IN_ONE_WORKER) else super()._split_scope(nodeid)

    return RoomScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first; else the order stays."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(PROJECT / "tests").as_posix()
        return next((n for n, start in enumerate(BEGUN_FIRST) if path.startswith(start)), len(BEGUN_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real scans and golden numbers, beside the project."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder with real scans and golden numbers (../shared) is not there")
    return folder


@pytest.fixture(scope="session")
def tiny_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`HOME/raw/Phantom`: twelve synthetic subjects of four vendors, 56 × 56 pixels, 6 slices, 3 frames. Never write there."""
    from utseg.phantom.cohort import make_phantom
    from utseg.phantom.examination import PhantomSettings

    folder = tmp_path_factory.mktemp("home") / "raw" / "Phantom"
    make_phantom(folder, PhantomSettings(subjects=12, frames=3, matrix=56, slices=6), workers=1)
    return folder
