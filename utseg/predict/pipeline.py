"""Cases in, masks out: reading and preprocessing ahead in worker processes, the network here, restoring and writing behind it.

Each stage holds a few volumes at most, so memory does not grow with the number of cases. A case that cannot be read is reported as soon
as that is found, the others are finished, and the error at the end names all that were not. What cannot be written ends the run.

Models that share a preprocessing see the same arrays in the same batches; each further preprocessing (another plan) is a pass of its own
over the volume, averaged on the native grid.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import CaseErrors, Interrupted, UtsegError
from utseg.files import folder_lock, remove_leftovers, require_writable, sha256_json
from utseg.parallel import InlineExecutor, process_pool, run_each
from utseg.planning.plan import Plan
from utseg.postprocess import Postprocessing, check_labels
from utseg.predict.model import LoadedModel, check_same_task
from utseg.predict.overlays import OVERLAYS_FOLDER, OverlayJob, overlay_path, write_overlay
from utseg.predict.record import (
    ENTROPY_FOLDER,
    ModelUse,
    PredictedCase,
    PredictionRecord,
    is_kept,
    read_record,
    report_quality,
    write_record,
)
from utseg.predict.stages import (
    ENTROPY_SUFFIX,
    MASK_SUFFIX,
    PROBABILITIES_SUFFIX,
    Predicted,
    Preprocessed,
    Restored,
    Volume,
    entropy_path,
    prepare,
    restore,
    write_case_entropy,
    write_case_mask,
)
from utseg.predict.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation, union
from utseg.progress import progress
from utseg.quality import CaseQuality, QualitySettings, worst_of_frames
from utseg.rawdata.gate import frame_count

if TYPE_CHECKING:
    import torch

    from utseg.predict.windows import PredictedVolume

logger = logging.getLogger("utseg")

WITHOUT_POOL = 2
"""Up to so many volumes are read and written in this process: starting others would take longer."""
SECONDS_BETWEEN_RECORDS = 5.0
PICTURES_AHEAD = 100
"""So many overlays may wait for a worker before the network waits for them: each is a few names."""


def predict_cases(
    cases: Sequence[Case],
    models: Sequence[LoadedModel],
    output: Path,
    *,
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING,
    save_probabilities: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overlays: bool = False,
    postprocessing: Postprocessing | None = None,
    save_entropy: bool = False,
    quality: QualitySettings | None = None,
) -> list[Path]:
    """Predicts each case with the mean of the models' probabilities; returns the masks' paths, in the order of the cases.

    Writes CASE.nii.gz, uint8, in the geometry of the case's first image (4-D where the case has no frame and its file is a cine),
    `prediction.json`, and with `save_probabilities` CASE.npz (for a cine one a frame). `tta`: the mean is over its views too, of each
    model over those that its training knew. `resume`: masks that are there are kept where input, models, views and mask are those of
    `prediction.json`; else masks of the same names are replaced, each at once. `overlays`: pictures of all masks, kept ones too, as
    overlays/CASE.png. `postprocessing`: done to each mask before it is written, not to probabilities. `save_entropy`: the entropy of each
    voxel's probabilities, from 0 to 1, as entropy/CASE_entropy.nii.gz. `quality`: limits by which every mask is judged (`utseg.quality`),
    and not changed: verdicts are in `prediction.json` and `quality.csv`, the log names the cases that a person should look at. Labels of
    the cases are not read.

    Raises CaseErrors with a line for each unusable case after the others are written, InputError where models do not go together or
    the folder is not writable, UtsegError where another run holds the folder or a mask cannot be written, Interrupted on Ctrl-C and
    SIGTERM (as the commands set it), with what is done on record.
    """
    folders = {output: True, output / OVERLAYS_FOLDER: overlays, output / ENTROPY_FOLDER: save_entropy}
    for folder in (folder for folder, wanted in folders.items() if wanted):
        require_writable(folder)
    check_same_task(models)
    postprocessing = postprocessing or Postprocessing()
    check_labels(postprocessing, models[0].record.plan.labels)
    with folder_lock(output):
        for folder in folders:
            remove_leftovers(folder, recursive=False)
        record = _new_record(models, tta, postprocessing)
        run = _Run(output, record, save_probabilities, overlays, save_entropy)
        todo = run.start(cases, resume)
        # In the order of their checksums: sums of probabilities are then the same, bit for bit, in whatever order models are named.
        groups = _group_by_preprocessing(sorted(models, key=lambda model: model.sha256), tta)
        volumes = list(run.volumes(todo, tuple(group[0].record.plan for group in groups)))
        counts = len(volumes), len(todo), len(models)
        logger.info("predicting %d volumes of %d cases with %d models on %s", *counts, record.device)
        try:
            with (
                _executor(len(volumes) + len(run.kept) * overlays, workers) as executor,
                progress("predicted", len(volumes)) as advance,
            ):
                _work(run, volumes, groups, executor, advance, tta, quality or QualitySettings())
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {run.number_done} of {len(cases)} masks; run again with --resume to go on"
            ) from None
        finally:
            run.write_record()
            run.report_quality()
    return run.masks(cases)


def _executor(tasks: int, workers: int | None) -> AbstractContextManager[Executor]:
    return nullcontext(InlineExecutor()) if tasks <= WITHOUT_POOL else process_pool(workers)


def _work(
    run: "_Run",
    volumes: Sequence[Volume],
    groups: Sequence[Sequence[LoadedModel]],
    executor: Executor,
    advance: Callable[[], None],
    tta: TestTimeAugmentation,
    quality: QualitySettings,
) -> None:
    """Moves all volumes through the three stages, and has pictures made behind them."""

    def preprocessed() -> Iterator[Preprocessed]:
        for outcome in run_each(prepare, volumes, executor, name=lambda volume: volume.name):
            if outcome.error is not None:
                run.fail(outcome.item.case, outcome.error)
            elif outcome.result is not None and not run.has_failed(outcome.item.case):
                yield outcome.result
                continue
            advance()

    def predicted() -> Iterator[Predicted]:
        sources, *streams = tee(preprocessed(), len(groups) + 1)
        results = [
            _group_probabilities(group, number, stream, tta)
            for number, (group, stream) in enumerate(zip(groups, streams, strict=True))
        ]
        members = tuple(len(group) for group in groups)
        for source, *found in zip(sources, *results, strict=True):
            yield Predicted(
                replace(source, images=()),
                tuple(each.probabilities_KZYX for each in found),
                members,
                tuple(each.agreement for each in found),
                run.output,
                run.save_probabilities,
                run.save_entropy,
                quality,
                run.record.postprocessing,
            )

    restored = run_each(
        restore, predicted(), executor, name=lambda item: item.source.volume.name, costly_items=True
    )

    def pictures() -> Iterator[OverlayJob]:
        for outcome in restored:
            if outcome.error is not None:
                raise outcome.error
            assert outcome.result is not None
            if run.add(outcome.result):
                yield from run.overlay_jobs(outcome.result.source.volume.case)
            advance()
        for case in run.kept:
            yield from run.overlay_jobs(case)

    for drawn in run_each(
        write_overlay, pictures(), executor, name=lambda job: job.case.case_id, workers=PICTURES_AHEAD
    ):
        if drawn.error is not None:
            raise drawn.error


def _group_probabilities(
    group: Sequence[LoadedModel], number: int, stream: Iterator[Preprocessed], tta: TestTimeAugmentation
) -> "Iterator[PredictedVolume]":
    """The probabilities of all volumes by the models of one preprocessing."""
    from utseg.predict.windows import default_batch_size, predict_volumes

    plan = group[0].record.plan
    device = _device(group)
    return predict_volumes(
        [model.network for model in group],
        (source.images[number] for source in stream),
        patch_size=plan.patch_size,
        batch_size=default_batch_size(plan.patch_size, device),
        num_classes=plan.num_classes,
        device=device,
        views=tta.within(plan.augmentation).views(plan.spacing_yx_mm),
    )


def _device(models: Sequence[LoadedModel]) -> "torch.device":
    return next(models[0].network.parameters()).device


def _group_by_preprocessing(
    models: Sequence[LoadedModel], tta: TestTimeAugmentation
) -> list[list[LoadedModel]]:
    """Models whose volumes are resampled, normalised, windowed and viewed in the same way, together."""
    groups: dict[str, list[LoadedModel]] = {}
    for model in models:
        plan: Plan = model.record.plan
        keys = {"spacing_yx_mm", "clip_percentiles", "normalisation", "patch_size", "configuration"}
        views = tta.within(plan.augmentation).model_dump(mode="json")
        same = sha256_json([plan.model_dump(mode="json", include=keys), views])
        groups.setdefault(same, []).append(model)
    return list(groups.values())


def _new_record(
    models: Sequence[LoadedModel], tta: TestTimeAugmentation, postprocessing: Postprocessing
) -> PredictionRecord:
    plan = models[0].record.plan
    used = tuple(
        ModelUse(
            name=model.name,
            network=model.record.network,
            weights_sha256=model.sha256,
            plan_sha256=sha256_json(model.record.plan.model_dump(mode="json")),
        )
        for model in models
    )
    versions = {name: version(name) for name in ("utseg", "torch", "numpy", "SimpleITK", "nibabel")}
    return PredictionRecord(
        models=used,
        labels=plan.labels,
        channel_names=plan.channel_names,
        test_time_augmentation=union([tta.within(model.record.plan.augmentation) for model in models]),
        postprocessing=postprocessing,
        versions={"python": platform.python_version()} | versions,
        device=str(_device(models)),
        cases={},
    )


@dataclass
class _Progress:
    """What is known of one case so far. `masks`, `entropies`: those of a cine's frames, kept until all are there."""

    frames: int
    failed: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    masks: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    entropies: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    qualities: dict[int, CaseQuality] = field(default_factory=dict)
    done: int = 0


class _Run:
    """What became of each case, and `prediction.json`."""

    def __init__(
        self,
        output: Path,
        record: PredictionRecord,
        save_probabilities: bool,
        overlays: bool,
        save_entropy: bool,
    ) -> None:
        self.output = output
        self.record = record
        self.save_probabilities = save_probabilities
        self.overlays = overlays
        self.save_entropy = save_entropy
        self.kept: list[Case] = []
        self.problems: list[str] = []
        self._wanted: set[str] = set()
        self._cases: dict[str, PredictedCase] = {}
        self._progress: dict[str, _Progress] = {}
        self._written = time.monotonic()

    def start(self, cases: Sequence[Case], resume: bool) -> list[Case]:
        """The cases to predict; the others are kept. What the record says of other cases by the same models stays in it."""
        self._wanted = {case.case_id for case in cases}
        earlier = read_record(self.output)
        if earlier is not None and earlier.same_making(self.record):
            self._cases = dict(earlier.cases)
        elif earlier is not None:
            logger.warning(
                "%s: masks there were made by other models or settings; those that stay are no longer listed in its record",
                self.output,
            )
        self.kept = [
            case
            for case in cases
            if resume and is_kept(case, self._cases, self.output, self._suffixes(case.case_id))
        ]
        kept = {case.case_id for case in self.kept}
        todo = [case for case in cases if case.case_id not in kept]
        for case in todo:
            self._cases.pop(case.case_id, None)
        if resume:
            logger.info("%d masks are there and verified, %d are to be made", len(kept), len(todo))
        return todo

    def _suffixes(self, case_id: str) -> tuple[str, ...]:
        """What the files of a finished case end in."""
        probabilities = (PROBABILITIES_SUFFIX,) if self.save_probabilities else ()
        entropy = (f"{ENTROPY_FOLDER}/{case_id}{ENTROPY_SUFFIX}",) if self.save_entropy else ()
        return (MASK_SUFFIX, *probabilities, *entropy)

    def volumes(self, cases: Sequence[Case], plans: tuple[Plan, ...]) -> Iterator[Volume]:
        """A volume for each case, or for each frame of a cine. Reads headers only; a case with an unusable one has failed."""
        for case in cases:
            frames = 1
            if case.frame is None and case.images[0].exists():  # else the gate says what is missing
                try:
                    frames = frame_count(case.images[0])
                except UtsegError as error:
                    self.fail(case, UtsegError(f"case {case.case_id}: {error}"))
                    continue
            self._progress[case.case_id] = _Progress(frames)
            for frame in range(frames):
                yield Volume(case, frame if frames > 1 else case.frame, frames, plans)

    @property
    def number_done(self) -> int:
        """Cases of this run whose masks are there, kept ones included."""
        return len(self._cases.keys() & self._wanted)

    def has_failed(self, case: Case) -> bool:
        return self._progress[case.case_id].failed

    def fail(self, case: Case, error: UtsegError) -> None:
        """Notes why a case cannot be predicted: at once in the log if others go on, and for the end."""
        state = self._progress.setdefault(case.case_id, _Progress(1))
        if state.failed:
            return
        state.failed = True
        state.masks.clear()
        state.entropies.clear()
        self.problems += error.lines()
        if len(self._wanted) > 1:
            for line in error.lines():
                logger.warning("left out: %s", line)

    def add(self, restored: Restored) -> bool:
        """Takes in a finished volume; says whether its case is done. The last one of a cine has its mask written, or raises UtsegError."""
        source = restored.source
        volume = source.volume
        state = self._progress[volume.case.case_id]
        if state.failed:
            return False
        state.done += 1
        state.files |= restored.files
        state.inputs |= source.inputs
        state.qualities[volume.frame or 0] = restored.quality
        for warning in source.warnings:
            if warning not in state.warnings:
                state.warnings.append(warning)
                logger.warning("%s", warning)
        if volume.frames > 1:
            assert volume.frame is not None
            state.masks[volume.frame] = restored.mask_ZYX
            if restored.entropy_ZYX is not None:
                state.entropies[volume.frame] = restored.entropy_ZYX
        if state.done < state.frames:
            return False
        if volume.frames > 1:
            state.files |= write_case_mask(self.output, volume.case, _stacked(state.masks), source.geometry)
            if state.entropies:
                entropy_TZYX = _stacked(state.entropies)
                state.files |= write_case_entropy(self.output, volume.case, entropy_TZYX, source.geometry)
        self._cases[volume.case.case_id] = PredictedCase(
            inputs=state.inputs,
            frame=volume.case.frame,
            frames=volume.frames,
            files=state.files,
            warnings=tuple(state.warnings),
            quality=worst_of_frames([state.qualities[frame] for frame in sorted(state.qualities)]),
        )
        if not self.save_entropy:
            entropy_path(self.output, volume.case.case_id).unlink(missing_ok=True)  # of an earlier mask
        overlay_path(self.output, volume.case.case_id).unlink(missing_ok=True)  # of an earlier mask
        if time.monotonic() - self._written > SECONDS_BETWEEN_RECORDS:
            self.write_record()
        return True

    def overlay_jobs(self, case: Case) -> Iterator[OverlayJob]:
        """The picture of a case whose mask is there, where pictures are wanted."""
        if self.overlays:
            name = f"{case.case_id}{MASK_SUFFIX}"
            checksum = self._cases[case.case_id].files[name]
            yield OverlayJob(case, self.output / name, checksum, self.record.labels)

    def write_record(self) -> None:
        """Writes `prediction.json` as far as it is known; a disk that is full is a warning here, the masks say it as an error."""
        self._written = time.monotonic()
        record = self.record.model_copy(update={"cases": dict(sorted(self._cases.items()))})
        try:
            write_record(record, self.output)
        except UtsegError as error:
            logger.warning("%s", error)

    def masks(self, cases: Sequence[Case]) -> list[Path]:
        """The masks' paths. Raises CaseErrors where some could not be made."""
        if self.problems:
            raise CaseErrors(self.problems)
        logger.info("%d masks are in %s", len(cases), self.output)
        return [self.output / f"{case.case_id}{MASK_SUFFIX}" for case in cases]

    def report_quality(self) -> None:
        """Writes `quality.csv` about all cases on record, and says which of this run's should be looked at."""
        report_quality(self._cases, self.record.labels, self._wanted, self.output)


def _stacked(frames: dict[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Frames in order, (T, Z, Y, X); they are given up."""
    stacked_TZYX = np.stack([frames[frame] for frame in sorted(frames)])
    frames.clear()
    return stacked_TZYX
