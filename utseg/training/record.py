"""The record of one training run, `run.json`: all that is needed to rebuild the network, to predict with it and to reproduce it.

Trainers write it when the run starts; prediction, evaluation and reports read it. Weights live beside it, in `model.safetensors`: those
of the end of the schedule, averaged where the recipe says so, which no held-back subject chose. Before the end there are none.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utseg.errors import ArtefactError
from utseg.files import write_bytes, write_text
from utseg.label_map import LabelValue
from utseg.planning.plan import Plan
from utseg.settings import AnyValues, Settings, read_model

if TYPE_CHECKING:
    from torch import Tensor

RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"
VALIDATION_FOLDER = "validation"
SUMMARY_FILE = "summary.json"
Checkpoint = Literal["final", "best"]
"""Weights of a run: of the end of its schedule, or those that its validation liked best, which its held-back subjects so chose."""
SCORES_SUFFIX = ".scores"  # of the TensorBoard event file with the final scores


class InitialWeights(Settings):
    """The file that a run started from: its name, its checksum, and how many of the network's tensors it filled.

    `saw`: how many of the subjects that this run holds back trained those weights, as far as a `run.json` beside the file says.
    `labels`: how its outputs are numbered, as the run that it is of says; None where nothing does.
    `scans`: checksums of all scans that trained those weights, and the weights that they began from, as far as their records say.
    """

    file: str
    sha256: str
    tensors: int
    saw: int = 0
    labels: dict[str, LabelValue] | None = None
    scans: tuple[str, ...] = ()


class EarlyEnd(Settings):
    """A run that did not come to its planned end: why, after which epoch its schedule was shortened, and how many were planned."""

    why: str
    epoch: int
    planned_epochs: int


class RunRecord(Settings):
    """All settings of a run. `plan` is the plan for the run's network, with `--set` applied.

    `initial_weights`: None where training began from random ones.
    `training_cases` and `validation_cases` are case ids. `data_sha256` covers the preprocessed slices of both.
    `training_scans`: checksums of the training cases' voxels and image files, by which their scans are known under any name.
    `epochs`: as many as the schedule has, also where it was shortened. `patience`: epochs without a better validation Dice that end it.
    """

    format: Literal["utseg-run-1"] = "utseg-run-1"
    model: str
    plan: Plan
    recipe: AnyValues
    initial_weights: InitialWeights | None = None
    selection: str
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    training_scans: tuple[str, ...] = ()
    epochs: int
    iterations_per_epoch: int
    patience: int | None = None
    ended_early: EarlyEnd | None = None
    seed: int
    device: str
    compiled: bool = False
    data_sha256: str
    versions: dict[str, str]
    git_revision: str
    started: str

    @property
    def seen_scans(self) -> frozenset[str]:
        """Checksums of all scans that trained its weights, those that its initial weights saw among them."""
        return frozenset(self.training_scans).union(
            self.initial_weights.scans if self.initial_weights else ()
        )

    @property
    def planned_epochs(self) -> int:
        """The length of the schedule that the run began with."""
        return self.ended_early.planned_epochs if self.ended_early else self.epochs


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


def is_finished(folder: Path) -> bool:
    """Whether the run in this folder has ended: its last act is the summary of the validation at native resolution."""
    files = RUN_FILE, WEIGHTS_FILE, f"{VALIDATION_FOLDER}/{SUMMARY_FILE}"
    return all((folder / file).is_file() for file in files)


def scores_files(folder: Path) -> list[Path]:
    """The TensorBoard event files with a run's final scores: one, or none yet."""
    return list(folder.glob(f"events.out.tfevents.*{SCORES_SUFFIX}"))


def tensors_sha256(tensors: Mapping[str, "Tensor"]) -> str:
    """SHA-256 over names, types, shapes and values of tensors: a file format does not notice a flipped bit, this does."""
    import numpy as np
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(np.ascontiguousarray(plain.reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()


def write_weights(weights: Mapping[str, "Tensor"], folder: Path) -> None:
    """Writes `model.safetensors` into the run's folder, with a checksum of the values in its header."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_bytes(folder / WEIGHTS_FILE, save(plain, metadata={"tensors_sha256": tensors_sha256(plain)}))


def read_weights(folder: Path) -> dict[str, "Tensor"]:
    """Reads `model.safetensors` from the run's folder. A missing or damaged file raises ArtefactError that names it."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get("tensors_sha256")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — not a mapping
    except FileNotFoundError:
        raise ArtefactError(
            f"{path}: not found, the training has not come to its end; utseg_train with --resume goes on with it"
        ) from None
    except SafetensorError as error:
        raise ArtefactError(f"{path}: damaged ({error}); copy it again or train again") from None
    if expected is not None and expected != tensors_sha256(weights):
        raise ArtefactError(
            f"{path}: damaged, its values do not match their checksum; copy it again or train again"
        )
    return weights
