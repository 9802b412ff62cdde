"""`utseg_plan_and_preprocess`: looks at a raw dataset, decides how to train on it, and makes the slices to train from."""

import argparse
import logging
import math
import shlex
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.commands.cli import cluster_of, home_of, run
from utseg.commands.options import Parser
from utseg.errors import number_of
from utseg.home import DEFAULT_CONFIGURATION, DEFAULT_PLANNER

if TYPE_CHECKING:
    from utseg.case import Dataset
    from utseg.planning.plan import Plan

logger = logging.getLogger("utseg")
KEY_COLUMNS = 28
VALUES_SHOWN = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    parser = Parser(
        "utseg_plan_and_preprocess",
        "Check every scan of a raw dataset, plan the training from what they look like, and make the slices to train from. "
        "Run again, it keeps what is finished and whole.",
        "utseg_plan_and_preprocess -d MnM",
    )
    memory = "memory of the device that will train, for which a new plan is made; default: 8"
    network = "the network to plan for, one of utseg_networks; default: UTNet. Others train on its plan too, with the settings they share"
    planner = f"planner: auto, published or cpu; default: {DEFAULT_PLANNER}. With --like, a name for the plan; default: like"
    like = (
        "keep spacing, normalisation, patch and network of this model (a run's folder, a folder with its folds, or an archive of "
        "utseg_export_model), so that utseg_train --weights goes on from it"
    )
    parser.dataset("raw dataset")
    parser.value("-pl", "planner", "PLAN", planner)
    configuration = (
        "2d: a network sees each slice alone; 2.5d: with the slices before and after it as further channels; "
        f"default: {DEFAULT_CONFIGURATION}"
    )
    parser.value("-c", "configuration", "CONFIG", configuration)
    parser.path("--like", "like", like, "MODEL", required=False)
    parser.value("--memory-gb", "memory_gb", "GB", memory, type=_gigabytes)
    parser.value("-m", "network_name", "NETWORK", network)
    parser.device()
    parser.settings("the plan", "patch_size=128,128 or network.base_channels=16")
    parser.flag("--replan", "plan anew where a plan is there, which else is kept")
    parts = parser.add_mutually_exclusive_group()
    parser.flag("--fingerprint-only", "look at every scan and write what was found, plan nothing", parts)
    parser.flag("--plan-only", "write the plan, to be looked at or changed, and make no slices yet", parts)
    parser.flag("--dry-run", "show the plan, write nothing", parts)
    parser.workers()
    parser.dask()
    return run(parser, _plan_and_preprocess, argv)


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def _plan_and_preprocess(arguments: argparse.Namespace) -> None:
    from utseg.fingerprint.model import FINGERPRINT_FILE
    from utseg.settings import parse_settings
    from utseg.steps.datasets import raw_dataset
    from utseg.steps.planning import plan_and_preprocess

    dataset = raw_dataset(arguments.dataset, arguments.home)
    logger.info("%s", describe_dataset(dataset))
    folder = home_of(arguments).preprocessed / dataset.name
    writes = None if arguments.dry_run else folder
    with cluster_of(arguments, writes=writes, reads=[dataset.folder]) as executor:
        found = plan_and_preprocess(
            dataset,
            home=arguments.home,
            planner=arguments.planner,
            configuration=arguments.configuration,
            network_name=arguments.network_name,
            memory_gb=arguments.memory_gb,
            device=arguments.device,
            settings=parse_settings(arguments.settings),
            like=arguments.like,
            replan=arguments.replan,
            until="fingerprint"
            if arguments.fingerprint_only
            else "plan"
            if arguments.plan_only
            else "slices",
            dry_run=arguments.dry_run,
            workers=arguments.workers,
            executor=executor,
        )
    for warning in found.fingerprint.warnings:
        logger.warning("%s", warning)
    if found.plan is not None:
        described = describe_plan(found.plan, everything=arguments.dry_run)
        logger.info("plan %s\n%s", found.plan.folder_name, described)
    prepared = found.prepared
    if arguments.fingerprint_only:
        looked = number_of(len(found.fingerprint.cases), "case")
        logger.info("looked at %s: %s", looked, folder / FINGERPRINT_FILE)
    elif prepared is None:
        logger.info("dry run: nothing was written")
    elif arguments.plan_only:
        logger.info(
            "no slices were made; the same command without --plan-only makes them: %s", prepared.plan_folder
        )
    else:
        if arguments.like is not None:
            logger.info("to go on from its weights: %s", _training_from(arguments.like, prepared.plan))
        cases, folds = number_of(prepared.counts.made, "case"), number_of(len(prepared.splits), "fold")
        logger.info("%s made, %d kept, %s: %s", cases, prepared.counts.kept, folds, prepared.plan_folder)


def _training_from(model: Path, plan: "Plan") -> str:
    """The command that trains on the plan from the weights of the model that it is like."""
    words = ["utseg_train", plan.configuration, "fold0", "-d", plan.dataset, "-pl", plan.planner]
    return shlex.join([*words, "-m", plan.network_name, "--weights", str(model)])


def describe_dataset(dataset: "Dataset") -> str:
    """One line: how many cases and subjects there are to train on, and how many of each group.

    Subjects are counted; cases where the cases of a subject differ, as in phase.
    """
    cases = dataset.training_cases()
    subjects = {case.subject: case for case in reversed(cases)}
    said = f"{number_of(len(cases), 'case')} of {number_of(len(subjects), 'subject')} to train on"
    parts = [f"{dataset.name}: {said}"]
    for column in dataset.group_columns:
        pairs = {(case.subject, case.groups.get(column, "?")) for case in cases}
        counted = subjects.values() if len(pairs) == len(subjects) else cases
        counts = Counter(case.groups.get(column, "?") for case in counted)
        if len(counts) <= VALUES_SHOWN:
            shares = ", ".join(f"{value} {count}" for value, count in sorted(counts.items()))
            parts.append(f"{column} {shares}")
    return "; ".join(parts)


def describe_plan(plan: "Plan", *, everything: bool = False) -> str:
    """Each planned value with its reason, wrapped to the terminal. Ranges of the augmentation only where everything is asked for."""
    values = plan.model_dump(mode="json")
    width = max(80, min(160, shutil.get_terminal_size((120, 24)).columns))
    lines = []
    for key, reason in plan.reasons.items():
        if key.startswith("augmentation.") and not everything:
            continue
        try:
            value = _shown(reduce(getitem, key.split("."), values))
        except (LookupError, TypeError):
            continue  # of a value that a person took out, which is the network's own then
        said = reason if reason.startswith(value) else f"{value}: {reason}"
        indent = " " * (KEY_COLUMNS + 3)
        lines += textwrap.wrap(f"  {key:<{KEY_COLUMNS}} {said}", width, subsequent_indent=indent)
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return str(len(value))  # ways: their reason says which
        return ", ".join(map(str, value)) if value else "none"
    return str(value)
