"""`utseg_find_best_configuration`: which trained models predict best, on subjects they held back."""

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utseg.commands.cli import home_of, run
from utseg.commands.options import Parser, at_least
from utseg.errors import number_of

if TYPE_CHECKING:
    from utseg.selection import Best

logger = logging.getLogger("utseg")
CHANGE_WIDTH = 30
DEFAULT_TTA_SUBJECTS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_find_best_configuration",
        "Compare all trained models and their pairs on the subjects that their folds held back, choose one, its postprocessing and "
        "test-time augmentation (mirrored and turned images, where training had them), and write best.json, which utseg_predict follows. "
        "Pairs need probabilities: where validation/ has none, the held-back cases are predicted again, a few at a time; the masks stay in "
        "results/NAME/selection and are not made twice.",
        "utseg_find_best_configuration -d MnM",
    )
    views = (
        "measure test-time augmentation on at most so many subjects, which are predicted again for it (default: %(default)s; 0: "
        "do not, then prediction mirrors as training did)"
    )
    several = {"nargs": "+", "default": ()}
    parser.trained_dataset()
    parser.value(
        "-pl", "planners", "PLAN", "models of these plans only, as auto_2.5d; left out: all", **several
    )
    parser.value("-m", "models", "MODEL", "these networks only; left out: all", **several)
    parser.flag("--no-pairs", "compare single models only")
    parser.value("--tta-subjects", "tta_subjects", "N", views, type=at_least(0), default=DEFAULT_TTA_SUBJECTS)
    parser.device()
    parser.workers()
    return run(parser, _find, argv)


def _find(arguments: argparse.Namespace) -> None:
    from utseg.selection import BEST_FILE
    from utseg.steps.selecting import find_best_configuration

    best = find_best_configuration(
        arguments.dataset,
        home=arguments.home,
        planners=arguments.planners,
        models=arguments.models,
        pairs=arguments.pairs,
        tta_subjects=arguments.tta_subjects,
        device=arguments.device,
        workers=arguments.workers,
    )
    logger.info("%s\n\nwritten: %s", in_words(best), home_of(arguments).results / best.dataset / BEST_FILE)


def in_words(best: "Best") -> str:
    """The table of candidates, the postprocessing, why, and the command to run."""
    from utseg.evaluate.tables import interval

    compared = best.compared
    names = [one.name for one in best.candidates] + [trial.words for trial in best.postprocessing_tried]
    names += [trial.words for trial in best.augmentation.trials] if best.augmentation else []
    width = max(map(len, names)) + 2
    lines = [
        f"mean Dice over {compared.subjects} out-of-fold subjects ({compared.cases} cases)",
        f"  {'':<{width}}{'Dice':>7}{'95 % interval':>18}{'GMAC':>9}{'p':>8}",
    ]
    for one in best.candidates:
        mark = "*" if one.name == best.chosen else "=" if one.tied else " "
        p = one.against_best.p if one.against_best else None
        figures = f"{one.mean_dice:>7.4f}{interval(one.interval95, 4):>18}{one.gmac:>9.3g}"
        lines.append(f"{mark} {one.name:<{width}}{figures}{'' if p is None else f'{p:.3g}':>8}")
    lines += [
        "* chosen; = tied with the best; p: of the paired test against the best; GMAC: for a slice of 320 × 320 mm, all members",
        "",
        "postprocessing",
    ]
    for trial in best.postprocessing_tried:
        change = f"{trial.gain:+.4f} in {trial.cases_changed} changed cases" if trial.cases_changed else ""
        mark = "*" if trial.kept else " "
        lines.append(f"{mark} {trial.words:<{width}}{change:<{CHANGE_WIDTH}}{trial.why}")
    lines += _augmentation_in_words(best, width)
    lines += [
        "",
        f"chosen: {best.chosen}, {number_of(len(best.members), 'member')}, "
        f"mean Dice {best.mean_dice:.4f} ({interval(best.interval95, 4)})",
        f"scored on {best.scored_on}",
        f"why: {best.why}",
        f"to predict: {best.command}",
    ]
    return "\n".join(lines)


def _augmentation_in_words(best: "Best", width: int) -> list[str]:
    from utseg.evaluate.tables import interval

    measured = best.augmentation
    if measured is None:
        return ["", "test-time augmentation: not measured; prediction mirrors as training did"]
    if measured.mean_dice is None:
        return ["", f"test-time augmentation: {measured.why}"]
    lines = [
        "",
        f"test-time augmentation, on {len(measured.subjects)} of the subjects (mean Dice without: {measured.mean_dice:.4f})",
    ]
    for trial in measured.trials:
        change = f"{trial.gain:+.4f} ({interval(trial.interval95, 4)})"
        passes = f"{trial.passes:g} passes"
        mark = "*" if trial.augmentation == measured.chosen else " "
        lines.append(f"{mark} {trial.words:<{width}}{change:<{CHANGE_WIDTH}}{passes:<11}{trial.why}")
    return [*lines, f"  {measured.why}"]
