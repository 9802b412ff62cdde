"""Joins folders of saved probabilities (`CASE.npz` of `utseg_predict --save-probabilities`) into masks of their mean.

Case by case in worker processes, one member after the other, so that memory grows neither with members nor with cases. Members are summed
in the order of their files' checksums, in float64: the order of the folders changes no bit, and the mean of the same file is that file.
Each probabilities file brings its own geometry; `prediction.json` beside it says which labels, models, images and checksums it belongs to.
Masks are judged as those of utseg_predict are, each folder counting as one member. No network runs here.
"""

import json
import logging
import math
import platform
import zlib
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from utseg.compute.pool import InlineExecutor, process_pool, run_each
from utseg.errors import ArtefactError, CaseErrors, InputError, UsageError, listing
from utseg.files import folder_lock, remove_leftovers, require_writable, sha256
from utseg.inference.agreement import Agreement, RunningAgreement, expected_dice
from utseg.inference.views import union
from utseg.labels import match_labels, same_numbering
from utseg.predict.record import (
    PREDICTION_FILE,
    ModelUse,
    PredictedCase,
    PredictionRecord,
    read_record,
    report_quality,
    write_record,
)
from utseg.predict.stages import MASK_SUFFIX, Array, probabilities_name, write_probabilities
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
from utseg.rawdata.write import write_mask

logger = logging.getLogger("utseg")
INLINE = 4
"""Up to so many cases are joined in this process: starting others would take longer."""
SUM_WITHIN = 1e-3


@dataclass(frozen=True)
class EnsembleMember:
    """A folder of probabilities, what its record says, and how much it counts. `order`: its channels in the order of the joined labels."""

    folder: Path
    record: PredictionRecord
    weight: float
    order: tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """What a member says of one case. `order`: its channels in the order of the joined labels."""

    folder: Path
    weight: float
    order: tuple[int, ...]
    entry: PredictedCase


@dataclass(frozen=True)
class Joining:
    """One case to join."""

    case_id: str
    shares: tuple[Share, ...]
    labels: dict[str, int]
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
    """Writes CASE.nii.gz, the likeliest label by the members' mean, with `prediction.json`, and CASE.npz where it is asked for.

    weights: one a folder, above 0; they need not sum to one. case_ids: these cases only; all where left out. A record of earlier cases by
    the same members stays. Raises UsageError for wrong weights, InputError or ArtefactError where folders do not go together (before
    anything is written), CaseErrors with a line for each case that cannot be joined, after the others are written.
    """
    members = _members(folders, weights)
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(f"{output}: is one of the folders to join; choose another with -o")
    cases = _cases(members, case_ids)
    record = _new_record(members)
    joinings = [
        Joining(
            case_id,
            tuple(
                Share(each.folder, each.weight, each.order, each.record.cases[case_id]) for each in members
            ),
            record.labels,
            output,
            save_probabilities,
        )
        for case_id in cases
    ]
    require_writable(output)
    with folder_lock(output):
        remove_leftovers(output, recursive=False)
        earlier = read_record(output)
        kept = earlier.cases if earlier is not None and earlier.same_provenance(record) else {}
        done = {case_id: entry for case_id, entry in kept.items() if case_id not in cases}
        try:
            problems = _join_all(joinings, done, executor, workers)
        finally:
            record = record.model_copy(update={"cases": dict(sorted(done.items()))})
            write_record(record, output)
            report_quality(record.cases, record.labels, cases, output)
    if problems:
        raise CaseErrors(problems)
    return record


def read_probabilities(path: Path) -> tuple[Array, Geometry]:
    """What `write_probabilities` wrote: (K, Z, Y, X) float32, and where they lie. Raises ArtefactError for a damaged or other file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            geometry = Geometry.from_json(json.loads(str(arrays["geometry"])))
            probabilities_KZYX = geometry.from_file(arrays["probabilities"])
    except FileNotFoundError:
        raise ArtefactError(f"{path}: not found") from None
    except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ArtefactError(f"{path}: damaged, or no probabilities of utseg_predict ({error})") from None
    if probabilities_KZYX.dtype != np.float32 or probabilities_KZYX.shape[1:] != geometry.size_zyx:
        raise ArtefactError(
            f"{path}: probabilities are {probabilities_KZYX.dtype} {probabilities_KZYX.shape}, expected float32 of classes and "
            f"{geometry.size_zyx} (z, y, x)"
        )
    return probabilities_KZYX, geometry


def join(joining: Joining) -> PredictedCase:
    """Joins one case, all frames of a cine, and writes it. Raises UtsegError where its members do not lie alike or are damaged."""
    entries = [share.entry for share in joining.shares]
    entry = entries[0]
    files: dict[str, str] = {}
    masks: list[NDArray[np.uint8]] = []
    verdicts: list[CaseQuality] = []
    for frame in range(entry.frames):
        name = probabilities_name(joining.case_id, frame, entry.frames)
        mean_KZYX, agreement, geometry = _mean(joining, name)
        masks.append(mean_KZYX.argmax(0).astype(np.uint8))
        dice = expected_dice(mean_KZYX, masks[-1]), agreement.dice(), agreement.members
        verdicts.append(assess(masks[-1], geometry.spacing_zyx_mm, joining.labels, *dice, QualitySettings()))
        if joining.save_probabilities:
            write_probabilities(joining.output / name, mean_KZYX, geometry)
            files[name] = sha256(joining.output / name)
    path = joining.output / f"{joining.case_id}{MASK_SUFFIX}"
    write_mask(path, masks[0] if entry.frames == 1 else np.stack(masks), geometry)
    files[path.name] = sha256(path)
    doubts = [orientation_doubt(each.quality) for each in entries]
    return PredictedCase(
        inputs=entry.inputs,
        frame=entry.frame,
        frames=entry.frames,
        files=files,
        warnings=tuple(sorted({warning for each in entries for warning in each.warnings})),
        quality=with_orientation(worst_of_frames(verdicts), doubts),
        scans=entry.scans,
        trained_by=tuple(sorted({name for each in entries for name in each.trained_by})),
    )


def _mean(joining: Joining, name: str) -> tuple[Array, Agreement, Geometry]:
    """The weighted mean of one file of each member, and how far they agree, each counting once; one member in memory at a time.

    Summed in the order of their checksums.
    """
    for share in joining.shares:
        path = share.folder / name
        if not path.is_file() or sha256(path) != share.entry.files[name]:
            raise ArtefactError(
                f"{path}: missing, or not the file that {PREDICTION_FILE} there lists; predict it again with --save-probabilities"
            )
    first, *others = sorted(joining.shares, key=lambda share: (share.entry.files[name], share.weight))
    total, geometry = _checked(first.folder / name, first.order)
    agreement = RunningAgreement()
    agreement.add(total)
    sum_KZYX = total.astype(np.float64) * first.weight
    for share in others:
        probabilities_KZYX, position = _checked(share.folder / name, share.order)
        if differences := position.differences(geometry):
            raise InputError(
                f"case {joining.case_id}: {share.folder / name} does not lie as {first.folder / name} does: {'; '.join(differences)}"
            )
        agreement.add(probabilities_KZYX)
        sum_KZYX += share.weight * probabilities_KZYX.astype(np.float64)
    sum_KZYX /= math.fsum(share.weight for share in joining.shares)
    return sum_KZYX.astype(np.float32), agreement.result(), geometry


def _checked(path: Path, order: Sequence[int]) -> tuple[Array, Geometry]:
    """Probabilities with their channels in this order."""
    probabilities_KZYX, geometry = read_probabilities(path)
    if len(probabilities_KZYX) != len(order):
        raise InputError(
            f"{path}: {len(probabilities_KZYX)} classes, expected the {len(order)} of its labels"
        )
    with np.errstate(invalid="ignore"):
        off = np.abs(probabilities_KZYX.sum(0) - 1).max()
    if not (off <= SUM_WITHIN and probabilities_KZYX.min() >= 0):
        raise InputError(
            f"{path}: not probabilities: expected values of 0 or more that sum to 1 over the classes"
        )
    if list(order) != sorted(order):
        probabilities_KZYX = probabilities_KZYX[list(order)]
    return probabilities_KZYX, geometry


def _members(folders: Sequence[Path], weights: Sequence[float] | None) -> list[EnsembleMember]:
    if weights is not None and len(weights) != len(folders):
        raise UsageError(f"{len(weights)} weights for {len(folders)} folders; give one for each")
    for weight in weights or ():
        if not 0 < weight < math.inf:
            raise UsageError(f"weight {weight:g}: expected a number above 0")
    members: list[EnsembleMember] = []
    for folder, weight in sorted(zip(folders, weights or [1.0] * len(folders), strict=True)):
        record = read_record(folder)
        if record is None:
            raise InputError(
                f"{folder}: no {PREDICTION_FILE} to be read there; expected a folder of utseg_predict --save-probabilities"
            )
        members.append(_numbered_as(members[0] if members else None, folder, record, weight))
    return members


def _numbered_as(
    first: EnsembleMember | None, folder: Path, record: PredictionRecord, weight: float
) -> EnsembleMember:
    """A member that goes with the first one: channels in the order of its labels, matched by name."""
    if first is None:
        return EnsembleMember(folder, record, weight, tuple(range(max(record.labels.values()) + 1)))
    ours, theirs = first.record, record
    if ours.channel_names != theirs.channel_names:
        raise InputError(
            f"{folder} and {first.folder} do not go together: channel_names are {theirs.channel_names} and {ours.channel_names}"
        )
    matching = match_labels(ours.labels, theirs.labels, we=str(first.folder), they=str(folder))
    if not same_numbering(ours.labels, theirs.labels):
        logger.info("%s and %s: labels matched by name: %s", first.folder, folder, matching.in_words())
    return EnsembleMember(folder, record, weight, tuple(matching.channel_order()))


def _cases(members: Sequence[EnsembleMember], case_ids: Sequence[str] | None) -> list[str]:
    """The cases to join. Raises CaseErrors for all that some folder lacks, has without probabilities, or has from other images."""
    there = {case_id for member in members for case_id in member.record.cases}
    wanted = sorted(there if case_ids is None else set(case_ids))
    problems = []
    for member in members:
        found = member.record.cases
        lacking = [case_id for case_id in wanted if case_id not in found]
        bare = [c for c in wanted if c in found and not _has_probabilities(c, found[c])]
        of = f"of {len(wanted)} cases"
        if lacking:
            problems.append(f"{member.folder}: {len(lacking)} {of} are not there: {listing(lacking)}")
        if bare:
            problems.append(
                f"{member.folder}: no probabilities of {len(bare)} {of}: {listing(bare)}; predict them again with --save-probabilities"
            )
    if not problems:
        problems = [problem for case_id in wanted for problem in _other_input(case_id, members)]
    if problems:
        raise CaseErrors(problems)
    if not wanted:
        raise InputError(f"{members[0].folder}: no case is there to join")
    return wanted


def _has_probabilities(case_id: str, entry: PredictedCase) -> bool:
    return all(
        probabilities_name(case_id, frame, entry.frames) in entry.files for frame in range(entry.frames)
    )


def _other_input(case_id: str, members: Sequence[EnsembleMember]) -> list[str]:
    def what(member: EnsembleMember) -> tuple[Any, ...]:
        entry = member.record.cases[case_id]
        return sorted(entry.inputs.values()), entry.frame, entry.frames

    return [
        f"case {case_id}: {member.folder} was predicted from another image than {members[0].folder}; predict both from the same"
        for member in members[1:]
        if what(member) != what(members[0])
    ]


def _new_record(members: Sequence[EnsembleMember]) -> PredictionRecord:
    whole = math.fsum(member.weight for member in members)
    used = [
        model.model_copy(update={"share": _share(model, member) / whole})
        for member in members
        for model in member.record.models
    ]
    used.sort(key=lambda model: (model.name, model.weights_sha256, model.share or 0.0))
    versions = {name: version(name) for name in ("utseg", "numpy", "nibabel")}
    return PredictionRecord(
        models=tuple(used),
        labels=members[0].record.labels,
        channel_names=members[0].record.channel_names,
        test_time_augmentation=union([member.record.test_time_augmentation for member in members]),
        versions={"python": platform.python_version()} | versions,
        device="cpu",
        cases={},
    )


def _share(model: ModelUse, member: EnsembleMember) -> float:
    of_member = 1 / len(member.record.models) if model.share is None else model.share
    return of_member * member.weight


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
