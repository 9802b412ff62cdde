"""`utseg_predict`: images in, masks out, with the trained models of a dataset."""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.commands.cli import chosen_runs, cluster_of, home_of, run
from utseg.commands.options import Parser, share
from utseg.device import TO_PREDICT_IN
from utseg.errors import UsageError

if TYPE_CHECKING:
    from utseg.inference.views import TestTimeAugmentation
    from utseg.postprocess import Postprocessing

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    words = sys.argv[1:] if argv is None else argv
    return run(make_predict_parser(), partial(predict, words=words), argv)


def make_predict_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "utseg_predict",
        "Segment images with trained models; each mask CASE.nii.gz has the geometry of its image. Several models or folds: the mean of "
        "their probabilities.",
        "utseg_predict -i scans -o masks -d MnM -m UTNet",
    )
    images = (
        "an image, a cine file (every frame is segmented), a folder of images (CASE.nii.gz, or CASE_0000.nii.gz, … for several "
        "channels), or a raw dataset (nnU-Net, M&Ms, ACDC)"
    )
    tta = (
        "no mean over mirrored or turned images (done where utseg_find_best_configuration saw it pay; where it was not asked, images "
        "are mirrored as in training)"
    )
    step = "look everywhere, by windows with that step from one to the next, a share of the window up to 1; default: as planned"
    precision = "of the networks, float32 or bfloat16; auto: bfloat16 where the processor computes in it"
    entropy = (
        "also write entropy/CASE_entropy.nii.gz: how undecided the models are at each voxel, from 0 to 1"
    )
    part = (
        "predict only part I of N, counted from 1, each on a machine of its own, into the same folder or several; the last one to "
        "finish joins the records"
    )
    resume = "keep masks that are there and verify; without it, masks of the same names are replaced"
    output = "folder for the masks, prediction.json, and quality.csv: how far each mask can be trusted"
    overlays = "also write overlays/CASE.png: the slices with the labels' outlines, to look through"
    parser.path("-i", "input", images, "PATH")
    parser.path("-o", "output", output)
    parser.model_choice(", or where utseg_find_best_configuration chose")
    parser.flag("--no-tta", tta)
    parser.value("--step-size", "step_size", "S", step, type=share)
    parser.flag("--save-probabilities", "also write CASE.npz, float32 (class, z, y, x)")
    parser.flag("--overlays", overlays)
    parser.flag("--save-entropy", entropy)
    parser.device()
    parser.value(
        "--precision", "precision", "NAME", precision, choices=("auto", *TO_PREDICT_IN), default="auto"
    )
    parser.flag("--resume", resume)
    parser.value("--part", "part", "I/N", part)
    parser.workers()
    parser.dask()
    return parser


def predict(arguments: argparse.Namespace, words: Sequence[str]) -> None:
    """Does what the words ask, whose `arguments` they are."""
    from utseg.files import require_writable
    from utseg.predict.inputs import check_output, find_inputs
    from utseg.predict.model import load_model
    from utseg.predict.parts import Part
    from utseg.training.record import read_run

    part = None if arguments.part is None else Part.parse(arguments.part)
    _, dataset = home_of(arguments).trained_dataset(arguments.dataset)
    runs, postprocessing, tta = _runs(arguments, dataset)
    inputs = find_inputs(arguments.input, read_run(runs[0]).plan.preprocessing.channel_names)
    check_output(arguments.input, arguments.output)
    require_writable(arguments.output)
    for warning in inputs.warnings:
        logger.warning("%s", warning)

    if arguments.dask is not None:
        _predict_on_cluster(arguments, words, runs, len(inputs.cases))
        return
    from utseg.device import resolve_device
    from utseg.inference.views import NO_AUGMENTATION
    from utseg.predict.pipeline import predict_cases

    device = resolve_device(arguments.device)
    models = [load_model(run, device) for run in runs]
    logger.info("models: %s", ", ".join(model.name for model in models))
    predict_cases(
        inputs.cases,
        models,
        arguments.output,
        tta=tta if arguments.tta else NO_AUGMENTATION,
        step_size=arguments.step_size,
        precision=None if arguments.precision == "auto" else arguments.precision,
        save_probabilities=arguments.save_probabilities,
        workers=arguments.workers,
        resume=arguments.resume,
        overlays=arguments.overlays,
        save_entropy=arguments.save_entropy,
        postprocessing=postprocessing,
        part=part,
    )


def _predict_on_cluster(
    arguments: argparse.Namespace, words: Sequence[str], runs: Sequence[Path], cases: int
) -> None:
    """Has parts of the cases predicted by processes on the cluster's workers, each into the same folder."""
    from utseg.commands.predict_parts import predict_on_cluster, without_dask
    from utseg.compute.children import stop_children

    if arguments.part is not None:
        raise UsageError("--part and --dask: a cluster predicts in parts of its own; leave one out")
    with cluster_of(
        arguments,
        writes=arguments.output,
        reads=[arguments.input if arguments.input.is_dir() else arguments.input.parent, *runs],
        gpu=arguments.device != "cpu",
        stop_work=stop_children,
    ) as executor:
        assert executor is not None
        predict_on_cluster(executor, without_dask(words), cases)


def _runs(
    arguments: argparse.Namespace, dataset: Path
) -> "tuple[list[Path], Postprocessing, TestTimeAugmentation]":
    """The runs that predict, what is done to their masks, and what they are shown: as named, else as best.json says, else the only ones
    there."""
    from utseg.inference.views import AS_MIRRORED_IN_TRAINING
    from utseg.postprocess import Postprocessing, in_words
    from utseg.selection.record import BEST_FILE, best_augmentation, best_runs, read_best

    choices = {"-m": arguments.models, "-f": arguments.folds, "-pl": arguments.planner}
    named = [flag for flag, value in choices.items() if value is not None]
    if (dataset / BEST_FILE).is_file():
        if not named:
            best = read_best(dataset)
            rules = ", ".join(map(in_words, best.postprocessing.rules)) or "none"
            tta = best_augmentation(best)
            views = "as training mirrored" if best.augmentation is None else tta.in_words()
            said = "as %s says: %s; postprocessing: %s; test-time augmentation: %s"
            logger.info(said, dataset / BEST_FILE, best.chosen, rules, views)
            return best_runs(best, dataset), best.postprocessing, tta
        logger.info("%s is not followed: models are chosen by %s", dataset / BEST_FILE, ", ".join(named))
    return chosen_runs(arguments, dataset), Postprocessing(), AS_MIRRORED_IN_TRAINING
