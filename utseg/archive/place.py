"""Puts the files of a verified archive where trained models are: written aside, synced, then renamed whole.

A model that is there is replaced only where that is asked for, and comes back where anything fails; a process that is killed while it
replaces leaves it aside, and the next import puts it back. What is in the files is not looked at.
"""

import errno
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from utseg.errors import InputError, UtsegError, listing
from utseg.files import atomic_path, folder_lock, is_temporary
from utseg.runs import RUN_FILE

IMPORTED_FILE = "imported.json"
NEW, OLD = "new", "old"
MODEL_DEPTH = 3
"""DATASET/PLAN_2d/MODEL."""
Write = Callable[[Path], None]


def existing_models(results: Path, dataset: str, models: Sequence[str]) -> list[str]:
    """Those of the models (PLAN_2d/MODEL) that have anything in their folder."""
    return [name for name in models if _is_there(results / dataset / name)]


def place(results: Path, dataset: str, models: Sequence[str], write: Write, *, force: bool) -> None:
    """Fills a folder aside by `write`, then moves `models` (PLAN_2d/MODEL, all that is in it) into `results/DATASET`.

    All of them come, or none. Raises InputError where one is there and not `force`; UtsegError where a run of one is being trained, or
    the disk fails. Then everything is as it was before.
    """
    with _made(results), _aside(results, dataset) as aside:
        new = aside / NEW / dataset
        try:
            new.mkdir(parents=True)
            write(new)
            with ExitStack() as locks:
                if force:
                    _lock_runs(results / dataset, models, locks)
                _move(aside, results, force=force)
        except OSError as error:
            raise UtsegError(
                f"{error.filename or results}: could not be written ({error.strerror or error}); nothing was imported"
            ) from error


def write_stream(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes and syncs a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for data in pieces:
            file.write(data)


def recover(results: Path) -> None:
    """Removes what a killed import left aside, after putting back the models that it had moved away."""
    for aside in sorted(results.glob(".tmp-*")):
        if not (is_temporary(aside.name) and aside.is_dir() and not aside.is_symlink()):
            continue
        with suppress(UtsegError), folder_lock(aside):  # held: another import is at work
            _put_back(aside, results)
            shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, results: Path) -> None:
    for old in sorted((aside / OLD).glob("*/*/*")):
        target = results / old.relative_to(aside / OLD)
        if not _is_there(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            old.rename(target)


def _is_there(folder: Path) -> bool:
    return folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()))


@contextmanager
def _made(results: Path) -> Iterator[None]:
    """The results folder; where it was not there and nothing came into it, it and the ones above it go again."""
    missing = [folder for folder in (results, *results.parents) if not folder.exists()]
    try:
        try:
            results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{results}: not writable ({error.strerror or error}); choose another --home or mend its permissions"
            ) from None
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _aside(results: Path, dataset: str) -> Iterator[Path]:
    """A folder beside the datasets, which is ours alone and goes in the end."""
    recover(results)
    aside = results / f".tmp-{uuid.uuid4().hex[:12]}-{dataset}"
    try:
        with folder_lock(aside):
            try:
                yield aside
            finally:
                _put_back(aside, results)
    except OSError as error:
        raise InputError(
            f"{results}: not writable ({error.strerror or error}); choose another --home or mend its permissions"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _lock_runs(dataset: Path, models: Sequence[str], locks: ExitStack) -> None:
    for name in models:
        for run in sorted((dataset / name).glob(f"*/{RUN_FILE}")):
            locks.enter_context(folder_lock(run.parent))


def _move(aside: Path, results: Path, *, force: bool) -> None:
    """Renames the largest folders that can be: the dataset where it is new, else the plan, else each model."""
    done: list[tuple[Path, Path]] = []
    try:
        for new, target in _moves(aside / NEW, results, 1):
            if _is_there(target):
                if not force:
                    raise already_there(results, [target])
                old = aside / OLD / target.relative_to(results)
                old.parent.mkdir(parents=True, exist_ok=True)
                target.rename(old)
            done.append((new, target))
            new.rename(target)
    except BaseException as error:
        for new, target in reversed(done):
            if not new.exists():
                target.rename(new)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise already_there(results, [done[-1][1]]) from None  # it came there meanwhile
        raise


def already_there(results: Path, models: Sequence[Path]) -> InputError:
    """The refusal to write over models."""
    names = [str(model.relative_to(results)) for model in models]
    runs = sum(1 for model in models for _ in model.glob(f"*/{RUN_FILE}"))
    return InputError(
        f"{results}: {listing(names)}: there already, with {runs} runs; --force replaces all of them, --as NAME imports under another name"
    )


def _moves(new: Path, there: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    for source in sorted(new.iterdir()):
        target = there / source.name
        if depth == MODEL_DEPTH or not target.exists():
            yield source, target
        else:
            yield from _moves(source, target, depth + 1)
