"""Joins folders of saved probabilities (`CASE.npz` of `utseg_predict --save-probabilities`) into masks of their mean.

Case by case in worker processes, one member after the other, so that memory grows neither with members nor with cases. Members are summed
in the order of their files' checksums, in float64: the order of the folders changes no bit, and the mean of the same file is that file.
Each probabilities file brings its own geometry; `prediction.json` beside it says which labels, models, images and checksums it belongs to.
Masks are judged as those of utseg_predict are, each folder counting as one member. No network runs here.
"""

import json
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.compute.pool import InlineExecutor, process_pool, run_each
from utseg.errors import ArtefactError, CaseErrors, InputError, UsageError, listing
from utseg.files import DAMAGED_ARRAYS, folder_lock, remove_leftovers, require_writable, seen_from, sha256
from utseg.inference.agreement import Agreement, RunningAgreement, expected_dice
from utseg.inference.views import union
from utseg.label_map import Labels, LabelValue, has_regions
from utseg.labels import class_numbers, decide, members, to_values
from utseg.predict.model import output_order
from utseg.predict.record import (
    PREDICTION_FILE,
    PredictedCase,
    PredictionRecord,
    forget_quality,
    read_record,
    report_quality,
    versions_of,
    write_record,
)
from utseg.predict.stages import Array, probabilities_name, write_probabilities
from utseg.progress import progress
from utseg.quality import (
    CaseQuality,
    QualitySettings,
    assess,
    orientation_doubt,
    with_orientation,
    worst_of_frames,
)
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.names import mask_name
from utseg.rawdata.write import write_mask

logger = logging.getLogger("utseg")
INLINE = 4
"""Up to so many cases are joined in this process: starting others would take longer."""
SUM_WITHIN = 1e-3


@dataclass(frozen=True)
class EnsembleMember:
    """A folder of probabilities and how much it counts. `order`: its channels in the order of the joined labels."""

    folder: Path
    weight: float
    order: tuple[int, ...]


@dataclass(frozen=True)
class Joining:
    """One case to join: `entries` are what each member's record says of it."""

    case_id: str
    members: tuple[EnsembleMember, ...]
    entries: tuple[PredictedCase, ...]
    labels: dict[str, LabelValue]
    output: Path
    save_probabilities: bool


def ensemble_folders(
    folders: Sequence[Path],
    output: Path,
    *,
    weights: Sequence[float] | None = None,
    save_probabilities: bool = False,
    case_ids: Sequence[str] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
) -> PredictionRecord:
    """Writes each case's mask, the likeliest label by the members' mean, with `prediction.json`, and CASE.npz where it is asked for.

    weights: one a folder, above 0; they need not sum to one. case_ids: these cases only; all where left out. A record of earlier cases by
    the same members stays. Raises UsageError for wrong weights and for a folder that is there twice, InputError or ArtefactError where
    folders do not go together (before anything is written), CaseErrors with a line for each case that cannot be joined, after the others
    are written.
    """
    named = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder in folders if named.count(folder.resolve()) > 1]:
        raise UsageError(
            f"{', '.join(twice)}: one folder, which would count as several; name it once, and weigh it by -w"
        )
    weighted = sorted(zip(folders, _checked_weights(weights, len(folders)), strict=True))
    records = [_read_record(folder) for folder, _ in weighted]
    members = [
        EnsembleMember(
            folder, weight, tuple(output_order(records[0], record, we=str(weighted[0][0]), they=str(folder)))
        )
        for (folder, weight), record in zip(weighted, records, strict=True)
    ]
    if output.resolve() in named:
        raise InputError(f"{output}: is one of the folders to join; choose another with -o")
    record = _new_record(members, records)
    joinings = [
        Joining(case_id, tuple(members), entries, record.labels, output, save_probabilities)
        for case_id, entries in _cases(members, records, case_ids).items()
    ]
    wanted = {joining.case_id for joining in joinings}
    require_writable(output)
    with folder_lock(output):
        remove_leftovers(output, recursive=False)
        earlier = read_record(output)
        found = earlier.cases if earlier is not None and earlier.same_provenance(record) else {}
        done = {case_id: entry for case_id, entry in found.items() if case_id not in wanted}
        forget_quality(done, record.labels, output)
        try:
            problems = _join_all(joinings, done, executor, workers)
        finally:
            record = record.model_copy(update={"cases": dict(sorted(done.items()))})
            report_quality(record.cases, record.labels, wanted, output)
            write_record(record, output)  # the last, as what is on record is done
    if problems:
        raise CaseErrors(problems)
    return record


def read_probabilities(path: Path) -> tuple[Array, Geometry]:
    """What `write_probabilities` wrote: (K, Z, Y, X) float32, and where they lie. Raises ArtefactError for a damaged or other file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            geometry = Geometry.from_json(json.loads(str(arrays["geometry"])))
            probabilities_KZYX = geometry.from_file(np.asarray(arrays["probabilities"]))
    except FileNotFoundError:
        raise ArtefactError(f"{path}: not found") from None
    except DAMAGED_ARRAYS as error:
        raise ArtefactError(f"{path}: damaged, or no probabilities of utseg_predict ({error})") from None
    if probabilities_KZYX.dtype != np.float32 or probabilities_KZYX.shape[1:] != geometry.size_zyx:
        raise ArtefactError(
            f"{path}: probabilities are {probabilities_KZYX.dtype} {probabilities_KZYX.shape}, expected float32 of classes and "
            f"{geometry.size_zyx} (z, y, x)"
        )
    return probabilities_KZYX, geometry


def join(joining: Joining) -> PredictedCase:
    """Joins one case, all frames of a cine, and writes it. Raises UtsegError where its members do not lie alike or are damaged."""
    entries = joining.entries
    first, entry = joining.members[0], entries[0]
    files: dict[str, str] = {}
    masks: list[NDArray[np.uint8]] = []
    verdicts: list[CaseQuality] = []
    numbers, members_KN = class_numbers(joining.labels), members(joining.labels)
    for frame in range(entry.frames):
        name = probabilities_name(joining.case_id, frame, entry.frames)
        mean_KZYX, agreement, geometry = _mean(joining, name)
        classes_ZYX = decide(mean_KZYX, joining.labels)
        masks.append(to_values(classes_ZYX, joining.labels))
        dice = expected_dice(mean_KZYX, classes_ZYX, members_KN), agreement.dice(), agreement.members
        verdicts.append(assess(classes_ZYX, geometry.spacing_zyx_mm, numbers, *dice, QualitySettings()))
        if joining.save_probabilities:
            write_probabilities(joining.output / name, mean_KZYX, geometry)
            files[name] = sha256(joining.output / name)
    path = joining.output / mask_name(joining.case_id, next(iter(entry.inputs)))
    for written in write_mask(path, masks[0] if entry.frames == 1 else np.stack(masks), geometry):
        files[written.name] = sha256(written)
    doubts = [orientation_doubt(each.quality) for each in entries]
    return entry.model_copy(
        update={
            "files": files,
            "images": tuple(seen_from(joining.output, first.folder / image) for image in entry.images),
            "warnings": tuple(sorted({warning for each in entries for warning in each.warnings})),
            "quality": with_orientation(worst_of_frames(verdicts), doubts),
            "trained_by": tuple(sorted({name for each in entries for name in each.trained_by})),
        }
    )


def _mean(joining: Joining, name: str) -> tuple[Array, Agreement, Geometry]:
    """The weighted mean of one file of each member, and how far they agree, each counting once; one member in memory at a time.

    Summed in the order of their checksums.
    """
    parts = []
    for member, entry in zip(joining.members, joining.entries, strict=True):
        path, checksum = member.folder / name, entry.files[name]
        if not path.is_file() or sha256(path) != checksum:
            raise ArtefactError(
                f"{path}: missing, or not the file that {PREDICTION_FILE} there lists; predict it again with --save-probabilities"
            )
        parts.append((checksum, member.weight, path, member.order))
    (_, weight, first, order), *others = sorted(parts, key=lambda part: part[:2])
    total, geometry = _checked(first, order, joining.labels)
    agreement = RunningAgreement()
    agreement.add(total)
    sum_KZYX = total.astype(np.float64) * weight
    for _, weight, path, order in others:
        probabilities_KZYX, position = _checked(path, order, joining.labels)
        if differences := position.differences(geometry):
            raise InputError(
                f"case {joining.case_id}: {path} does not lie as {first} does: {'; '.join(differences)}"
            )
        agreement.add(probabilities_KZYX)
        sum_KZYX += weight * probabilities_KZYX.astype(np.float64)
    sum_KZYX /= math.fsum(member.weight for member in joining.members)
    return sum_KZYX.astype(np.float32), agreement.result(), geometry


def _checked(path: Path, order: Sequence[int], labels: Labels) -> tuple[Array, Geometry]:
    """Probabilities with their channels in this order."""
    probabilities_KZYX, geometry = read_probabilities(path)
    if len(probabilities_KZYX) != len(order):
        raise InputError(
            f"{path}: {len(probabilities_KZYX)} classes, expected the {len(order)} of its labels"
        )
    with np.errstate(invalid="ignore"):
        total_ZYX = probabilities_KZYX.max(0) if has_regions(labels) else probabilities_KZYX.sum(0)
        within = total_ZYX.max() <= 1 + SUM_WITHIN and (
            has_regions(labels) or total_ZYX.min() >= 1 - SUM_WITHIN
        )
    if not (within and probabilities_KZYX.min() >= 0):
        expected = "from 0 to 1" if has_regions(labels) else "of 0 or more that sum to 1 over the classes"
        raise InputError(f"{path}: not probabilities: expected values {expected}")
    if list(order) != sorted(order):
        probabilities_KZYX = probabilities_KZYX[list(order)]
    return probabilities_KZYX, geometry


def _checked_weights(weights: Sequence[float] | None, folders: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * folders
    if len(weights) != folders:
        raise UsageError(f"{len(weights)} weights for {folders} folders; give one for each")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise UsageError(f"weight {weight:g}: expected a number above 0")
    return weights


def _read_record(folder: Path) -> PredictionRecord:
    record = read_record(folder)
    if record is None:
        raise InputError(
            f"{folder}: no {PREDICTION_FILE} to be read there; expected a folder of utseg_predict --save-probabilities"
        )
    return record


def _cases(
    members: Sequence[EnsembleMember], records: Sequence[PredictionRecord], case_ids: Sequence[str] | None
) -> dict[str, tuple[PredictedCase, ...]]:
    """The cases to join, and what each record says of them.

    Raises CaseErrors for all that some folder lacks, has without probabilities, or has from other images.
    """
    there = {case_id for record in records for case_id in record.cases}
    wanted = sorted(there if case_ids is None else set(case_ids))
    of = f"of {len(wanted)} cases"
    problems = []
    for member, record in zip(members, records, strict=True):
        lacking = [case_id for case_id in wanted if case_id not in record.cases]
        bare = [c for c in wanted if c in record.cases and not _has_probabilities(c, record.cases[c])]
        if lacking:
            problems.append(f"{member.folder}: {len(lacking)} {of} are not there: {listing(lacking)}")
        if bare:
            problems.append(
                f"{member.folder}: no probabilities of {len(bare)} {of}: {listing(bare)}; predict them again with --save-probabilities"
            )
    if problems:
        raise CaseErrors(problems)
    cases = {case_id: tuple(record.cases[case_id] for record in records) for case_id in wanted}
    for case_id, entries in cases.items():
        images = [([*entry.inputs.values()], entry.frame, entry.frames) for entry in entries]
        problems += [
            f"case {case_id}: {member.folder} was predicted from another image than {members[0].folder}; predict both from the same"
            for member, image in zip(members, images, strict=True)
            if image != images[0]
        ]
    if problems:
        raise CaseErrors(problems)
    if not wanted:
        raise InputError(f"{members[0].folder}: no case is there to join")
    return cases


def _has_probabilities(case_id: str, entry: PredictedCase) -> bool:
    return all(
        probabilities_name(case_id, frame, entry.frames) in entry.files for frame in range(entry.frames)
    )


def _new_record(members: Sequence[EnsembleMember], records: Sequence[PredictionRecord]) -> PredictionRecord:
    whole = math.fsum(member.weight for member in members)
    used = []
    for member, record in zip(members, records, strict=True):
        for model in record.models:
            share = 1 / len(record.models) if model.share is None else model.share
            used.append(model.model_copy(update={"share": share * member.weight / whole}))
    used.sort(key=lambda model: (model.name, model.weights_sha256, model.share or 0.0))
    return PredictionRecord(
        models=tuple(used),
        labels=records[0].labels,
        channel_names=records[0].channel_names,
        test_time_augmentation=union([record.test_time_augmentation for record in records]),
        versions=versions_of("utseg", "numpy", "nibabel"),
        device="cpu",
        cases={},
    )


def _join_all(
    joinings: Sequence[Joining],
    done: dict[str, PredictedCase],
    executor: Executor | None,
    workers: int | None,
) -> list[str]:
    """Joins all cases, notes those that are done, returns what went wrong with the others."""
    problems: list[str] = []
    if executor is not None:
        pool_of: AbstractContextManager[Executor] = nullcontext(executor)
    else:
        pool_of = InlineExecutor() if len(joinings) <= INLINE else process_pool(workers)
    with pool_of as pool, progress("joined", len(joinings)) as advance:
        for outcome in run_each(join, joinings, pool, name=lambda item: item.case_id, workers=workers):
            if outcome.error is not None:
                problems += outcome.error.lines()
            elif outcome.result is not None:
                done[outcome.item.case_id] = outcome.result
            advance()
    return sorted(problems)
