"""`utseg_train`: trains a network on a fold, on everything, or on a selection of cases."""

import argparse
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utseg.commands.frame import file_or_folder, home_of, make_parser, run
from utseg.commands.plans import choose_plan_folder
from utseg.errors import UsageError
from utseg.home import Home, selection_folder_name
from utseg.training import TrainRequest, find_trainer

logger = logging.getLogger("utseg")
CONFIGURATIONS = ("2d",)
ALL_FOLDS = "all-folds"
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


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
    parser.add_argument(
        "-d",
        dest="dataset",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="dataset; may be left out where one is preprocessed",
    )
    parser.add_argument(
        "-m",
        dest="model",
        metavar="MODEL",
        default="UTNet",
        help="what to train: a network of utseg_networks",
    )
    parser.add_argument(
        "-pl",
        dest="planner",
        metavar="PLAN",
        default=argparse.SUPPRESS,
        help="plan to train from; default: auto, or the only one there",
    )
    _add_length(parser)
    _add_start(parser)
    return run(parser, _train, argv)


def _add_length(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        type=_at_least_one,
        metavar="N",
        default=argparse.SUPPRESS,
        help="length of the schedule; default: the plan's",
    )
    length.add_argument(
        "--max-time",
        dest="max_time_s",
        type=duration,
        metavar="TIME",
        default=argparse.SUPPRESS,
        help="as 90s, 10m, 1h30m: the schedule gets the length that fits, final validation included (with all-folds: for each fold)",
    )


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=_not_negative, metavar="S", default=0, help="seed of everything random"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto (CUDA where it is there), cpu, cuda or cuda:N"
    )
    parser.add_argument(
        "--weights",
        type=file_or_folder,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="start from these weights: of utseg, of the official UTNet, or published pretrained ones (R50+ViT-B_16.npz for TransUNet and "
        "the ResNet50 networks, Swin-T for SwinUNet)",
    )
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="with --weights: leave as initialised what is missing or of another shape in the file",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that was stopped; all-folds does so by itself",
    )
    start.add_argument(
        "--overwrite", action="store_true", help="start again where a run is there, and replace it"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        nargs="+",
        metavar="KEY=VALUE",
        default=argparse.SUPPRESS,
        help="change a value of the plan or recipe, as network.base_channels=16 or optimizer.learning_rate=0.01",
    )
    parser.add_argument(
        "--save-probabilities",
        action="store_true",
        help="keep the probabilities of the validation subjects too (validation/CASE.npz), as utseg_ensemble reads them",
    )
    parser.add_argument(
        "-np",
        dest="workers",
        type=_not_negative,
        metavar="N",
        default=argparse.SUPPRESS,
        help="processes that make batches; 0 is a thread; default: 0 on a CPU, a few with a GPU",
    )


def _train(arguments: argparse.Namespace) -> int:
    from utseg.runs import RUN_FILE, is_finished

    if arguments.configuration not in CONFIGURATIONS:
        raise UsageError(
            f"no configuration is called {arguments.configuration!r}; there is: {', '.join(CONFIGURATIONS)} (as in utseg_train 2d fold0)"
        )
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
    from utseg.planning.settings import parse_settings

    dataset, preprocessed = home.preprocessed_dataset(getattr(arguments, "dataset", None))
    plan_folder = choose_plan_folder(
        preprocessed, getattr(arguments, "planner", None), arguments.configuration
    )
    settings = [word for words in getattr(arguments, "settings", []) for word in words]
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
        epochs=getattr(arguments, "epochs", None),
        max_time_s=getattr(arguments, "max_time_s", None),
        seed=arguments.seed,
        device=arguments.device,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        workers=getattr(arguments, "workers", None),
        settings=parse_settings(settings),
        weights=getattr(arguments, "weights", None),
        allow_mismatch=arguments.allow_mismatch,
        save_probabilities=arguments.save_probabilities,
    )


def duration(text: str) -> float:
    """Seconds of 90s, 10m, 1h or 1h30m, for argparse."""
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = dict(zip("hms", match.groups(), strict=True)) if match else {}
        seconds = sum(float(value) * UNITS[unit] for unit, value in parts.items() if value)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m, 1h or 1h30m, found {text!r}")
    return seconds


def _at_least_one(text: str) -> int:
    return _integer(text, 1)


def _not_negative(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
    return value
