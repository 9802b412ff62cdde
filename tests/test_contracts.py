"""The direction of imports in `pyproject.toml`: an import against it is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("utseg", "planners", "trainers")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def lint(folder):
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_follow_the_contracts(checkout):
    result = lint(checkout)
    assert result.returncode == 0, result.stdout


AGAINST = {
    "utseg/rawdata/gate.py": "from utseg.planning.plan import Plan",
    "utseg/fingerprint/warnings.py": "from utseg.networks import build_network",
    "utseg/settings.py": "from utseg.rawdata import open_dataset",
    "utseg/rawdata/names.py": "import torch",
    "utseg/predict/run.py": "from planners.auto import plan",
}


def test_imports_against_the_direction_are_refused_and_each_is_named(checkout):
    for file, line in AGAINST.items():
        with (checkout / file).open("a", encoding="utf-8") as handle:
            handle.write(f"\n{line}\n")
    result = lint(checkout)
    assert result.returncode == 1
    for file, line in AGAINST.items():
        importer, imported = file.removesuffix(".py").replace("/", "."), line.split()[1]
        assert f"{importer} -> {imported} (l." in result.stdout, result.stdout
