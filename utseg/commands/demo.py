"""`utseg_demo`: the whole walk on a synthetic cohort, with the commands that a user would type."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from utseg.commands.cli import home_of, home_words, make_parser, run
from utseg.commands.options import add_seed, add_workers, duration

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = make_parser(
        "utseg_demo",
        "Make a synthetic cine cohort of four vendors, train on two of them, segment and score all four. Six minutes on two cores. "
        "Run again, it keeps what is finished.",
        "utseg_demo --home utseg_data",
    )
    parser.add_argument(
        "--max-time",
        dest="max_time_s",
        type=duration,
        metavar="TIME",
        help="of the training, as 285s or 10m; default: 285s",
    )
    add_seed(parser, "seed of the cohort and of the training")
    add_workers(parser)
    return run(parser, _demo, argv)


def _demo(arguments: argparse.Namespace) -> None:
    from utseg.demo.demo import DemoSettings, run_demo, score_table, shown_word
    from utseg.phantom.examination import PhantomSettings

    settings = DemoSettings(
        home=home_of(arguments),
        cohort=PhantomSettings(frames=8, seed=arguments.seed),
        workers=arguments.workers,
        home_words=home_words(arguments),
    )
    if arguments.max_time_s is not None:
        settings = replace(settings, max_time_s=arguments.max_time_s)
    result = run_demo(settings)
    if not logger.isEnabledFor(logging.INFO):
        return
    folder = result.pictures[0].parent
    names = ", ".join(path.name for path in result.pictures)
    minutes, seconds = divmod(round(result.seconds), 60)
    sys.stdout.write(
        f"\nDice on the test subjects (synthetic: it says that the software works, nothing about patients)\n"
        f"{score_table(result.scores)}\n\npictures: {shown_word(folder)} ({names})\nscores:   {shown_word(settings.testing / 'scores')}\n"
        f"report:   {shown_word(result.report)}\n"
        f"time:     {minutes} min {seconds} s\n"
    )
