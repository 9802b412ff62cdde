"""`utseg.api` has what every command does, and the commands do it by that."""

import ast
import inspect
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from rawfiles import make_mnms

from utseg import api
from utseg.errors import InputError, UsageError
from utseg.files import write_json
from utseg.home import PLAN_FILE
from utseg.training.request import TrainRequest

ROOT = Path(__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
COMMANDS = {script.removeprefix("utseg_"): entry.partition(":")[0] for script, entry in SCRIPTS.items()}
SHOWS_THE_COMMANDS = "demo"


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {SHOWS_THE_COMMANDS}))
def test_every_command_is_a_typed_and_documented_function(command):
    function = getattr(api, command)
    assert command in api.__all__
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    given = [parameter.annotation for parameter in signature.parameters.values()]
    assert inspect.Signature.empty not in (*given, signature.return_annotation)
    source = ast.parse(inspect.getsource(import_module(COMMANDS[command])))
    used = {
        getattr(getattr(import_module(node.module), alias.name, None), "__module__", None)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("utseg.")
        for alias in node.names
    }
    assert function.__module__ in used, f"{COMMANDS[command]} does something else than utseg.api.{command}"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The requests that reach the trainer of a planned dataset, which does nothing."""
    requests: list[TrainRequest] = []
    monkeypatch.setattr("utseg.steps.training.find_trainer", lambda model: requests.append)
    folder = tmp_path / "preprocessed" / "Tiny" / "auto_2d"
    folder.mkdir(parents=True)
    write_json(folder / PLAN_FILE, {})
    return requests


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validate": True, "epochs": 3, "settings": {"batch_size": 3}}, "leave out --epochs, --set"),
        ({"resume": True, "overwrite": True}, "resume and overwrite: leave one out"),
        ({"resume": True, "validate": True}, "resume and validate: leave one out"),
        ({"epochs": 3, "max_time_s": 60}, "epochs and max_time_s: leave one out"),
        ({"epochs": 0}, "epochs: expected a whole number from 1 "),
        ({"epochs": -1}, "epochs: expected a whole number from 1 "),
        ({"epochs": 1.5}, "epochs: expected a whole number from 1 "),
        ({"patience": -1}, "patience: expected a whole number from 1 "),
        ({"seed": -1}, "seed: expected a whole number from 0 "),
        ({"workers": -1}, "workers: expected a whole number from 0 "),
        ({"max_time_s": float("nan")}, "max_time_s: expected seconds above 0, found nan"),
        ({"max_time_s": 0}, "max_time_s: expected seconds above 0, found 0"),
    ],
)
def test_train_refuses_what_the_command_refuses(tmp_path, asked, options, said):
    with pytest.raises(UsageError, match=said):
        api.train("2d", "fold0", home=tmp_path, **options)
    assert not asked


def test_train_takes_weights_by_their_path_in_words(tmp_path, asked):
    api.train("2d", "fold0", home=tmp_path, weights=str(tmp_path / "a.pth"))
    assert [request.weights for request in asked] == [tmp_path / "a.pth"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"until": "fingerprints"}, "until 'fingerprints': expected one of fingerprint, plan, slices"),
        ({"until": "fingerprint", "dry_run": True}, "leave one out"),
        ({"memory_gb": 0}, "memory_gb: expected a number above 0, found 0"),
        ({"memory_gb": float("nan")}, "memory_gb: expected a number above 0, found nan"),
    ],
)
def test_planning_refuses_what_the_command_refuses(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        api.plan_and_preprocess("Tiny", home=tmp_path, **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("step", [api.evaluate, api.measure])
def test_labels_are_checked_as_those_that_are_typed(tmp_path, step):
    words = (tmp_path / "references", tmp_path / "out") if step is api.evaluate else (tmp_path / "out",)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.nii.gz").touch()
    with pytest.raises(UsageError, match="a value is there twice"):
        step(tmp_path / "masks", *words, labels={"LV": 1, "MYO": 2, "RV": 2})
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_a_raw_dataset(tmp_path):
    """As the commands refuse it, before anything else is looked at."""
    raw = make_mnms(tmp_path / "raw" / "MnM")
    inside, files = raw / "Training" / "masks", {*raw.rglob("*")}
    steps = {
        "predict": lambda: api.predict(raw / "Testing", inside, api.ModelChoice(home=tmp_path)),
        "evaluate": lambda: api.evaluate(tmp_path / "masks", raw, inside),
        "measure": lambda: api.measure(tmp_path / "masks", inside),
        "report": lambda: api.report([tmp_path / "scores"], inside / "report.html"),
        "study": lambda: api.study("vendors", inside, home=tmp_path),
    }
    for step in steps.values():
        with pytest.raises(InputError, match="lies in the raw dataset"):
            step()
    assert {*raw.rglob("*")} == files


@pytest.mark.parametrize("options", [{"parallel": 0}, {"max_time_s": -1}, {"max_time_s": float("nan")}])
def test_a_study_refuses_what_the_command_refuses(tmp_path, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}: expected"):
        api.study("vendors", tmp_path / "out", home=tmp_path, **options)


@pytest.mark.parametrize("options", [{"tta_subjects": -1}, {"models": "UNet"}, {"planners": "auto"}])
def test_a_selection_refuses_what_the_command_refuses(tmp_path, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))}: expected"):
        api.find_best_configuration(home=tmp_path, **options)


def test_a_report_of_one_path_is_of_a_list_with_it(tmp_path):
    with pytest.raises(UsageError, match="paths: expected a list"):
        api.report("scores", tmp_path / "report.html")
