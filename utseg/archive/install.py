"""Puts imported models into the results folder: unpacked and verified in a staging folder, then renamed whole.

A model that is there is replaced only where that is asked for, and comes back where anything fails. A process that is killed while it
replaces one leaves it there, and the next import puts it back.
"""

import errno
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from utseg.archive.manifest import Manifest
from utseg.archive.reading import open_archive, unpack
from utseg.errors import InputError, UsageError, UtsegError, listing
from utseg.files import folder_lock, is_temporary, require_writable
from utseg.rawdata.names import name_problem
from utseg.selection.record import BEST_FILE
from utseg.training.record import RUN_FILE

NEW, OLD = "new", "old"


@dataclass(frozen=True)
class Imported:
    """What came: the manifest, and the folders of the runs."""

    manifest: Manifest
    runs: tuple[Path, ...]


def import_model(path: Path, results: Path, *, dataset: str | None = None, force: bool = False) -> Imported:
    """Imports an archive of `export_model` into `results`; its models are then found as any that were trained there.

    dataset: the name to import it under; else the one that it was trained on. force: replace models that are there, all of their runs.
    Raises InputError, one line, for an archive that is not sound in every part, and where a model is there already. A disk that fails
    is a UtsegError. Everything is as it was then.
    """
    if dataset is not None and (problem := name_problem(dataset)):
        raise UsageError(f"--as {dataset!r}: {problem}")
    with open_archive(path) as archive:
        manifest = archive.manifest
        name = dataset or manifest.dataset
        install(results, name, targets_of(manifest), lambda folder: unpack(archive, folder), force=force)
    return Imported(manifest, tuple(results / name / member.name for member in manifest.members))


def targets_of(manifest: Manifest) -> list[str]:
    """What comes with an archive, below the dataset: its models, and the best.json that chose them."""
    return [*manifest.models, *([BEST_FILE] if manifest.has_best else [])]


def install(
    results: Path, dataset: str, models: Sequence[str], write: Callable[[Path], None], *, force: bool
) -> None:
    """Fills a staging folder by `write`, then moves `models` (PLAN_2d/MODEL, all that is in it, and files) into `results/DATASET`.

    All of them come, or none. Raises InputError where one is there and not `force`; UtsegError where a run of one is being trained, or
    the disk fails. Then everything is as it was before.
    """
    targets = [results / dataset / name for name in models]
    with _staging_folder(results, targets) as staging, ExitStack() as locks:
        try:
            if not force:
                _require_none(results, targets)
            (staging / NEW / dataset).mkdir(parents=True)
            write(staging / NEW / dataset)
            for run in [run for target in targets for run in sorted(target.glob(f"*/{RUN_FILE}")) if force]:
                locks.enter_context(folder_lock(run.parent))
            _move(staging, results, _units(results, targets), force=force)
        except OSError as error:
            raise UtsegError(
                f"{error.filename or results}: could not be written ({error.strerror or error}); nothing was imported"
            ) from error


def recover(results: Path) -> None:
    """Removes the staging folders of killed imports, after putting back the models that it had moved away."""
    for staging in sorted(results.glob(".tmp-*")):
        if is_temporary(staging.name) and staging.is_dir() and not staging.is_symlink():
            with suppress(UtsegError), folder_lock(staging):  # held: another import is at work
                _put_back(staging, results)
                shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _staging_folder(results: Path, targets: Sequence[Path]) -> Iterator[Path]:
    """A folder beside the datasets that is ours alone. It goes in the end, and so do folders that were made for nothing."""
    above = dict.fromkeys(folder for target in targets for folder in target.parents)
    missing = sorted((folder for folder in above if not folder.exists()), reverse=True)  # the deepest first
    staging = results / f".tmp-{uuid.uuid4().hex[:12]}-import"
    try:
        require_writable(results)
        recover(results)
        with folder_lock(staging):
            try:
                yield staging
            finally:
                _put_back(staging, results)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _units(results: Path, targets: Sequence[Path]) -> list[Path]:
    """What is renamed as one: a dataset or a plan that is not there yet, with all its models, else each model."""

    def unit(target: Path) -> Path:
        above = (
            folder
            for folder in reversed(target.parents)
            if folder.is_relative_to(results) and folder != results
        )
        return next((folder for folder in above if not folder.exists()), target)

    return list(dict.fromkeys(map(unit, targets)))


def _move(staging: Path, results: Path, targets: Sequence[Path], *, force: bool) -> None:
    """Renames each new folder into its target, and before that moves the old one away. Takes that back where one fails."""
    moved: list[tuple[Path, Path]] = []
    try:
        for target in targets:
            new, old = (staging / side / target.relative_to(results) for side in (NEW, OLD))
            if force and _is_there(target):
                old.parent.mkdir(parents=True, exist_ok=True)
                target.rename(old)
            _require_none(results, [target])
            target.parent.mkdir(parents=True, exist_ok=True)
            moved.append((new, target))
            new.rename(target)
    except BaseException as error:
        for new, target in moved:
            if not new.exists():
                target.rename(new)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _already_there(results, [target]) from None  # it came there meanwhile
        raise


def _put_back(staging: Path, results: Path) -> None:
    old_ones = [*(staging / OLD).glob("*/*/*"), *(staging / OLD).glob(f"*/{BEST_FILE}")]
    for old in sorted(old_ones):
        target = results / old.relative_to(staging / OLD)
        if not _is_there(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            old.rename(target)


def _is_there(folder: Path) -> bool:
    return folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()))


def _require_none(results: Path, targets: Sequence[Path]) -> None:
    if there := [target for target in targets if _is_there(target)]:
        raise _already_there(results, there)


def _already_there(results: Path, models: Sequence[Path]) -> InputError:
    names = [str(model.relative_to(results)) for model in models if model.name != BEST_FILE]
    runs = sum(1 for model in models for _ in model.glob(f"*/{RUN_FILE}"))
    replaced = [f"{listing(names)}: there already, with {runs} runs"] if names else []
    if len(names) < len(models):
        replaced.append(
            f"{models[0].relative_to(results).parts[0]}/{BEST_FILE}: there already; it says which of your models utseg_predict follows, "
            "and would be the archive's"
        )
    return InputError(
        f"{results}: {'; '.join(replaced)}; --force replaces all of that, --as NAME imports under another name, utseg_predict --model "
        "takes the archive as it is"
    )
