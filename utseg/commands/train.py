"""`utseg_train`: trains a network on a fold, on everything, or on a selection of cases."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utseg.commands import options
from utseg.commands.cli import home_of, make_parser, run
from utseg.home import Home, choose_plan_folder, selection_folder_name
from utseg.training.request import TrainRequest

logger = logging.getLogger("utseg")
ALL_FOLDS = "all-folds"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_train",
        "Train a network on preprocessed slices. The model is the weights at the end of the schedule; held-back subjects choose nothing: "
        "their Dice is the curve, and at the end they are segmented from their raw images and scored.",
        "utseg_train 2d fold0 -d MnM --max-time 6h",
    )
    parser.add_argument("configuration", help="what was planned: 2d")
    parser.add_argument(
        "selection",
        help="what to train on: fold0 … fold4, all-folds (one after the other), all (every subject), or a selection on the cases' columns: "
        "vendor=A, vendor=A,B, vendor!=C (leave one out), centre=2",
    )
    options.add_dataset(parser, "preprocessed dataset")
    parser.add_argument(
        "-m",
        dest="model",
        metavar="MODEL",
        default="UTNet",
        help="what to train: a network of utseg_networks",
    )
    options.add_plan(parser)
    options.add_length(
        parser,
        epochs="length of the schedule; default: the plan's",
        max_time="as 90s, 10m, 1h30m: the schedule gets the length that fits, final validation included (with all-folds: for each fold)",
    )
    _add_start(parser)
    return run(parser, _train, argv)


def _add_start(parser: argparse.ArgumentParser) -> None:
    options.add_seed(parser, "seed of everything random")
    options.add_device(parser)
    options.add_path(
        parser,
        "--weights",
        "weights",
        "start from these weights: of utseg, of the official UTNet, or published pretrained ones (R50+ViT-B_16.npz for TransUNet and "
        "the ResNet50 networks, Swin-T for SwinUNet)",
        metavar="FILE",
        required=False,
    )
    options.add_flag(
        parser,
        "--allow-mismatch",
        "with --weights: leave as initialised what is missing or of another shape in the file",
    )
    options.add_flag(
        parser, "--fit", "take the largest batch that fits into the memory where that of the plan does not"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="go on with a run that was stopped; all-folds does so by itself"
    )
    start.add_argument(
        "--overwrite", action="store_true", help="start again where a run is there, and replace it"
    )
    options.add_settings(
        parser, "the plan or recipe", "network.base_channels=16 or optimizer.learning_rate=0.01"
    )
    options.add_flag(
        parser,
        "--save-probabilities",
        "keep the probabilities of the validation subjects too (validation/CASE.npz), as utseg_ensemble reads them",
    )
    options.add_workers(
        parser, "processes that make batches; 0 is a thread; default: 0 on a CPU, a few with a GPU", least=0
    )


def _train(arguments: argparse.Namespace) -> int:
    from utseg.trainer import find_trainer
    from utseg.training.record import RUN_FILE, is_finished

    options.check_configuration(arguments.configuration, " (as in utseg_train 2d fold0)")
    trainer = find_trainer(arguments.model)
    request = _request(arguments, home_of(arguments))
    if arguments.selection != ALL_FOLDS:
        trainer(request)
        return 0
    for name in _fold_names(request.preprocessed):
        output = request.output.with_name(name)
        if is_finished(output) and not (request.overwrite or request.save_probabilities):
            logger.info("%s: has finished, left as it is", output)
            continue
        resume = (output / RUN_FILE).is_file() and not request.overwrite
        trainer(replace(request, selection=name, output=output, resume=resume))
    return 0


def _fold_names(preprocessed: Path) -> list[str]:
    from utseg.preprocess.splits import read_splits

    return [f"fold{index}" for index in range(len(read_splits(preprocessed)))]


def _request(arguments: argparse.Namespace, home: Home) -> TrainRequest:
    from utseg.settings import parse_settings

    dataset, preprocessed = home.preprocessed_dataset(arguments.dataset)
    plan_folder = choose_plan_folder(preprocessed, arguments.planner, arguments.configuration)
    return TrainRequest(
        model=arguments.model,
        selection=arguments.selection,
        raw=home.raw / dataset,
        preprocessed=preprocessed,
        plan_folder=plan_folder,
        output=home.results
        / dataset
        / plan_folder.name
        / arguments.model
        / selection_folder_name(arguments.selection),
        epochs=arguments.epochs,
        max_time_s=arguments.max_time_s,
        seed=arguments.seed,
        device=arguments.device,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        settings=parse_settings(arguments.settings),
        weights=arguments.weights,
        allow_mismatch=arguments.allow_mismatch,
        fit=arguments.fit,
        save_probabilities=arguments.save_probabilities,
    )
