"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file.

A checkpoint is tensors and plain types only, and is only ever loaded with weights_only=True. torch writes a zip with a checksum of each
member and does not check it on reading, so `load` does. The one before the latest stays as `checkpoint_previous.pt`: a damaged latest
costs what came after it, not the run.
"""

import io
import logging
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utseg.errors import ArtefactError
from utseg.files import atomic_path, write_bytes

logger = logging.getLogger("utseg")
LATEST = "checkpoint_latest.pt"
PREVIOUS = "checkpoint_previous.pt"
BEST = "checkpoint_best.pt"
FORMAT = "utseg-checkpoint-2"


def save_latest(state: dict[str, Any], folder: Path) -> None:
    """Writes the state as the latest checkpoint and keeps the one before. A failure leaves both old files as they were."""
    data = _as_bytes(state)
    latest = folder / LATEST
    with atomic_path(latest) as temporary:
        temporary.write_bytes(data)
        if latest.exists():
            with atomic_path(folder / PREVIOUS) as previous:
                shutil.copyfile(latest, previous)


def save_best(state: dict[str, Any], folder: Path) -> None:
    """Writes the state as the best checkpoint: a mark for people, and what is left of a run that came to grief. It is not the model."""
    write_bytes(folder / BEST, _as_bytes(state))


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return (folder / LATEST).exists() or (folder / PREVIOUS).exists()


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The latest state, or, with a warning, the one before where that is damaged or missing; None where there is no checkpoint."""
    if not has_checkpoint(folder):
        return None
    try:
        return load(folder / LATEST)
    except ArtefactError as error:
        if not (folder / PREVIOUS).exists():
            raise
        state = load(folder / PREVIOUS)
        logger.warning("%s; the previous checkpoint is used (epoch %d)", error, state["epoch"])
        (folder / LATEST).unlink(missing_ok=True)  # or the next save would copy it over the good one
        return state


def load(path: Path) -> dict[str, Any]:
    """Loads a checkpoint on the CPU. Missing, damaged or made by something else: ArtefactError that names the file."""
    if not path.is_file():
        raise ArtefactError(f"{path}: not found")
    try:
        with zipfile.ZipFile(path) as members:
            damaged = members.testzip()
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
        made_as = content["format"] if content else FORMAT
        state: dict[str, Any] = content["state"] if content else {}
    except OSError as error:
        raise ArtefactError(f"{path}: could not be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can fail anywhere inside torch, with any type
        raise ArtefactError(
            f"{path}: damaged, or not a checkpoint of ours ({type(error).__name__})"
        ) from error
    if made_as != FORMAT:
        raise ArtefactError(
            f"{path}: is of another version of utseg ({made_as!r}, expected {FORMAT!r}); train on with that, or anew without --resume"
        )
    if not state:
        raise ArtefactError(f"{path}: damaged, its values do not match their checksum")
    return state


def random_state() -> dict[str, Any]:
    """The state of all random generators of this process, as tensors and plain types."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 — libraries draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts all random generators of this process into a saved state."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002


def _as_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "state": state}, buffer)
    return buffer.getvalue()
