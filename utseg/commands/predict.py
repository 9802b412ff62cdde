"""`utseg_predict`: images in, masks out, with the trained models of a dataset."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from utseg.commands.cli import cluster_of, run, values_for
from utseg.commands.options import Parser, share
from utseg.device import TO_PREDICT_IN
from utseg.errors import UsageError

if TYPE_CHECKING:
    from utseg.steps.choice import ModelChoice


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
        "channels), a raw dataset (nnU-Net, M&Ms, ACDC), or a folder of DICOM series, whose cines are written into OUT/images first"
    )
    tta = (
        "no mean over mirrored or turned images (done where utseg_find_best_configuration saw it pay; where it was not asked, images "
        "are mirrored as in training)"
    )
    path = (
        "models from anywhere, in place of -d, -m and -pl: a run's folder, a folder with its folds, or an archive of "
        "utseg_export_model, which is verified and not imported; several predict together"
    )
    checkpoint = "weights of the end of the schedule, or checkpoint_best.pt, which the held-back subjects of the run chose"
    step = "look everywhere, by windows with that step from one to the next, a share of the window up to 1; default: as planned"
    precision = "of the networks, float32 or bfloat16; auto: bfloat16 where the processor computes in it"
    entropy = (
        "also write entropy/CASE_entropy.nii.gz: how undecided the models are at each voxel, from 0 to 1"
    )
    part = (
        "predict only part I of N, counted from 1, each on a machine of its own, into the same folder or several; the last one to "
        "finish joins the records"
    )
    dicom_seg = (
        "also write dicom/CINE_seg.dcm, DICOM Segmentation of each cine, for DICOM input or what utseg_import_dicom made of it; for "
        "research only"
    )
    resume = "keep masks that are there and verify; without it, masks of the same names are replaced"
    output = "folder for the masks, prediction.json, and quality.csv: how far each mask can be trusted"
    overlays = "also write overlays/CASE.png: the slices with the labels' outlines, to look through"
    parser.path("-i", "input", images, "PATH")
    parser.path("-o", "output", output)
    parser.model_choice(", or where utseg_find_best_configuration chose")
    parser.path("--model", "paths", path, "PATH", required=False, nargs="+", default=())
    parser.value("--checkpoint", "checkpoint", "NAME", checkpoint, choices=("final", "best"), default="final")
    parser.flag("--no-tta", tta)
    parser.value("--step-size", "step_size", "S", step, type=share)
    parser.flag("--save-probabilities", "also write CASE.npz, float32 (class, z, y, x)")
    parser.flag("--overlays", overlays)
    parser.flag("--save-entropy", entropy)
    parser.flag("--dicom-seg", dicom_seg)
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
    from utseg.predict.parts import Part
    from utseg.steps.choice import ModelChoice
    from utseg.steps.prediction import predict

    given = values_for(ModelChoice, arguments)
    choice = ModelChoice(**{name: value for name, value in given.items() if value is not None})
    part = None if arguments.part is None else Part.parse(arguments.part)
    if arguments.dask is not None:
        _predict_on_cluster(arguments, words, choice)
        return
    predict(
        arguments.input,
        arguments.output,
        choice,
        tta=arguments.tta,
        step_size=arguments.step_size,
        precision=None if arguments.precision == "auto" else arguments.precision,
        save_probabilities=arguments.save_probabilities,
        overlays=arguments.overlays,
        save_entropy=arguments.save_entropy,
        device=arguments.device,
        resume=arguments.resume,
        part=part,
        workers=arguments.workers,
        dicom_seg=arguments.dicom_seg,
    )


def _predict_on_cluster(arguments: argparse.Namespace, words: Sequence[str], choice: "ModelChoice") -> None:
    """Has parts of the cases predicted by processes on the cluster's workers, each into the same folder."""
    from utseg.commands.predict_parts import predict_on_cluster, without_dask
    from utseg.compute.children import stop_children
    from utseg.steps.choice import chosen_models
    from utseg.steps.prediction import inputs_for

    if arguments.part is not None:
        raise UsageError("--part and --dask: a cluster predicts in parts of its own; leave one out")
    if arguments.dicom_seg:
        raise UsageError(
            "--dicom-seg and --dask: leave one out; --resume --dicom-seg afterwards adds the objects"
        )
    with chosen_models(choice) as chosen:
        cases = len(inputs_for(chosen, arguments.input, arguments.output).cases)
    images = arguments.input if arguments.input.is_dir() else arguments.input.parent
    with cluster_of(
        arguments,
        writes=arguments.output,
        reads=[images, *(choice.paths or chosen.runs)],
        gpu=arguments.device != "cpu",
        stop_work=stop_children,
    ) as executor:
        assert executor is not None
        predict_on_cluster(executor, without_dask(words), cases)
