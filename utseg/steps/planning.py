"""`plan_and_preprocess`: from a raw dataset to a plan and the slices to train from."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from utseg.case import Dataset
from utseg.errors import explained_by
from utseg.fingerprint.model import Fingerprint
from utseg.home import DEFAULT_PLANNER, Configuration, FilePath, Home, check_configuration
from utseg.planning.plan import Plan
from utseg.planning.target import DEFAULT_NETWORK
from utseg.preprocess.dataset import PlanRequest, Prepared, look_at, prepare_dataset, preview_plan
from utseg.rawdata import open_dataset
from utseg.trainer import planned_step

Until = Literal["fingerprint", "plan", "slices"]


@dataclass(frozen=True)
class Planned:
    """What was found and made. `plan`: None where the fingerprint alone was wanted; `prepared`: where nothing but that was written."""

    fingerprint: Fingerprint
    plan: Plan | None = None
    prepared: Prepared | None = None


def raw_dataset(name: str | None = None, home: FilePath | None = None) -> Dataset:
    """The raw dataset of that name below `home`, or the only one there. Raises as `open_dataset`, UsageError where several are there."""
    found, folder = Home.locate(home).raw_dataset(name)
    return open_dataset(folder, found)


def plan_and_preprocess(
    dataset: Dataset | str | None = None,
    *,
    home: FilePath | None = None,
    planner: str = DEFAULT_PLANNER,
    configuration: Configuration = "2d",
    network_name: str | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    replan: bool = False,
    until: Until = "slices",
    dry_run: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Planned:
    """Looks at every scan of a raw dataset, plans the training, makes the slices, in `preprocessed/NAME`; keeps what is finished and whole.

    dataset: opened, or its name below `home` (left out: the only one there). planner, configuration, network_name, memory_gb (GB of the
    device that will train), settings (plan values by dotted key), replan: as of `PlanRequest`. device: what will train, auto, cpu or cuda.
    until: stop after the fingerprint or the plan. dry_run: plan, and write nothing. workers, executor: as of `prepare_dataset`, whose
    errors are raised; UsageError for names that do not exist.
    """
    check_configuration(configuration)
    step_kind = partial(planned_step, device=device)
    step_kind(network_name or DEFAULT_NETWORK)  # wrong names are refused before scans are read
    if not isinstance(dataset, Dataset):
        dataset = raw_dataset(dataset, home)
    request = PlanRequest(planner, configuration, memory_gb, network_name, settings or {}, replan, step_kind)
    folder: Path = Home.locate(home).preprocessed / dataset.name
    with explained_by(dataset.warnings):
        if until == "fingerprint":
            return Planned(look_at(dataset, folder, workers, executor))
        if dry_run:
            return Planned(*preview_plan(dataset, folder, request, workers, executor))
        plan_only = until == "plan"
        prepared = prepare_dataset(dataset, folder, request, workers, executor, plan_only=plan_only)
    return Planned(prepared.fingerprint, prepared.plan, prepared)
