"""Weights to start from (`--weights`): our own, a published checkpoint, or anybody's with the network's own names.

A file is read without executing anything in it. What fits is decided by names and shapes: a published format that the network knows may
cover a part of it (an encoder), anything else has to fit whole unless the user allows mismatches.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utseg.errors import ArtefactError, InputError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import Labels, has_regions
from utseg.labels import LabelMismatch, class_numbers, common_labels, in_words, same_numbering
from utseg.networks.network import SegmentationNetwork
from utseg.planning.plan import SLICE_OFFSETS, Plan
from utseg.planning.task import planned_task
from utseg.rawdata.channels import same_channels
from utseg.training.record import WEIGHTS_FILE

logger = logging.getLogger("utseg")
# Keys under which checkpoints keep their tensors: ours, then those that people use.
CONTAINERS = ("state", "network", "state_dict", "model_state_dict", "model", "network_weights")
COUNTER = "num_batches_tracked"
SLICE_WORDS = {-1: " of the slice before", 0: " of the slice", 1: " of the slice after"}


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file go into a network. `values` have its names; `fresh` are those of the network that the file lacks.

    `known`: of tensors that the file has a part of, where that is, in their shape.
    `mismatches`: what a user has to allow, in words, by kind ("missing", "unknown", "of another shape").
    """

    values: dict[str, Tensor]
    fresh: list[str]
    mismatches: dict[str, list[str]]
    known: dict[str, Tensor]


@dataclass(frozen=True)
class Entries:
    """Outputs or inputs of two networks by what they mean: along the `axes` of tensors, by name, each of ours is the one of that number
    in `sources` among their `count`, or none of them.
    """

    axes: Mapping[str, tuple[int, ...]]
    sources: Sequence[int | None]
    count: int

    def place(self, value: Tensor, axis: int, size: int) -> Tensor:
        """A tensor of theirs with our entries along the axis, of that size; 0 where none of theirs is the same.

        As it is where it has other entries than theirs. Networks that repeat a single input have it in each copy: that is one entry.
        """
        if self.count == 1:
            value = value.sum(axis, keepdim=True, dtype=value.dtype)
        if value.shape[axis] != self.count:
            return value
        copies = size if len(self.sources) == 1 else 1
        parts = [value.narrow(axis, source or 0, 1) * (source is not None) for source in self.sources]
        return torch.cat(parts * copies, axis) / copies


def weights_file(path: Path) -> Path:
    """The file itself, or the weights of a run's folder. Raises InputError where there is none."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not require_no_broken_link(file).is_file():
        raise InputError(f"--weights {path}: no such file")
    return file


def match_outputs(
    axes: Mapping[str, tuple[int, ...]],
    tensors: Collection[str],
    theirs: Labels | None,
    ours: Labels,
    path: Path,
    *,
    allow_mismatch: bool,
) -> Entries | None:
    """Which outputs of the file are which of the plan's labels, by name; None where all stay in their order, which the log says where
    nothing else does. Background is the same in all. `axes`: along which the network has an output, by the names of tensors.

    Where no structure is the same, raises LabelMismatch, or leaves the outputs as initialised if mismatches are allowed.
    """
    if theirs is None:
        if axes.keys() & tensors:
            text = "%s: nothing says how its outputs are numbered; taken as %s"
            logger.info(text, path, in_words(class_numbers(ours)))
        return None
    matching = common_labels(ours, theirs)
    if not matching.names:
        if not allow_mismatch:
            mixed = has_regions(ours) != has_regions(theirs)
            raise LabelMismatch(
                f"--weights {path}: labels do not match by name: {in_words(ours)} in the plan, {in_words(theirs)} in the weights; none is "
                f"the same{', as regions and plain labels never are' if mixed else ''}; give the same names to both, or leave the outputs "
                "as initialised with --allow-mismatch"
            )
        return Entries(axes, [None] * (1 + len(matching.ours)), 1 + len(matching.theirs))
    if same_numbering(ours, theirs):
        return None
    new = [name for name in matching.ours if name not in matching.names]
    gone = [name for name in matching.theirs if name not in matching.names.values()]
    _say_matched(path, "outputs", matching.in_words(), new, gone)
    return Entries(axes, matching.channel_sources(), 1 + len(matching.theirs))


def match_inputs(theirs: Plan | None, ours: Plan, path: Path, *, allow_mismatch: bool) -> Entries | None:
    """Which inputs of the network of the file are which of the plan's, by the names of channels, in 2.5-D by slice too; None where all
    stay in their order, which the log says where nothing else does. A single image channel is the same one whatever its name.

    Where none is the same, raises InputError, or takes as many inputs all the same, and others not, if mismatches are allowed.
    """
    if theirs is None:
        if ours.in_channels > 1:
            text = (
                "%s: nothing says what its input channels are; where they are as many, they are taken as %s"
            )
            logger.info(text, path, ", ".join(_inputs(ours)))
        return None
    sources = input_sources(theirs, ours)
    if sources == [*range(theirs.in_channels)]:
        return None
    read, other = _inputs(ours), _inputs(theirs)
    if not any(source is not None for source in sources):
        problem = f"--weights {path}: its network reads {', '.join(other)}, that of the plan {', '.join(read)}: none is the same"
        if not allow_mismatch:
            raise InputError(
                f"{problem}; choose weights of the same inputs, or go on without these with --allow-mismatch"
            )
        as_many = len(read) == len(other)
        logger.warning("%s; %s", problem, "taken all the same" if as_many else "left as initialised")
        if as_many:
            return None
    else:
        pairs = [f"{name} = {other[n]}" for name, n in zip(read, sources, strict=True) if n is not None]
        new = [name for name, source in zip(read, sources, strict=True) if source is None]
        gone = [name for number, name in enumerate(other) if number not in sources]
        _say_matched(path, "inputs", ", ".join(pairs), new, gone)
    return Entries(planned_task(ours).input_axes(), sources, len(other))


def input_sources(theirs: Plan, ours: Plan) -> list[int | None]:
    """For each input of the network of our plan the number of the same one in theirs; None where they have none."""
    offsets = SLICE_OFFSETS[theirs.configuration]
    return [
        channel * len(offsets) + offsets.index(offset) if channel is not None and offset in offsets else None
        for channel in same_channels(ours.preprocessing.channel_names, theirs.preprocessing.channel_names)
        for offset in SLICE_OFFSETS[ours.configuration]
    ]


def _inputs(plan: Plan) -> list[str]:
    """What a network reads, in order."""
    names, offsets = plan.preprocessing.channel_names, SLICE_OFFSETS[plan.configuration]
    return [
        f"{name}{SLICE_WORDS[offset] if len(offsets) > 1 else ''}" for name in names for offset in offsets
    ]


def _say_matched(path: Path, what: str, pairs: str, new: Sequence[str], gone: Sequence[str]) -> None:
    rest = f"; new, as initialised: {', '.join(new)}" if new else ""
    rest += f"; not taken over: {', '.join(gone)}" if gone else ""
    logger.info("%s: %s matched by name: %s%s", path, what, pairs, rest)


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


def fit_weights(
    network: SegmentationNetwork, tensors: Mapping[str, Tensor], matched: Sequence[Entries] = ()
) -> Fit:
    """Which of the tensors go where, with the entries that are matched. The network is not changed; it may lie on the meta device.

    Published weights of a pretrained part need not have the rest of the network.
    """
    translated = network.from_public_weights(tensors)
    given, known = _placed(tensors if translated is None else translated, network, matched)
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
    partly = {name: there for name, there in known.items() if name in values}
    return Fit(values, fresh, {kind: names for kind, names in mismatches.items() if names}, partly)


def _placed(
    tensors: Mapping[str, Tensor], network: SegmentationNetwork, matched: Sequence[Entries]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors with their entries where the network has them, without those that have none; and of those that have a part, where."""
    values, own = dict(tensors), network.state_dict()
    known: dict[str, Tensor] = {}
    for entries in matched:
        for name in sorted(entries.axes.keys() & values.keys() & own.keys()):
            there = torch.ones_like(values[name]) * known.get(name, torch.tensor(True))
            for axis in entries.axes[name]:
                size = own[name].shape[axis]
                values[name], there = (entries.place(each, axis, size) for each in (values[name], there))
            known[name] = there > 0
    given = {name: value for name, value in values.items() if name not in known or known[name].any()}
    return given, {name: there for name, there in known.items() if not there.all()}


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
    state, trained = network.state_dict(), 0
    with torch.no_grad():
        for name, value in fit.values.items():
            own, known = state[name], fit.known.get(name, torch.tensor(True))
            own.copy_(torch.where(known.to(own.device), value.to(own), own))
            trained += int(known.expand(own.shape).sum())
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
