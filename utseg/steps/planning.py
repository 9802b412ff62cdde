"""`plan_and_preprocess`: from a raw dataset to a plan and the slices to train from."""

import math
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from utseg.case import Dataset
from utseg.errors import UsageError, explained_by
from utseg.extensions import names
from utseg.fingerprint.model import Fingerprint
from utseg.home import (
    DEFAULT_CONFIGURATION,
    DEFAULT_PLANNER,
    Configuration,
    FilePath,
    Home,
    check_configuration,
    check_name,
    selection_folder_name,
    split_plan_name,
)
from utseg.planning.like import LIKE, Source, decided
from utseg.planning.plan import Plan
from utseg.planning.target import DEFAULT_NETWORK
from utseg.preprocess.dataset import PlanRequest, Prepared, look_at, prepare_dataset, preview_plan
from utseg.steps.choice import ModelChoice, chosen_models
from utseg.steps.datasets import raw_dataset
from utseg.trainer import planned_step
from utseg.training.record import read_run

Until = Literal["fingerprint", "plan", "slices"]


@dataclass(frozen=True)
class Planned:
    """What was found and made. `plan`: None where the fingerprint alone was wanted; `prepared`: where nothing but that was written."""

    fingerprint: Fingerprint
    plan: Plan | None = None
    prepared: Prepared | None = None


def plan_and_preprocess(
    dataset: Dataset | str | None = None,
    *,
    home: FilePath | None = None,
    planner: str | None = None,
    configuration: Configuration | None = None,
    network_name: str | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    like: FilePath | None = None,
    replan: bool = False,
    until: Until = "slices",
    dry_run: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Planned:
    """Looks at every scan of a raw dataset, plans the training, makes the slices, in `preprocessed/NAME`; keeps what is finished and whole.

    dataset: opened, or its name below `home` (left out: the only one there). planner, configuration, network_name, memory_gb (GB of the
    device that will train), settings (plan values by dotted key), replan: as of `PlanRequest`; left out: auto and 2d.
    like: keep to the plan of this model (a run's folder, a folder with its folds, or an archive), which says configuration, network and
    memory; the new plan is called `planner`, else "like". device: what will train, auto, cpu or cuda.
    until: stop after the fingerprint or the plan. dry_run: plan, and write nothing. workers, executor: as of `prepare_dataset`, whose
    errors are raised; UsageError for names that do not exist.
    """
    request = PlanRequest(
        planner or DEFAULT_PLANNER,
        configuration or DEFAULT_CONFIGURATION,
        memory_gb,
        network_name,
        settings or {},
        replan,
        partial(planned_step, device=device),
    )
    check_configuration(request.configuration)
    if until not in get_args(Until):
        raise UsageError(f"until {until!r}: expected one of {', '.join(get_args(Until))}")
    if dry_run and until == "fingerprint":
        raise UsageError(
            "until='fingerprint' and dry_run: a dry run plans, and writes nothing; leave one out"
        )
    if memory_gb is not None and not 0 < memory_gb < math.inf:
        raise UsageError(f"memory_gb: expected a number above 0, found {memory_gb!r}")
    request.step_kind(network_name or DEFAULT_NETWORK)  # wrong names are refused before scans are read
    if like is not None:
        request = _kept(request, Path(like), planner, configuration)
    if not isinstance(dataset, Dataset):
        dataset = raw_dataset(dataset, home)
    folder: Path = Home.locate(home).preprocessed / dataset.name
    with explained_by(dataset.warnings):
        if until == "fingerprint":
            return Planned(look_at(dataset, folder, workers, executor))
        if dry_run:
            return Planned(*preview_plan(dataset, folder, request, workers, executor))
        plan_only = until == "plan"
        prepared = prepare_dataset(dataset, folder, request, workers, executor, plan_only=plan_only)
    return Planned(prepared.fingerprint, prepared.plan, prepared)


def plan_to_keep(path: Path) -> Source:
    """The plan of the model at a path, as of `ModelChoice`. Raises UsageError where its runs were planned otherwise than each other."""
    with chosen_models(ModelChoice(paths=(path,))) as chosen:
        records = [read_run(run) for run in chosen.runs]
    first = records[0].plan
    name = "/".join((first.dataset, first.folder_name, records[0].model))
    if len(records) == 1:
        return Source.of(f"{name}/{selection_folder_name(records[0].selection)}", first)
    for record in records[1:]:
        if decided(record.plan) != decided(first):
            raise UsageError(f"--like {path}: its runs have different plans; name the folder of one of them")
    return Source.of(name, first)


def _kept(
    request: PlanRequest, model: Path, planner: str | None, configuration: Configuration | None
) -> PlanRequest:
    """The request for a plan like the model's. planner, configuration: what was asked for, which may not be what is kept.

    Raises UsageError where what is asked for is another value than the plan that is kept has.
    """
    source = plan_to_keep(model)
    name, kept = _name_of_its_own(planner or LIKE), source.plan
    for flag, asked, there in (
        ("-c", configuration, kept.configuration),
        ("-m", request.network_name, kept.network_name),
        ("--memory-gb", request.memory_gb, kept.memory_gb),
    ):
        if asked not in (None, there):
            raise UsageError(f"{flag} {asked}: --like {model} keeps {there}; leave {flag} out")
    return replace(request, planner=name, configuration=kept.configuration, like=source)


def _name_of_its_own(name: str) -> str:
    """The name of a plan that no planner makes."""
    if name in names("planners"):
        raise UsageError(
            f"-pl {name}: is a planner; with --like, -pl is a name of its own for the plan, as {LIKE}"
        )
    if split_plan_name(check_name(name, "plan"))[0] != name:
        raise UsageError(f"-pl {name}: ends as the folder of a plan does; leave out the configuration")
    return name
