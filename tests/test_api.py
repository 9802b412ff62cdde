"""`utseg.api` has what every command does, and the commands do it by that."""

import ast
import inspect
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from utseg import api

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
