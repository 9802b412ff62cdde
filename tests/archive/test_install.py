"""Imports that fail or are killed at any step: every model is there whole, old or new, and nothing lies about."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from made_archives import make_finished_run, tree

from utseg.archive import export_model, import_model
from utseg.archive.install import install, recover
from utseg.errors import InputError, UtsegError
from utseg.files import folder_lock

MODELS = ("a_2d/UNet", "a_2d/UTNet")
Files = dict[str, bytes]


def write_models(content: bytes, models: Sequence[str] = MODELS) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for model in models:
            (folder / model / "fold0").mkdir(parents=True)
            (folder / model / "fold0" / "run.json").write_bytes(content)

    return write


def expected(*contents: bytes) -> Files:
    return {f"Tiny/{model}/fold0/run.json": content for model, content in zip(MODELS, contents, strict=True)}


@pytest.fixture()
def results(tmp_path) -> Path:
    return tmp_path / "home" / "results"


def visible(results: Path) -> Files:
    """What is not a lock, which stays behind a replaced run for its trainer."""
    return {name: data for name, data in tree(results).items() if not name.endswith(".lock")}


@pytest.mark.parametrize("there", [[], ["Other/a_2d/UNet"], ["Tiny/b_2d/UNet"], ["Tiny/a_2d/FCN"]])
def test_models_come_beside_what_is_there(results, there):
    for model in there:
        (results / model / "fold0").mkdir(parents=True)
        (results / model / "fold0" / "run.json").write_bytes(b"there")
    before = tree(results)
    install(results, "Tiny", MODELS, write_models(b"new"), force=False)
    assert tree(results) == before | expected(b"new", b"new")


def test_nothing_is_replaced_unless_asked_for(results):
    install(results, "Tiny", MODELS[:1], write_models(b"old", MODELS[:1]), force=False)
    before = tree(results)
    with pytest.raises(InputError, match=r"Tiny/a_2d/UNet: there already, with 1 runs; --force"):
        install(results, "Tiny", MODELS, write_models(b"new"), force=False)
    assert tree(results) == before
    install(results, "Tiny", MODELS, write_models(b"new"), force=True)
    assert visible(results) == expected(b"new", b"new")


def test_a_model_that_came_meanwhile_is_not_replaced(results):
    def write(folder: Path) -> None:
        write_models(b"new")(folder)
        write_models(b"other")(results / "Tiny")

    with pytest.raises(InputError, match="there already"):
        install(results, "Tiny", MODELS, write, force=False)
    assert tree(results) == expected(b"other", b"other")


def test_a_run_that_is_being_trained_is_not_replaced(results):
    install(results, "Tiny", MODELS, write_models(b"old"), force=False)
    with (
        folder_lock(results / "Tiny" / MODELS[1] / "fold0"),
        pytest.raises(UtsegError, match="another run is working there"),
    ):
        install(results, "Tiny", MODELS, write_models(b"new"), force=True)
    assert visible(results) == expected(b"old", b"old")
    assert not list(results.glob(".tmp-*"))


class Renames:
    """Counts renames of folders, and does something at the nth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], None]) -> None:
        self.count = 0
        rename = Path.rename

        def counted(path: Path, target: Path) -> Path:
            self.count += 1
            if self.count == at:
                action()
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", counted)


def fail() -> None:
    raise OSError(5, "Input/output error")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("action", [fail, interrupt])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("old", [True, False])
def test_a_rename_that_fails_leaves_everything_as_it_was(results, monkeypatch, old, at, action):
    if old:
        install(results, "Tiny", MODELS, write_models(b"old"), force=False)
    else:  # so that each model is a rename of its own
        (results / "Tiny" / "a_2d").mkdir(parents=True)
    before = visible(results)
    with monkeypatch.context() as patch:
        renames = Renames(patch, at, action)
        if not old and at > 2:
            install(results, "Tiny", MODELS, write_models(b"new"), force=True)
            assert renames.count == 2
            return
        with pytest.raises((UtsegError, KeyboardInterrupt)):
            install(results, "Tiny", MODELS, write_models(b"new"), force=True)
    assert visible(results) == before
    assert not list(results.glob(".tmp-*"))


@pytest.mark.parametrize("there", ["", "Tiny/c_2d/UNet/fold0"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_at_any_rename_the_same_import_finishes(results, monkeypatch, there, at):
    if there:
        (results / there).mkdir(parents=True)
        (results / there / "run.json").write_bytes(b"there")
    before = visible(results)
    child = os.fork()
    if child == 0:
        Renames(monkeypatch, at, lambda: os._exit(9))
        install(results, "Tiny", MODELS, write_models(b"new"), force=False)
        os._exit(0)
    os.waitpid(child, 0)
    if set(visible(results)) & set(expected(b"", b"")) == set():
        install(results, "Tiny", MODELS, write_models(b"new"), force=False)
    assert visible(results) == before | expected(b"new", b"new")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_at_any_rename_every_model_is_whole_after_the_next_import(results, monkeypatch, at):
    install(results, "Tiny", MODELS, write_models(b"old"), force=False)
    child = os.fork()
    if child == 0:
        Renames(monkeypatch, at, lambda: os._exit(9))
        install(results, "Tiny", MODELS, write_models(b"new"), force=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(results.glob(".tmp-*"))
    recover(results)
    assert not list(results.glob(".tmp-*"))
    found = visible(results)
    assert found.keys() == expected(b"", b"").keys()
    assert set(found.values()) <= {b"old", b"new"}
    install(results, "Tiny", MODELS, write_models(b"new"), force=True)
    assert visible(results) == expected(b"new", b"new")


def test_what_another_import_has_aside_is_left_alone(results):
    aside = results / ".tmp-0123456789ab-Tiny"
    with folder_lock(aside):
        (aside / "new").mkdir()
        recover(results)
        assert (aside / "new").is_dir()
    recover(results)
    assert not aside.exists()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    runs = [make_finished_run(folder / "Tiny", f"fold{k}", seed=k, first=4 * k) for k in range(2)]
    export_model(runs, folder / "ensemble.zip")
    return folder / "ensemble.zip"


class Disk:
    """Is full from the nth file on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
        self.count = 0
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.count += 1
            if self.count >= full_at:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", counted)


@pytest.mark.parametrize("old", [True, False])
def test_a_disk_that_is_full_at_any_file_leaves_everything_as_it_was(ensemble, results, monkeypatch, old):
    if old:
        install(results, "Tiny", ["auto_2d/UTNet"], _write_old, force=False)
    before = visible(results)
    for number in _until_it_works():
        with monkeypatch.context() as patch:
            Disk(patch, number)
            try:
                import_model(ensemble, results, force=True)
            except UtsegError as error:
                assert "No space left on device" in str(error)
                assert visible(results) == before
                assert not list(results.glob(".tmp-*"))
                assert old or not results.parent.exists()
                continue
        break
    assert number > 8  # two runs of three files, card and manifest
    assert "Tiny/auto_2d/UTNet/fold1/run.json" in tree(results)


def _until_it_works() -> Iterator[int]:
    yield from range(1, 60)


def _write_old(folder: Path) -> None:
    (folder / "auto_2d" / "UTNet" / "fold9").mkdir(parents=True)
    (folder / "auto_2d" / "UTNet" / "fold9" / "run.json").write_bytes(b"old")


def test_a_results_folder_that_cannot_be_made(ensemble, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="not writable"):
        import_model(ensemble, tmp_path / "file" / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "Tiny").write_text("a file in the place of the dataset")
    with pytest.raises(InputError):
        import_model(ensemble, tmp_path / "results", force=True)
    assert (tmp_path / "results" / "Tiny").read_text() == "a file in the place of the dataset"
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["Tiny"]


def test_another_name(ensemble, results):
    imported = import_model(ensemble, results, dataset="Theirs")
    assert imported.runs[0] == results / "Theirs" / "auto_2d" / "UTNet" / "fold0"
    assert [path.name for path in results.iterdir()] == ["Theirs"]
    with pytest.raises(InputError, match="Theirs/auto_2d/UTNet: there already, with 2 runs"):
        import_model(ensemble, results, dataset="Theirs")
