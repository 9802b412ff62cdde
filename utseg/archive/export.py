"""Writes trained runs as one zip. The same runs with the same terms give the same bytes: fixed times, sorted names, nothing packed.

Every run is loaded before the archive is written, and the archive is read as an import would before it gets its name. Checkpoints,
logs, masks and names of cases stay at home (names go along only where that is asked for).
"""

import hashlib
import io
import logging
import shutil
import stat
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import utseg
from utseg.archive.card import model_card
from utseg.archive.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    SUMMARY,
    FileRecord,
    Manifest,
    Member,
    Scores,
    ScoreTable,
    Terms,
    as_json,
)
from utseg.archive.reading import IMPORTED_FILE, open_archive, unpack
from utseg.archive.subjects import count_cohort, known_cases, run_scores, score_tables
from utseg.errors import InputError
from utseg.files import atomic_path, require_writable, scratch_folder
from utseg.selection.record import BEST_FILE, Best, to_hand_on
from utseg.settings import read_model
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, RunRecord, is_finished

logger = logging.getLogger("utseg")
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold


@dataclass(frozen=True)
class _RunToExport:
    """A run to export. `origin`: the manifest that it was imported with, if it is still the same; `scores`: None before its end."""

    name: str
    folder: Path
    record: RunRecord
    weights: FileRecord
    origin: Manifest | None
    scores: Scores | None


def export_model(
    runs: Sequence[Path],
    output: Path,
    *,
    preprocessed: Path | None = None,
    terms: Terms | None = None,
    with_case_ids: bool = False,
    best: Best | None = None,
) -> Manifest:
    """Writes the runs (folders DATASET/PLAN_2d/MODEL/FOLD of one dataset) into the zip `output`, atomically; returns its manifest.

    preprocessed: `preprocessed/NAME`, whose fingerprint knows subjects and groups; without it cases alone are counted. terms: empty ones
    are those that an imported model came with. best: the choice of these runs, which then predict as it says. Raises ArtefactError for
    a damaged run, InputError where runs have other channels or labels, or where `output` is something else than an archive.
    """
    if output.is_dir() or (output.exists() and not zipfile.is_zipfile(output)):
        raise InputError(f"{output}: is there and is no archive; choose another file with -o")
    require_writable(output.absolute().parent)
    chosen = [_load(folder) for folder in sorted(runs)]
    named = with_case_ids and any(run.record.training_cases or run.record.validation_cases for run in chosen)
    left_out = {} if named else {"training_cases": (), "validation_cases": ()}
    small = {f"{run.name}/{RUN_FILE}": as_json(run.record.model_copy(update=left_out)) for run in chosen}
    small |= {f"{run.name}/{SUMMARY}": as_json(run.scores) for run in chosen if run.scores}
    if best:
        best = to_hand_on(best, with_names=named)
        small[BEST_FILE] = as_json(best)
    files = {name: _record_of(data) for name, data in small.items()}
    files |= {f"{run.name}/{WEIGHTS_FILE}": run.weights for run in chosen}
    shape = chosen[0].record.plan.preprocessing
    manifest = Manifest(
        utseg_version=utseg.__version__,
        dataset=chosen[0].folder.absolute().parts[-4],
        labels=shape.labels,
        channel_names=shape.channel_names,
        terms=_merged_terms(terms or Terms(), [run.origin for run in chosen if run.origin]),
        with_case_ids=named,
        has_best=best is not None,
        members=_members(chosen, preprocessed),
        scores=_scores(chosen),
        files=dict(sorted(files.items())),
    )
    card = model_card(manifest, {run.name: run.record for run in chosen}, best).encode()
    manifest = manifest.model_copy(update={"files": manifest.files | {CARD_FILE: _record_of(card)}})
    weights = {f"{run.name}/{WEIGHTS_FILE}": run.folder / WEIGHTS_FILE for run in chosen}
    first = {MANIFEST_FILE: as_json(manifest), CARD_FILE: card}
    with atomic_path(output.absolute(), lambda path: _check(path, output)) as temporary:
        _write_zip(first | dict(sorted((small | weights).items())), temporary)
    return manifest


def _load(folder: Path) -> _RunToExport:
    import torch

    from utseg.predict.model import load_model

    model = load_model(folder, torch.device("cpu"))
    name = "/".join(folder.absolute().parts[-3:])
    weights = FileRecord(size=(folder / WEIGHTS_FILE).stat().st_size, sha256=model.sha256)
    imported = folder.parent / IMPORTED_FILE
    origin = read_model(Manifest, imported) if imported.is_file() else None
    if origin and origin.files.get(f"{name}/{WEIGHTS_FILE}") != weights:
        origin = None
    scores = run_scores(folder) if is_finished(folder) else None
    return _RunToExport(name, folder, model.record, weights, origin, scores)


def _members(runs: Sequence[_RunToExport], preprocessed: Path | None) -> tuple[Member, ...]:
    """Cohorts of an imported run are as it came with them."""
    cases = known_cases(preprocessed) if preprocessed else {}
    members = []
    for run in runs:
        sides = run.record.training_cases, run.record.validation_cases
        training, validation = (count_cohort(case_ids, cases) for case_ids in sides)
        if run.origin and (origin := next((m for m in run.origin.members if m.name == run.name), None)):
            training, validation = origin.training, origin.validation
        members.append(
            Member(name=run.name, training=training, validation=validation, finished=run.scores is not None)
        )
    return tuple(members)


def _merged_terms(terms: Terms, origins: Sequence[Manifest]) -> Terms:
    """What is not given is what the imported models came with, where they agree."""
    given = terms.model_dump()
    for key, text in given.items():
        came = {getattr(origin.terms, key) for origin in origins}
        if not text and len(came) > 1:
            raise InputError(f"the imported models came with different terms; say which holds with --{key}")
        given[key] = text or next(iter(came), "")
    return Terms(**given)


def _scores(runs: Sequence[_RunToExport]) -> tuple[ScoreTable, ...]:
    """By model; tables that came with an imported model stand for the runs that they are of."""
    imported = {run.name for run in runs if run.origin}
    came = {table.runs: table for run in runs if run.origin for table in run.origin.scores}
    tables = [table for names, table in came.items() if names and {*names} <= imported]
    covered = {name for table in tables for name in table.runs}
    by_model: dict[Path, dict[str, tuple[Path, Scores]]] = defaultdict(dict)
    for run in runs:
        if run.scores and run.name not in covered:
            by_model[run.folder.parent][run.name] = run.folder, run.scores
    tables += [table for of_model in by_model.values() for table in score_tables(of_model)]
    return tuple(sorted(tables, key=lambda table: table.runs))


def _record_of(data: bytes) -> FileRecord:
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _check(path: Path, output: Path) -> None:
    with (
        open_archive(path, shown=str(output)) as archive,
        scratch_folder(output.absolute()) as folder,
    ):
        unpack(archive, folder)


def _write_zip(files: Mapping[str, bytes | Path], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, TIME)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = content.stat().st_size if isinstance(content, Path) else len(content)
            source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
            with source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
