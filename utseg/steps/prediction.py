"""`predict`: images in files to masks in files, as `utseg_predict`."""

import logging
from pathlib import Path

from utseg.device import Precision, resolve_device
from utseg.errors import CaseErrors, UsageError
from utseg.files import require_writable
from utseg.home import FilePath
from utseg.inference.views import NO_AUGMENTATION
from utseg.predict.inputs import (
    Inputs,
    check_output,
    find_inputs,
    holds_dicom,
    require_dicom_sources,
)
from utseg.predict.model import load_model
from utseg.predict.parts import Part
from utseg.predict.pipeline import predict_cases
from utseg.rawdata import require_outside_datasets
from utseg.steps.choice import ChosenModels, ModelChoice, chosen_models
from utseg.steps.dicom import import_on_the_way, write_segmentations
from utseg.training.record import read_run

logger = logging.getLogger("utseg")


def predict(
    images: FilePath,
    output: FilePath,
    choice: ModelChoice | None = None,
    *,
    tta: bool = True,
    step_size: float | None = None,
    precision: Precision | None = None,
    save_probabilities: bool = False,
    overlays: bool = False,
    save_entropy: bool = False,
    device: str = "auto",
    resume: bool = False,
    part: Part | None = None,
    workers: int | None = None,
    dicom_seg: bool = False,
) -> list[Path]:
    """Segments images with the models of the choice; returns the masks' paths, `output`/CASE.nii.gz in the geometry of each image.

    images: an image, a cine file, a folder of images, a raw dataset, or a folder of DICOM, whose cines are written into `output`/images
    first. choice: the only trained models, or those of best.json, where nothing is said. tta: False shows the networks the image as it is
    only. device: auto, cpu, cuda, cuda:N or mps. dicom_seg: also `output`/dicom/CINE_seg.dcm, of cines that come from DICOM. The rest,
    and what is written, as of `predict_cases`. Raises what that, `chosen_models`, `find_inputs` and `import_dicom` raise.
    """
    choice, images, output = choice or ModelChoice(), Path(images), Path(output)
    require_outside_datasets(output)
    with chosen_models(choice) as chosen:
        where = resolve_device(device)  # refused before a folder is made, or DICOM imported
        inputs, problems = _inputs_or_import(
            chosen, images, output, dicom_seg=dicom_seg, resume=resume, part=part, workers=workers
        )
        models = [load_model(run, where, choice.checkpoint) for run in chosen.runs]
    logger.info("models: %s", ", ".join(model.name for model in models))
    masks: list[Path] = []
    try:
        masks = predict_cases(
            inputs.cases,
            models,
            output,
            tta=chosen.tta if tta else NO_AUGMENTATION,
            step_size=step_size,
            precision=precision,
            save_probabilities=save_probabilities,
            workers=workers,
            resume=resume,
            overlays=overlays,
            postprocessing=chosen.postprocessing,
            save_entropy=save_entropy,
            part=part,
            model_paths=choice.paths,
        )
    except CaseErrors as error:
        problems += error.lines()
    if dicom_seg:
        problems += write_segmentations(inputs.cases, output)
    if problems:
        raise CaseErrors(problems)
    return masks


def _inputs_or_import(
    chosen: ChosenModels,
    images: Path,
    output: Path,
    *,
    dicom_seg: bool,
    resume: bool,
    part: Part | None,
    workers: int | None,
) -> tuple[Inputs, list[str]]:
    """As `inputs_for`, also of DICOM, which is imported first, and a line for each of its stacks that was refused."""
    if dicom_seg and part is not None:
        raise UsageError(
            "--dicom-seg and --part: leave one out; --resume --dicom-seg afterwards adds the objects"
        )
    problems: tuple[str, ...] = ()
    if part is None and holds_dicom(images):
        check_output(images, output)
        require_writable(output)
        images, problems = import_on_the_way(images, output, resume=resume, workers=workers)
    inputs = inputs_for(chosen, images, output)
    if dicom_seg:
        require_dicom_sources(inputs.cases)
    return inputs, list(problems)


def inputs_for(chosen: ChosenModels, images: Path, output: Path) -> Inputs:
    """The cases to predict, and a folder that can be written to; what is odd is said in the log. Raises InputError, CaseErrors."""
    inputs = find_inputs(images, read_run(chosen.runs[0]).plan.preprocessing.channel_names)
    check_output(images, output)
    require_writable(output)
    for warning in inputs.warnings:
        logger.warning("%s", warning)
    return inputs
