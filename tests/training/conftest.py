"""What whole runs of this room need: one tiny dataset and run, one thread, and no time for pictures, which `test_log` draws."""

import pytest
from threads import no_pictures, one_thread  # noqa: F401 — used by being there
from tiny_runs import make_home, make_request
from whole_runs import RECIPE

from utseg import trainer
from utseg.evaluate.summary import summarise
from utseg.files import write_json
from utseg.trainer import train_by_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"), iterations_per_epoch=3)


@pytest.fixture(scope="module")
def whole(home):
    """An uninterrupted run."""
    request = make_request(home)
    return request.output, train_by_recipe(request, RECIPE)


@pytest.fixture
def no_native_validation(monkeypatch):
    """It takes as long as a tiny run; that of `whole` is there, and `test_trainer` scores others."""

    def empty(run):
        folder = run.request.output / "validation"
        folder.mkdir(exist_ok=True)
        write_json(folder / "summary.json", summarise([], ()))

    monkeypatch.setattr(trainer, "validate_at_native_resolution", empty)
