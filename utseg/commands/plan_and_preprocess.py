"""`utseg_plan_and_preprocess`: looks at a raw dataset, decides how to train on it, and makes the slices to train from."""

import argparse
import logging
import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import partial, reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

from utseg.commands.cli import cluster_of, home_of, run, values_for
from utseg.commands.options import Parser, check_configuration
from utseg.errors import explained_by, number_of
from utseg.home import DEFAULT_PLANNER

if TYPE_CHECKING:
    from utseg.case import Dataset
    from utseg.planning.plan import Plan
    from utseg.preprocess.dataset import PlanRequest

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
    planner = "planner: auto, published or cpu"
    parser.dataset("raw dataset")
    parser.value("-pl", "planner", "PLAN", planner, default=DEFAULT_PLANNER)
    configuration = (
        "2d: a network sees each slice alone; 2.5d: with the slices before and after it as further channels"
    )
    parser.value("-c", "configuration", "CONFIG", configuration, default="2d")
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
    from utseg.preprocess.dataset import look_at, prepare_dataset, preview_plan
    from utseg.rawdata import open_dataset

    request = _request(arguments)
    home = home_of(arguments)
    name, raw = home.raw_dataset(arguments.dataset)
    dataset = open_dataset(raw, name)
    logger.info("%s", describe_dataset(dataset))
    folder = home.preprocessed / name
    writes = None if arguments.dry_run else folder
    with cluster_of(arguments, writes=writes, reads=[raw]) as executor, explained_by(dataset.warnings):
        plan = None
        if arguments.fingerprint_only:
            fingerprint = look_at(dataset, folder, arguments.workers, executor)
        elif arguments.dry_run:
            fingerprint, plan = preview_plan(dataset, folder, request, arguments.workers, executor)
        else:
            prepared = prepare_dataset(
                dataset, folder, request, arguments.workers, executor, plan_only=arguments.plan_only
            )
            fingerprint, plan, counts = prepared.fingerprint, prepared.plan, prepared.counts
    for warning in fingerprint.warnings:
        logger.warning("%s", warning)
    if plan is not None:
        logger.info("plan %s\n%s", request.folder_name, describe_plan(plan, everything=arguments.dry_run))
    if arguments.fingerprint_only:
        logger.info("looked at %s: %s", number_of(len(fingerprint.cases), "case"), folder / FINGERPRINT_FILE)
    elif arguments.dry_run:
        logger.info("dry run: nothing was written")
    elif arguments.plan_only:
        logger.info(
            "no slices were made; the same command without --plan-only makes them: %s", prepared.plan_folder
        )
    else:
        cases, folds = number_of(counts.made, "case"), number_of(len(prepared.splits), "fold")
        logger.info("%s made, %d kept, %s: %s", cases, counts.kept, folds, prepared.plan_folder)


def _request(arguments: argparse.Namespace) -> "PlanRequest":
    from utseg.planning.target import DEFAULT_NETWORK
    from utseg.preprocess.dataset import PlanRequest
    from utseg.settings import parse_settings
    from utseg.trainer import planned_step

    check_configuration(arguments.configuration)
    step_kind = partial(planned_step, device=arguments.device)
    step_kind(arguments.network_name or DEFAULT_NETWORK)  # wrong names are refused before scans are read
    settings = parse_settings(arguments.settings)
    return PlanRequest(**values_for(PlanRequest, arguments) | {"step_kind": step_kind, "settings": settings})


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
        value = _shown(reduce(getitem, key.split("."), values))
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
