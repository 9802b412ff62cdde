"""Takes an archive of models into the results folder: everything is verified before anything is written.

The archive is read twice: once to verify, once to copy, and each file is checked against the manifest both times.
"""

from dataclasses import dataclass
from pathlib import Path

from utseg.archive.container import open_archive
from utseg.archive.manifest import CARD_FILE, Manifest
from utseg.archive.place import IMPORTED_FILE, already_there, existing_models, place, recover, write_stream
from utseg.archive.verify import as_json, copy_checked, verify
from utseg.errors import UsageError
from utseg.rawdata.names import name_problem


@dataclass(frozen=True)
class Imported:
    """What came: the manifest, and the folders of the runs."""

    manifest: Manifest
    runs: tuple[Path, ...]


def import_model(path: Path, results: Path, *, dataset: str | None = None, force: bool = False) -> Imported:
    """Imports an archive of `export_model` into `results`; its models are then found as any that were trained there.

    dataset: the name to import it under; else the one that it was trained on. force: replace models that are there, all of their runs.
    Raises InputError, one line, for an archive that is not sound in every part, and where a model is there already; nothing is
    written then. A disk that fails is a UtsegError, and leaves everything as it was.
    """
    if dataset is not None and (problem := name_problem(dataset)):
        raise UsageError(f"--as {dataset!r}: {problem}")
    with open_archive(path) as archive:
        manifest = verify(archive)
        name = dataset or manifest.dataset
        if results.is_dir():
            recover(results)
        if not force and (there := existing_models(results, name, manifest.models)):
            raise already_there(results, [results / name / model for model in there])

        def write(folder: Path) -> None:
            for file in sorted(manifest.files):
                if file != CARD_FILE:
                    write_stream(folder / file, copy_checked(archive, manifest, file))
            for model in manifest.models:
                write_stream(folder / model / CARD_FILE, copy_checked(archive, manifest, CARD_FILE))
                write_stream(folder / model / IMPORTED_FILE, [as_json(manifest.model_dump(mode="json"))])

        place(results, name, manifest.models, write, force=force)
    return Imported(manifest, tuple(results / name / member.name for member in manifest.members))
