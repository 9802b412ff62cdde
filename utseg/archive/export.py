"""Writes trained runs as one zip. The same runs with the same terms give the same bytes: fixed times, sorted names, nothing packed.

Every run is loaded before the archive is written, and the archive is verified as an import would before it gets its name. Checkpoints,
logs, masks and names of cases stay at home (names go along only where that is asked for).
"""

import hashlib
import io
import logging
import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import utseg
from utseg.archive.card import model_card
from utseg.archive.cohort import count_cohort, known_cases
from utseg.archive.container import open_archive
from utseg.archive.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    SUMMARY,
    Cohort,
    FileRecord,
    Manifest,
    Member,
    Terms,
)
from utseg.archive.place import IMPORTED_FILE
from utseg.archive.scores import Scores, ScoreTable, run_scores, score_tables
from utseg.archive.verify import as_json, verify
from utseg.errors import InputError
from utseg.files import atomic_path, require_writable, sha256
from utseg.planning.settings import read_model
from utseg.runs import RUN_FILE, WEIGHTS_FILE, RunRecord, is_finished, read_run

logger = logging.getLogger("utseg")
TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold."""


@dataclass(frozen=True)
class _Origin:
    """What an imported model came with."""

    terms: Terms
    members: Mapping[str, Member]
    scores: tuple[ScoreTable, ...]


def export_model(
    runs: Sequence[Path],
    output: Path,
    *,
    preprocessed: Path | None = None,
    terms: Terms | None = None,
    with_case_ids: bool = False,
) -> Manifest:
    """Writes the runs (folders DATASET/PLAN_2d/MODEL/FOLD of one dataset) into the zip `output`, atomically; returns its manifest.

    preprocessed: `preprocessed/NAME`, whose fingerprint knows subjects and groups; without it cases alone are counted. terms: empty ones
    are those that an imported model came with. Raises ArtefactError for a damaged run, InputError where runs have other channels or
    labels, or where `output` is something else than an archive.
    """
    _check_output(output)
    folders = {"/".join(run.absolute().parts[-3:]): run for run in sorted(runs)}
    records = {name: _checked_record(run) for name, run in folders.items()}
    by_model = {run.parent: _origin(run.parent) for run in folders.values()}
    origins = {
        name: origin
        for name, run in folders.items()
        if (origin := by_model[run.parent]) is not None and name in origin.members
    }
    cases = known_cases(preprocessed) if preprocessed else {}
    members = []
    for name, record in records.items():
        came = origins[name].members[name] if name in origins else None
        training = came.training if came else count_cohort(record.training_cases, cases)
        validation = came.validation if came else count_cohort(record.validation_cases, cases)
        members.append(_member(name, record, training, validation, finished=is_finished(folders[name])))
    named = with_case_ids and any(
        record.training_cases or record.validation_cases for record in records.values()
    )
    single = {name: run_scores(run) for name, run in folders.items() if is_finished(run)}
    small = _small_files(records, single, with_case_ids=named)
    first = next(iter(records.values()))
    manifest = Manifest(
        utseg_version=utseg.__version__,
        dataset=next(iter(folders.values())).absolute().parts[-4],
        labels=first.plan.labels,
        channel_names=first.plan.channel_names,
        terms=_merged_terms(terms or Terms(), list(origins.values())),
        with_case_ids=named,
        members=tuple(members),
        scores=_scores({name: folders[name] for name in single}, single, origins),
        files=_file_records(folders, small),
    )
    card = model_card(manifest, records).encode()
    small[CARD_FILE] = card
    manifest = manifest.model_copy(update={"files": manifest.files | {CARD_FILE: _record_of(card)}})
    _write(manifest, folders, small, output)
    return manifest


def _check_output(output: Path) -> None:
    if output.is_dir() or (output.exists() and not zipfile.is_zipfile(output)):
        raise InputError(f"{output}: is there and is no archive; choose another file with -o")
    require_writable(output.absolute().parent)


def _checked_record(run: Path) -> RunRecord:
    import torch

    from utseg.predict.model import load_model

    load_model(run, torch.device("cpu"))
    return read_run(run)


def _member(name: str, record: RunRecord, training: Cohort, validation: Cohort, *, finished: bool) -> Member:
    return Member(
        name=name,
        network=record.network,
        selection=record.selection,
        training=training,
        validation=validation,
        finished=finished,
    )


def _origin(model: Path) -> _Origin | None:
    """What stands beside a model that was imported, of those runs that are still the imported ones."""
    if not (model / IMPORTED_FILE).is_file():
        return None
    manifest = read_model(Manifest, model / IMPORTED_FILE)
    members = {
        member.name: member
        for member in manifest.members
        if _is_same(model / Path(member.name).name / WEIGHTS_FILE, manifest, f"{member.name}/{WEIGHTS_FILE}")
    }
    scores = tuple(table for table in manifest.scores if set(table.runs) <= set(members))
    return _Origin(manifest.terms, members, scores) if members else None


def _is_same(weights: Path, manifest: Manifest, name: str) -> bool:
    return weights.is_file() and name in manifest.files and sha256(weights) == manifest.files[name].sha256


def _merged_terms(terms: Terms, origins: Sequence[_Origin]) -> Terms:
    """What is not given is what the imported models came with, where they agree."""
    given = terms.model_dump()
    for key, text in given.items():
        came = {getattr(origin.terms, key) for origin in origins}
        if not text and len(came) > 1:
            raise InputError(f"the imported models came with different terms; say which holds with --{key}")
        given[key] = text or next(iter(came), "")
    return Terms(**given)


def _scores(
    finished: Mapping[str, Path], single: Mapping[str, Scores], origins: Mapping[str, _Origin]
) -> tuple[ScoreTable, ...]:
    known: dict[tuple[str, ...], ScoreTable] = {}
    for origin in origins.values():
        known |= {table.runs: table for table in origin.scores}
    return score_tables(finished, single, list(known.values()))


def _small_files(
    records: Mapping[str, RunRecord], single: Mapping[str, Scores], *, with_case_ids: bool
) -> dict[str, bytes]:
    """Everything but weights, by name in the archive."""
    small: dict[str, bytes] = {}
    for name, record in records.items():
        if not with_case_ids:
            record = record.model_copy(update={"training_cases": (), "validation_cases": ()})
        small[f"{name}/{RUN_FILE}"] = as_json(record.model_dump(mode="json"))
        if name in single:
            small[f"{name}/{SUMMARY}"] = as_json(single[name].model_dump(mode="json"))
    return small


def _file_records(folders: Mapping[str, Path], small: Mapping[str, bytes]) -> dict[str, FileRecord]:
    files = {name: _record_of(data) for name, data in small.items()}
    for name, run in folders.items():
        weights = run / WEIGHTS_FILE
        files[f"{name}/{WEIGHTS_FILE}"] = FileRecord(size=weights.stat().st_size, sha256=sha256(weights))
    return dict(sorted(files.items()))


def _record_of(data: bytes) -> FileRecord:
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _write(manifest: Manifest, folders: Mapping[str, Path], small: Mapping[str, bytes], output: Path) -> None:
    def check(path: Path) -> None:
        with open_archive(path, shown=str(output)) as archive:
            verify(archive)

    first = {MANIFEST_FILE: as_json(manifest.model_dump(mode="json")), CARD_FILE: small[CARD_FILE]}
    with (
        atomic_path(output.absolute(), check) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, data in first.items():
            _add(archive, name, io.BytesIO(data), len(data))
        for name, record in sorted(manifest.files.items()):
            if name in first:
                continue
            run, _, file = name.rpartition("/")
            if file == WEIGHTS_FILE:
                with (folders[run] / WEIGHTS_FILE).open("rb") as weights:
                    _add(archive, name, weights, record.size)
            else:
                _add(archive, name, io.BytesIO(small[name]), record.size)


def _add(archive: zipfile.ZipFile, name: str, source: BinaryIO, size: int) -> None:
    info = zipfile.ZipInfo(name, TIME)
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    with archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
