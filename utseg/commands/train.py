"""`utseg_train`: trains a network on a fold, on everything, or on a selection of cases."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace

from utseg.commands.cli import home_of, run, values_for
from utseg.commands.options import Parser, check_configuration
from utseg.errors import UsageError
from utseg.home import choose_plan_folder, selection_folder_name
from utseg.training.request import TrainRequest

logger = logging.getLogger("utseg")
ALL_FOLDS = "all-folds"
# What --validate takes from the run: the option of each field of the request.
OF_TRAINING = {
    "epochs": "--epochs",
    "max_time_s": "--max-time",
    "seed": "--seed",
    "weights": "--weights",
    "allow_mismatch": "--allow-mismatch",
    "fit": "--fit",
    "compile": "--compile",
    "settings": "--set",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_train",
        "Train a network on preprocessed slices. The model is the weights at the end of the schedule; held-back subjects choose nothing: "
        "their Dice is the curve, and at the end they are segmented from their raw images and scored.",
        "utseg_train 2d fold0 -d MnM --max-time 6h",
    )
    selection = (
        "what to train on: fold0 … fold4, all-folds (one after the other), all (every subject), or a selection on the cases' columns: "
        "vendor=A, vendor=A,B, vendor!=C (leave one out), centre=2"
    )
    max_time = "as 90s, 10m, 1h30m: the schedule gets the length that fits, final validation included (with all-folds: for each fold)"
    weights = (
        "start from these weights: of utseg, of the official UTNet, or published pretrained ones (R50+ViT-B_16.npz for TransUNet and "
        "the ResNet50 networks, Swin-T for SwinUNet)"
    )
    mismatch = "with --weights: leave as initialised what is missing or of another shape in the file; take those of other input channels"
    fit = "take the largest batch that fits into the memory where that of the plan does not"
    compiled = "compile the training step (torch.compile): minutes at the start, for faster steps on a GPU; needs a C++ compiler or Triton"
    probabilities = "keep the probabilities of the validation subjects too (validation/CASE.npz), as utseg_ensemble reads them"
    validate = "train nothing: predict and score the held-back subjects of a run that has finished again, as at its end"
    workers = "processes that make batches; 0 is a thread; default: 0 on a CPU, a few with a GPU"
    parser.add_argument("configuration", help="what was planned: 2d or 2.5d")
    parser.add_argument("selection", help=selection)
    parser.dataset("preprocessed dataset")
    parser.value("-m", "model", "MODEL", "what to train: a network of utseg_networks", default="UTNet")
    parser.plan()
    parser.length(epochs="length of the schedule; default: the plan's", max_time=max_time)
    parser.seed("seed of everything random")
    parser.device()
    parser.path("--weights", "weights", weights, "FILE", required=False)
    parser.flag("--allow-mismatch", mismatch)
    parser.flag("--fit", fit)
    parser.flag("--compile", compiled)
    start = parser.add_mutually_exclusive_group()
    parser.flag("--resume", "go on with a run that was stopped; all-folds does so by itself", start)
    parser.flag("--overwrite", "start again where a run is there, and replace it", start)
    parser.flag("--validate", validate, start)
    parser.settings("the plan or recipe", "network.base_channels=16 or optimizer.learning_rate=0.01")
    parser.flag("--save-probabilities", probabilities)
    parser.workers(workers, least=0)
    return run(parser, _train, argv)


def _train(arguments: argparse.Namespace) -> int:
    from utseg.preprocess.splits import read_splits
    from utseg.trainer import find_trainer
    from utseg.training.record import RUN_FILE, is_finished

    given = [flag for name, flag in OF_TRAINING.items() if getattr(arguments, name)]
    if arguments.validate and given:
        raise UsageError(
            f"--validate trains nothing, and takes the run as it is: leave out {', '.join(given)}"
        )
    check_configuration(arguments.configuration, " (as in utseg_train 2d fold0)")
    trainer = find_trainer(arguments.model)
    request = _request(arguments)
    if arguments.selection != ALL_FOLDS:
        trainer(request)
        return 0
    for index in range(len(read_splits(request.preprocessed))):
        name = f"fold{index}"
        output = request.output.with_name(name)
        if is_finished(output) and not (request.overwrite or request.validate or request.save_probabilities):
            logger.info("%s: has finished, left as it is", output)
            continue
        resume = (output / RUN_FILE).is_file() and not request.overwrite
        trainer(replace(request, selection=name, output=output, resume=resume))
    return 0


def _request(arguments: argparse.Namespace) -> TrainRequest:
    from utseg.settings import parse_settings

    home = home_of(arguments)
    dataset, preprocessed = home.preprocessed_dataset(arguments.dataset)
    plan_folder = choose_plan_folder(preprocessed, arguments.planner, arguments.configuration)
    folder = home.results / dataset / plan_folder.name / arguments.model
    given = values_for(TrainRequest, arguments) | {
        "raw": home.raw / dataset,
        "preprocessed": preprocessed,
        "plan_folder": plan_folder,
        "output": folder / selection_folder_name(arguments.selection),
        "settings": parse_settings(arguments.settings),
    }
    return TrainRequest(**given)
