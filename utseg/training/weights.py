"""Weights to start from (`--weights`): our own, a published checkpoint, or anybody's with the network's own names.

A file is read without executing anything in it. What fits is decided by names and shapes: a published format that the network knows may
cover a part of it (an encoder), anything else has to fit whole unless the user allows mismatches.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utseg.errors import ArtefactError, InputError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import Labels
from utseg.labels import LabelMismatch, class_numbers, in_words, match_labels, same_numbering
from utseg.networks.network import SegmentationNetwork
from utseg.planning.plan import Plan
from utseg.training.record import WEIGHTS_FILE

logger = logging.getLogger("utseg")
# Keys under which checkpoints keep their tensors: ours, then those that people use.
CONTAINERS = ("state", "network", "state_dict", "model_state_dict", "model", "network_weights")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file go into a network. `values` have its names; `fresh` are those of the network that the file lacks.

    `mismatches`: what a user has to allow, in words, by kind ("missing", "unknown", "of another shape").
    """

    values: dict[str, Tensor]
    fresh: list[str]
    mismatches: dict[str, list[str]]


def weights_file(path: Path) -> Path:
    """The file itself, or the weights of a run's folder. Raises InputError where there is none."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not require_no_broken_link(file).is_file():
        raise InputError(f"--weights {path}: no such file")
    return file


def number_outputs(
    network: SegmentationNetwork,
    tensors: Mapping[str, Tensor],
    path: Path,
    theirs: Labels | None,
    ours: Labels,
    *,
    allow_mismatch: bool,
) -> dict[str, Tensor]:
    """The tensors with their outputs in the order of our labels, matched by name; as they are where nothing says how they are numbered.

    Where names do not match, raises LabelMismatch, or leaves the outputs out if mismatches are allowed.
    """
    outputs = network.class_axes().keys() & tensors.keys()
    if theirs is None:
        if outputs:
            logger.info(
                "%s: nothing says how its outputs are numbered; taken as %s",
                path,
                in_words(class_numbers(ours)),
            )
        return dict(tensors)
    try:
        matching = match_labels(ours, theirs, we="the plan", they=str(path))
    except LabelMismatch as error:
        if not allow_mismatch:
            raise LabelMismatch(
                f"--weights {error}, or leave the outputs as initialised with --allow-mismatch"
            ) from None
        return {name: value for name, value in tensors.items() if name not in outputs}
    if same_numbering(ours, theirs):
        return dict(tensors)
    logger.info("%s: outputs matched by name: %s", path, matching.in_words())
    return network.in_class_order(tensors, matching.channel_order())


def check_inputs(theirs: Plan | None, ours: Plan, path: Path, *, allow_mismatch: bool) -> None:
    """Raises InputError where networks of the two plans read other things from as many channels, or warns if mismatches are allowed.

    The name of a single image channel is no matter. Where nothing says what the network of the file reads, the log says what is taken.
    """
    if ours.in_channels == 1 or (theirs and theirs.in_channels != ours.in_channels):
        return  # nothing to confuse, or shapes tell
    if theirs is None:
        text = "%s: nothing says what its input channels are; where they are as many, they are taken as %s"
        logger.info(text, path, _inputs(ours))
        return
    names, their_names = ours.preprocessing.channel_names, theirs.preprocessing.channel_names
    if theirs.configuration == ours.configuration and (len(names) == 1 or names == their_names):
        return
    problem = f"--weights {path}: its network reads {_inputs(theirs)}, that of the plan {_inputs(ours)}"
    if not allow_mismatch:
        raise InputError(
            f"{problem}; choose weights of the same inputs, or take them all the same with --allow-mismatch"
        )
    logger.warning("%s; taken all the same", problem)


def _inputs(plan: Plan) -> str:
    names = ", ".join(plan.preprocessing.channel_names)
    return (
        names
        if plan.configuration == "2d"
        else f"{names}, each of the slice before, the slice, the slice after"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .npz or torch file by name. Raises ArtefactError where it is damaged or holds anything else."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 — three libraries, each with errors of its own for a damaged file
        # What follows the first sentence is advice to load it unsafely.
        reason = " ".join(str(error).split()).partition(". ")[0][:160]
        raise ArtefactError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {reason}); expected .safetensors, .npz, or a torch file of tensors"
        ) from None
    return _tensors_in(loaded, path)


def _tensors_in(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    items = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {name: value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ArtefactError(f"{path}: holds no tensors by name; expected a state dict")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def fit_weights(network: SegmentationNetwork, tensors: Mapping[str, Tensor]) -> Fit:
    """Which of the tensors go where. The network is not changed; it may lie on the meta device.

    Published weights of a pretrained part need not have the rest of the network.
    """
    translated = network.from_public_weights(tensors)
    given = dict(tensors) if translated is None else translated
    wanted = network.state_dict()
    fresh = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
    pretrained = tuple(prefix for layer in network.pretrained_layers() for prefix in layer)
    covered = pretrained if translated is not None and pretrained else ("",)
    mismatches = {
        "missing": [name for name in fresh if name.startswith(covered)],
        "unknown": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(value.shape)} where {tuple(wanted[name].shape)} is expected"
            for name, value in given.items()
            if name in wanted and value.shape != wanted[name].shape
        ],
    }
    values = {n: v for n, v in given.items() if n in wanted and v.shape == wanted[n].shape}
    return Fit(values, fresh, {kind: names for kind, names in mismatches.items() if names})


def check_fit(fit: Fit, path: Path, network_name: str, *, allow_mismatch: bool) -> None:
    """Raises InputError that lists what does not fit, unless that is allowed and something is left; values have to be finite."""
    wrong = fit.mismatches
    listed = "; ".join(f"{len(names)} {kind}: {listing(names, most=8)}" for kind, names in wrong.items())
    if not fit.values:
        raise InputError(f"{path}: no tensor fits network {network_name} ({listed}); is it of this network?")
    if wrong and not allow_mismatch:
        raise InputError(
            f"{path}: does not fit network {network_name} ({listed}); choose the settings that it was trained with, or leave these "
            "as initialised with --allow-mismatch"
        )
    for name, value in fit.values.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ArtefactError(f"{path}: {name} has values that are not finite")


def fill(network: SegmentationNetwork, fit: Fit, path: Path) -> None:
    """Puts the values into the network, in place, and says what came from the file and what did not."""
    state = network.state_dict()
    with torch.no_grad():
        for name, value in fit.values.items():
            state[name].copy_(value)
    trained = sum(state[name].numel() for name in fit.values)
    everything = sum(value.numel() for value in state.values())
    left = [*fit.fresh, *(line.split(" ")[0] for line in fit.mismatches.get("of another shape", ()))]
    layers = [".".join(name.split(".")[:2]).removesuffix(".weight").removesuffix(".bias") for name in left]
    rest = f"; as initialised: {listing(list(dict.fromkeys(layers)), most=8)}" if left else ""
    share = 100 * trained / everything
    logger.info("%s: %d tensors, %.0f %% of the values, start from it%s", path, len(fit.values), share, rest)
    if unknown := fit.mismatches.get("unknown"):
        logger.warning(
            "%s: %d tensors are not in the network: %s", path, len(unknown), listing(unknown, most=8)
        )
