"""`utseg_export_model` and `utseg_import_model` as they are typed: the same masks in a clean home, exit codes, messages."""

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_models import make_run_folder

from utseg.commands import export_model, import_model, predict

RUN = Path("results/Tiny/auto_2d/UTNet/fold0")
Call = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two folds of UTNet and one of UNet."""
    home = tmp_path_factory.mktemp("ensemble")
    for seed, (model, fold) in enumerate((("UTNet", "fold0"), ("UTNet", "fold1"), ("UNet", "fold0"))):
        folder = make_run_folder(home / "results" / "Tiny", model, fold, seed, mirror_axes=("x",))
        (folder / "validation").mkdir()
        (folder / "validation" / "summary.json").write_text("{}")
    return home


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 900, (41 + number, 30, 3)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([-1.4, 1.4, 9.0, 1.0])), folder / f"p{number}.nii.gz")
    return folder


@pytest.fixture()
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process; returns exit code, the lines of stderr that are errors, and all of stdout and stderr."""

    def run(module: object, *words: object, home: Path) -> tuple[int, list[str], str]:
        code = module.main([*map(str, words), "--home", str(home)])  # type: ignore[attr-defined]
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, errors, captured.out + captured.err

    return run


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [("-m", "UTNet", "UNet"), ("-m", "UTNet", "-f", "fold1", "-pl", "auto")])
def test_an_imported_model_predicts_the_same_bytes_in_a_clean_home(call, ensemble, scans, tmp_path, words):
    archive, clean = tmp_path / "model.zip", tmp_path / "clean"
    assert call(export_model, "-d", "Tiny", "-o", archive, *words, home=ensemble)[0] == 0
    assert call(import_model, archive, home=clean)[:2] == (0, [])
    assert sorted(path.name for path in clean.iterdir()) == ["results"]
    masks = {}
    for home, chosen in ((ensemble, words), (clean, words[:3] if "UNet" in words else ())):
        output = tmp_path / f"out_{home.name}"
        options = ("--device", "cpu", "--save-probabilities")
        code, errors, text = call(predict, "-i", scans, "-o", output, *options, *chosen, home=home)
        assert (code, errors) == (0, [])
        warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
        assert all("should be looked at" in line for line in warnings)  # random weights do not find hearts
        masks[home] = {
            name: data
            for name, data in everything(output).items()
            if name.startswith("p") and "json" not in name
        }
        record = json.loads((output / "prediction.json").read_text())
        masks[home]["models"] = json.dumps(record["models"]).encode()
    assert len(masks[clean]) == 5
    assert masks[clean] == masks[ensemble]


def test_what_the_commands_say(call, tiny_model, tmp_path):
    archive = tmp_path / "model.zip"
    code, _, said = call(export_model, "-o", archive, "--licence", "MIT", home=tiny_model)
    assert code == 0 and "without the names of the cases" in said and "no licence" not in said
    code, _, said = call(import_model, archive, home=tmp_path / "clean")
    assert code == 0 and "licence: MIT" in said
    weights = RUN / "model.safetensors"
    assert (tmp_path / "clean" / weights).read_bytes() == (tiny_model / weights).read_bytes()


@pytest.fixture(scope="module")
def archive(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.zip"
    assert export_model.main(["-o", str(path), "--quiet", "--home", str(tiny_model)]) == 0
    return path


def test_the_same_model_exports_to_the_same_archive(call, tiny_model, archive, tmp_path):
    assert call(export_model, "-o", tmp_path / "again.zip", home=tiny_model)[0] == 0
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_a_model_without_licence_is_exported_with_a_warning(call, tiny_model, tmp_path):
    code, errors, text = call(export_model, "-o", tmp_path / "a.zip", home=tiny_model)
    assert (code, errors) == (0, [])
    assert "no licence is stated" in text
    assert text.count("has no scores that can be read") == 1


def test_force_replaces_the_model_with_all_of_its_runs(call, ensemble, archive, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(ensemble, home)
    unet = everything(home / "results/Tiny/auto_2d/UNet")
    before = everything(home)
    code, errors, _ = call(import_model, archive, home=home)
    assert (code, len(errors)) == (1, 1)
    assert "Tiny/auto_2d/UTNet: there already, with 2 runs; --force" in errors[0]
    assert everything(home) == before
    assert call(import_model, archive, "--force", home=home)[:2] == (0, [])
    assert sorted(path.name for path in (home / RUN).parent.iterdir() if path.is_dir()) == ["fold0"]
    with zipfile.ZipFile(archive) as content:
        weights = content.read("auto_2d/UTNet/fold0/model.safetensors")
    assert (home / RUN / "model.safetensors").read_bytes() == weights
    assert everything(home / "results/Tiny/auto_2d/UNet") == unet


def test_as_imports_under_another_name(call, archive, tmp_path):
    home = tmp_path / "home"
    assert call(import_model, archive, "--as", "Theirs", home=home)[0] == 0
    assert [path.name for path in (home / "results").iterdir()] == ["Theirs"]
    for name in ("../Theirs", "", ".Theirs", "a/b", "a\\b"):
        code, errors, _ = call(import_model, archive, "--as", name, home=home)
        assert (code, len(errors)) == (2, 1), name


@pytest.mark.parametrize("name", ["../evil", "/evil", "C:\\evil", "auto_2d/UTNet/fold0/evil"])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFLNK])
def test_a_hostile_archive_is_one_line_and_nothing_is_written(call, archive, tmp_path, name, kind):
    path = tmp_path / "evil.zip"
    shutil.copy(archive, path)
    info = zipfile.ZipInfo("x")
    info.filename, info.create_system, info.external_attr = name, 3, (kind | 0o777) << 16
    with zipfile.ZipFile(path, "a") as content:
        content.writestr(info, b"/etc/passwd")
    before = everything(tmp_path)
    for words in ((), ("--force",), ("--as", "Other")):
        code, errors, _ = call(import_model, path, *words, home=tmp_path / "home")
        assert (code, len(errors)) == (1, 1)
        assert str(path) in errors[0]
    assert everything(tmp_path) == before
    assert not (tmp_path / "home").exists()


def test_what_there_is_not(call, tiny_model, ensemble, archive, tmp_path):
    code, errors, _ = call(import_model, tmp_path / "nowhere.zip", home=tmp_path / "home")
    assert code == 1 and "no such file" in errors[0]
    code, errors, _ = call(export_model, "-o", tmp_path / "a.zip", home=tmp_path / "home")
    assert code == 1 and "run utseg_train first" in errors[0]
    code, errors, _ = call(export_model, "-o", tmp_path / "a.zip", "-f", "fold4", home=tiny_model)
    assert code == 1 and "trained: fold0" in errors[0]
    code, errors, _ = call(export_model, "-o", tmp_path / "a.zip", home=ensemble)
    assert code == 2 and "choose one or more with -m" in errors[0]
    code, errors, _ = call(export_model, "-o", tmp_path / "a.zip", "--licence", "\x1b[2J", home=tiny_model)
    assert code == 2 and "--licence" in errors[0]
    assert not list(tmp_path.iterdir())
