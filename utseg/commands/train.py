"""`utseg_train`: trains a network on a fold, on everything, or on a selection of cases."""

import argparse
from collections.abc import Sequence

from utseg.commands.cli import run, values_for
from utseg.commands.options import Parser, at_least
from utseg.training.request import TrainRequest


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
    patience = (
        "end early after N epochs without a better running mean of the validation Dice: the schedule is shortened to its cool-down, "
        "nothing is cut off (as with the file `stop` in the run's folder)"
    )
    weights = (
        "start from these weights: of utseg (a run's folder; of a folder with its folds, or a zip of utseg_export_model, the same fold), "
        "of the official UTNet, or published pretrained ones (R50+ViT-B_16.npz for TransUNet and the ResNet50 networks, Swin-T for "
        "SwinUNet)"
    )
    mismatch = "with --weights: leave as initialised what is missing or of another shape in the file; take those of other input channels"
    fit = "take the largest batch that fits into the memory where that of the plan does not"
    compiled = "compile the training step (torch.compile): minutes at the start, for faster steps on a GPU; needs a C++ compiler or Triton"
    probabilities = "keep the probabilities of the validation subjects too (validation/CASE.npz), as utseg_ensemble reads them"
    validate = "train nothing: predict and score the held-back subjects of a run that has finished again, as at its end"
    workers = "processes that make batches; 0: none beside this one; default: 0 on a CPU, a few with a GPU"
    parser.add_argument("configuration", help="what was planned: 2d or 2.5d")
    parser.add_argument("selection", help=selection)
    parser.dataset("preprocessed dataset")
    parser.value("-m", "model", "MODEL", "what to train: a network of utseg_networks", default="UTNet")
    parser.plan()
    parser.length(epochs="length of the schedule; default: the plan's", max_time=max_time)
    parser.value("--patience", "patience", "N", patience, type=at_least(1))
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
    parser.workers(workers)
    return run(parser, _train, argv)


def _train(arguments: argparse.Namespace) -> None:
    from utseg.settings import parse_settings
    from utseg.steps.training import train

    options = values_for(TrainRequest, arguments) | {"settings": parse_settings(arguments.settings)}
    where = {"dataset": arguments.dataset, "home": arguments.home, "planner": arguments.planner}
    train(arguments.configuration, options.pop("selection"), **where, **options)
