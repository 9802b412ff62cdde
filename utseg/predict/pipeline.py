"""Cases in, masks out: reading and preprocessing ahead in worker processes, the network here, restoring and writing behind it.

Each stage holds a few volumes at most, so memory does not grow with the number of cases. A case that cannot be read is reported as soon
as that is found, the others are finished, and the error at the end names all that were not. What cannot be written ends the run.

Models that share a preprocessing see the same arrays in the same batches; each further preprocessing (another plan) is a pass of its own
over the volume, averaged on the native grid.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from utseg.case import Case
from utseg.compute.pool import InlineExecutor, process_pool, run_each
from utseg.compute.threads import Threads
from utseg.device import Precision, precision_to_predict_in
from utseg.errors import Interrupted, number_of
from utseg.files import require_writable, sha256_json
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation, union
from utseg.label_map import has_regions
from utseg.postprocess import Postprocessing, check_labels
from utseg.predict.model import LoadedModel, in_one_numbering, with_windows_everywhere
from utseg.predict.overlays import OverlayJob, write_overlay
from utseg.predict.parts import Part, folder_of_masks
from utseg.predict.record import ModelUse, PredictionRecord, versions_of
from utseg.predict.run import PredictionRun
from utseg.predict.stages import Array, Outputs, Predicted, Preprocessed, Volume, prepare, restore
from utseg.preprocess.neighbours import with_neighbours
from utseg.progress import progress
from utseg.quality import QualitySettings

if TYPE_CHECKING:
    import torch

    from utseg.inference.windows import PredictedVolume

logger = logging.getLogger("utseg")
Item = TypeVar("Item")

WITHOUT_POOL = 2
"""Up to so many volumes are read and written in this process: starting others would take longer."""
PICTURES_AHEAD = 100
"""So many overlays may wait for a worker before the network waits for them: each is a few names."""


def predict_cases(
    cases: Sequence[Case],
    models: Sequence[LoadedModel],
    output: Path,
    *,
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING,
    step_size: float | None = None,
    precision: Precision | None = None,
    save_probabilities: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overlays: bool = False,
    postprocessing: Postprocessing | None = None,
    save_entropy: bool = False,
    quality: QualitySettings | None = None,
    part: Part | None = None,
    model_paths: Sequence[Path] = (),
) -> list[Path]:
    """Predicts each case with the mean of the models' probabilities; returns the masks' paths, in the order of the cases.

    Writes CASE.nii.gz, uint8, in the geometry of the case's first image (4-D where the case has no frame and its file is a cine),
    `prediction.json` and `quality.csv`; the mask of a picture is one in its format. Labels of the cases are not read.
    tta: the mean is over its views too, of each model over those that its training knew.
    step_size: windows lie everywhere, that share of a window from one to the next; None: they lie as each model's plan says.
    precision: what the networks compute in, to which the bits of masks are tied; None: the best that the device has.
    save_probabilities: also CASE.npz (for a cine one a frame). overlays: also overlays/CASE.png, of masks that are kept too.
    save_entropy: also entropy/CASE_entropy.nii.gz, the entropy of each voxel's probabilities from 0 to 1.
    postprocessing: done to each mask before it is written, not to probabilities. quality: the limits by which masks are judged.
    resume: masks are kept where input, models, views and mask are those of `prediction.json`; else they are replaced, each at once.
    part: only its cases are predicted; others may predict theirs into the same folder meanwhile (see `parts.py`).
    model_paths: what the models were named by, for the record.

    Raises CaseErrors with a line for each unusable case after the others are written, InputError where models do not go together or
    the folder is not writable, UtsegError where another run holds the folder or a mask cannot be written, Interrupted on Ctrl-C and
    SIGTERM (as the commands set it), with what is done on record.
    """
    numbered = ready(models, step_size)
    outputs = Outputs(
        output,
        save_probabilities,
        overlays,
        save_entropy,
        postprocessing or Postprocessing(),
        quality or QualitySettings(),
    )
    check_labels(outputs.postprocessing, models[0].record.plan.preprocessing.labels)
    trained: dict[str, frozenset[str]] = {}
    for model in models:  # runs of two homes may have one name
        trained[model.name] = trained.get(model.name, frozenset()) | model.record.seen_scans
    record = _new_record(models, numbered, tta, outputs.postprocessing, precision)
    record = record.model_copy(update={"model_paths": tuple(map(str, model_paths))})
    run = PredictionRun(outputs, record, cases, part, trained)
    for folder in [folder for folder, wanted in run.folders.items() if wanted]:
        require_writable(folder)
    groups = group_by_preprocessing(numbered, tta)
    with folder_of_masks(output, part, list(run.folders), run.join):
        _predict(run, groups, run.start(resume), workers)
    return run.masks()


def ready(models: Sequence[LoadedModel], step_size: float | None) -> list[LoadedModel]:
    """The models with outputs in one numbering, by windows with that step where one is given. Raises InputError, SettingError."""
    numbered = in_one_numbering(models)
    return (
        numbered if step_size is None else [with_windows_everywhere(model, step_size) for model in numbered]
    )


def _predict(
    run: PredictionRun,
    groups: Sequence[Sequence[LoadedModel]],
    todo: Sequence[Case],
    workers: int | None,
) -> None:
    """Predicts the cases that are not kept. What is known is on record whatever happens."""
    volumes = list(run.volumes(todo, tuple(group[0].record.plan.preprocessing for group in groups)))
    logger.info(
        "predicting %s of %s with %s on %s",
        number_of(len(volumes), "volume"),
        number_of(len(todo), "case"),
        number_of(len(run.provenance.models), "model"),
        run.provenance.device,
    )
    tasks = len(volumes) + len(run.kept) * run.outputs.overlays
    try:
        with (
            InlineExecutor() if tasks <= WITHOUT_POOL else process_pool(workers) as executor,
            progress("predicted", len(volumes)) as advance,
        ):
            _work(run, volumes, groups, executor, advance)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after {run.number_done} of {len(run.cases)} masks; run again with --resume to go on"
        ) from None
    finally:
        run.close()


def _work(
    run: PredictionRun,
    volumes: Sequence[Volume],
    groups: Sequence[Sequence[LoadedModel]],
    executor: Executor,
    advance: Callable[[], None],
) -> None:
    """Moves all volumes through the three stages, and has pictures made behind them."""

    def preprocessed() -> Iterator[Preprocessed]:
        # In order, since what a frame of a cine gets depends on the frames before it.
        for outcome in run_each(prepare, volumes, executor, name=lambda volume: volume.name, in_order=True):
            if outcome.error is not None:
                run.fail(outcome.item.case, outcome.error)
            elif outcome.result is not None and not run.has_failed(outcome.item.case):
                yield outcome.result

    restored = run_each(
        restore,
        predictions(
            groups,
            preprocessed(),
            run.provenance.test_time_augmentation,
            run.provenance.precisions[0],
            run.outputs,
        ),
        executor,
        name=lambda item: item.source.volume.name,
        costly_items=True,
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


def predictions(
    groups: Sequence[Sequence[LoadedModel]],
    sources: Iterator[Preprocessed],
    tta: TestTimeAugmentation,
    precision: Precision,
    outputs: Outputs,
) -> Iterator[Predicted]:
    """What the models of all preprocessings say of each volume, one volume after the other; a volume is taken when its turn comes.

    groups: as `group_by_preprocessing` makes them.
    """
    turns: list[deque[Array]] = [deque() for _ in groups]
    cines: list[deque[str | None]] = [deque() for _ in groups]
    members = tuple(len(group) for group in groups)
    # Each group is timed for itself, since its windows and networks are its own.
    threads = [Threads("prediction", adapts=device_of(group).type == "cpu") for group in groups]
    with ExitStack() as stack:
        results = [
            stack.enter_context(
                closing(_group_probabilities(group, _taken(turn), _taken(cine), tta, precision, own))
            )
            for group, turn, cine, own in zip(groups, turns, cines, threads, strict=True)
        ]
        for source in sources:
            found = []
            distance_mm = source.geometry.spacing_zyx_mm[0]
            volume = source.volume
            for group, turn, cine, result, image_CZYX in zip(
                groups, turns, cines, results, source.images, strict=True
            ):
                turn.append(with_neighbours(image_CZYX, group[0].record.plan, distance_mm))
                cine.append(volume.case.case_id if volume.frames > 1 else None)
                found.append(next(result))
            yield Predicted(
                replace(source, images=()),
                tuple(each.probabilities_KZYX for each in found),
                members,
                tuple(each.agreement for each in found),
                outputs,
                tuple(number for each in found for number in each.threads),
            )


def _taken(turn: deque[Item]) -> Iterator[Item]:
    """Each image, or what is said of it, when its turn has come, and no longer held here."""
    while True:
        yield turn.popleft()


def _group_probabilities(
    group: Sequence[LoadedModel],
    images: Iterator[Array],
    cines: Iterator[str | None],
    tta: TestTimeAugmentation,
    precision: Precision,
    threads: Threads,
) -> "Generator[PredictedVolume, None, None]":
    """The probabilities of each image by the models of one preprocessing."""
    from utseg.inference.windows import default_batch_size, predict_volumes
    from utseg.predict.accelerate import folded

    plan = group[0].record.plan
    device = device_of(group)
    with threads:
        yield from predict_volumes(
            [folded(model.network) for model in group],
            images,
            patch_size=plan.patch_size,
            batch_size=default_batch_size(plan.patch_size, device),
            num_classes=plan.num_classes,
            device=device,
            step_size=plan.step_size,
            focus=plan.focus,
            precision=precision,
            views=tta.within(plan.augmentation).views(plan.preprocessing.spacing_yx_mm),
            threads=threads,
            regions=has_regions(plan.preprocessing.labels),
            cines=cines,
        )


def device_of(models: Sequence[LoadedModel]) -> "torch.device":
    """Where the models' networks are."""
    return next(models[0].network.parameters()).device


def group_by_preprocessing(
    models: Sequence[LoadedModel], tta: TestTimeAugmentation
) -> list[list[LoadedModel]]:
    """Models whose volumes are resampled, normalised, shown, windowed and viewed in the same way, together.

    In the order of their checksums: sums of probabilities are then the same, bit for bit, in whatever order models are named.
    """
    groups: dict[str, list[LoadedModel]] = {}
    for model in sorted(models, key=lambda model: model.sha256):
        plan = model.record.plan
        views = tta.within(plan.augmentation).model_dump(mode="json")
        slices = plan.configuration, plan.neighbour_distance_mm
        windows = plan.patch_size, plan.focus, plan.step_size
        same = sha256_json([plan.preprocessing.model_dump(mode="json"), slices, windows, views])
        groups.setdefault(same, []).append(model)
    return list(groups.values())


def _new_record(
    models: Sequence[LoadedModel],
    numbered: Sequence[LoadedModel],
    tta: TestTimeAugmentation,
    postprocessing: Postprocessing,
    precision: Precision | None,
) -> PredictionRecord:
    plan, device = models[0].record.plan, device_of(models)
    used = tuple(
        ModelUse(
            name=model.name,
            network=model.record.plan.network_name,
            weights_sha256=model.sha256,
            plan_sha256=sha256_json(model.record.plan.model_dump(mode="json")),
            checkpoint=model.checkpoint,
            focus=windowed.record.plan.focus,
            step_size=windowed.record.plan.step_size,
            precision=precision_to_predict_in(precision, device),
        )
        for model, windowed in zip(models, numbered, strict=True)
    )
    return PredictionRecord(
        models=used,
        labels=plan.preprocessing.labels,
        channel_names=plan.preprocessing.channel_names,
        test_time_augmentation=union([tta.within(model.record.plan.augmentation) for model in models]),
        postprocessing=postprocessing,
        versions=versions_of("utseg", "torch", "numpy", "SimpleITK", "nibabel"),
        device=str(device),
        cases={},
    )
