"""`predict`: images in files to masks in files, as `utseg_predict`."""

import logging
from pathlib import Path

from utseg.device import Precision, resolve_device
from utseg.files import require_writable
from utseg.home import FilePath
from utseg.inference.views import NO_AUGMENTATION
from utseg.predict.inputs import Inputs, check_output, find_inputs
from utseg.predict.model import load_model
from utseg.predict.parts import Part
from utseg.predict.pipeline import predict_cases
from utseg.steps.choice import ChosenModels, ModelChoice, chosen_models
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
) -> list[Path]:
    """Segments images with the models of the choice; returns the masks' paths, `output`/CASE.nii.gz in the geometry of each image.

    images: an image, a cine file, a folder of images, or a raw dataset. choice: the only trained models, or those of best.json, where
    nothing is said. tta: False shows the networks the image as it is only. device: auto, cpu, cuda, cuda:N or mps. The rest, and what is
    written, as of `predict_cases`. Raises what that, `chosen_models` and `find_inputs` raise.
    """
    choice, images, output = choice or ModelChoice(), Path(images), Path(output)
    with chosen_models(choice) as chosen:
        inputs = inputs_for(chosen, images, output)
        where = resolve_device(device)
        models = [load_model(run, where, choice.checkpoint) for run in chosen.runs]
    logger.info("models: %s", ", ".join(model.name for model in models))
    return predict_cases(
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


def inputs_for(chosen: ChosenModels, images: Path, output: Path) -> Inputs:
    """The cases to predict, and a folder that can be written to; what is odd is said in the log. Raises InputError, CaseErrors."""
    inputs = find_inputs(images, read_run(chosen.runs[0]).plan.preprocessing.channel_names)
    check_output(images, output)
    require_writable(output)
    for warning in inputs.warnings:
        logger.warning("%s", warning)
    return inputs
