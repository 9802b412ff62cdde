"""The options that say which trained models a command means; `utseg.predict.model.choose_runs` follows them."""

import argparse


def add_model_choice(parser: argparse.ArgumentParser, *, or_where: str = "") -> None:
    """Adds -d, -m, -f and -pl. `or_where`: when else -m may be left out, in words."""
    parser.add_argument(
        "-d",
        dest="dataset",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="dataset that the models were trained on; may be left out where one is there",
    )
    parser.add_argument(
        "-m",
        dest="models",
        nargs="+",
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help=f"one or more networks; may be left out where one is trained{or_where}",
    )
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        default=argparse.SUPPRESS,
        help="what they were trained on, as fold0 or vendor=A; left out: all folds that are trained",
    )
    parser.add_argument(
        "-pl",
        dest="planner",
        metavar="PLAN",
        default=argparse.SUPPRESS,
        help="plan; may be left out where one has trained models",
    )
