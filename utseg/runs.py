"""The record of one training run, `run.json`: all that is needed to rebuild the network, to predict with it and to reproduce it.

Trainers write it when the run starts; prediction, evaluation and reports read it. Weights live beside it, in `model.safetensors`.
"""

from pathlib import Path
from typing import Any, Literal

from utseg.errors import ArtefactError
from utseg.files import write_text
from utseg.planning.plan import Plan
from utseg.planning.settings import Settings, read_model

RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"


class RunRecord(Settings):
    """All settings of a run. `plan` is the plan with `--set` applied; `network_settings` are the arguments of `build_network`.

    `training_cases` and `validation_cases` are case ids. `data_sha256` covers the preprocessed slices of both.
    """

    format: Literal["utseg-run-1"] = "utseg-run-1"
    model: str
    network: str
    network_settings: dict[str, Any]
    in_channels: int
    num_classes: int
    plan: Plan
    recipe: dict[str, Any]
    selection: str
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    epochs: int
    iterations_per_epoch: int
    seed: int
    device: str
    data_sha256: str
    versions: dict[str, str]
    git_revision: str
    started: str


def write_run(record: RunRecord, folder: Path) -> None:
    """Writes `run.json` into the run's folder."""
    write_text(folder / RUN_FILE, record.model_dump_json(indent=2) + "\n")


def read_run(folder: Path) -> RunRecord:
    """Reads `run.json` from the run's folder."""
    if not (folder / RUN_FILE).is_file():
        raise ArtefactError(
            f"{folder}: no trained model is there ({RUN_FILE} not found); run utseg_train first"
        )
    return read_model(RunRecord, folder / RUN_FILE)
