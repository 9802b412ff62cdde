"""What worker processes do around the network: read, check and preprocess a volume; bring its probabilities back and write them.

torch is never imported here, so that workers start quickly and stay small. The network itself runs in the main process.

Axes: K classes, Z slices, Y rows, X columns.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import UtsegError
from utseg.files import atomic_path, sha256
from utseg.planning.plan import Plan
from utseg.predict.record import input_checksums
from utseg.preprocess.case import CaseProperties, preprocess_case, restore_labels, restore_probabilities
from utseg.rawdata.gate import Geometry, read_case, write_mask

Array = NDArray[np.float32]
MASK_SUFFIX = ".nii.gz"
PROBABILITIES_SUFFIX = ".npz"


@dataclass(frozen=True)
class Volume:
    """One 3-D volume to predict: a case, or one frame of its cine (`frames` > 1). `plans`: each distinct preprocessing of the models."""

    case: Case
    frame: int | None
    frames: int
    plans: tuple[Plan, ...]

    @property
    def name(self) -> str:
        """For messages: the case and, of a cine, the frame."""
        return self.case.case_id if self.frames == 1 else f"{self.case.case_id} frame {self.frame}"


@dataclass(frozen=True)
class Preprocessed:
    """A volume ready for the network, once for each plan. `inputs`: SHA-256 of the image files, where it is the first of its case."""

    volume: Volume
    images: tuple[Array, ...]
    properties: tuple[CaseProperties, ...]
    geometry: Geometry
    inputs: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """A volume after the network: probabilities for each plan, and how many models each is the mean of. `images` are gone."""

    source: Preprocessed
    probabilities: tuple[Array, ...]
    members: tuple[int, ...]
    output: Path
    save_probabilities: bool


@dataclass(frozen=True)
class Restored:
    """A volume on its native grid. `files`: SHA-256 of what was written for it, by name; a frame's mask is not written yet."""

    source: Preprocessed
    mask_ZYX: NDArray[np.uint8]
    files: dict[str, str]


def prepare(volume: Volume) -> Preprocessed:
    """Reads a volume through the gate and preprocesses it for each plan. Raises what the gate raises."""
    case = replace(volume.case, label=None, frame=volume.frame)
    loaded = read_case(case, volume.plans[0].labels)
    done = [preprocess_case(loaded, plan) for plan in volume.plans]
    return Preprocessed(
        volume,
        tuple(each.image_CZYX for each in done),
        tuple(each.properties for each in done),
        loaded.geometry,
        input_checksums(case) if volume.frames == 1 or volume.frame == 0 else {},
        loaded.warnings,
    )


def restore(predicted: Predicted) -> Restored:
    """Brings the probabilities onto the native grid, takes the likeliest label, writes what is asked for.

    Models of several plans are averaged there, on the grid that they share. The mask of a single volume is written here; those of a
    cine's frames are handed back to become one file.
    """
    source = predicted.source
    volume = source.volume
    files: dict[str, str] = {}
    if predicted.save_probabilities or len(predicted.probabilities) > 1:
        native_KZYX = _native_mean(predicted)
        mask_ZYX = native_KZYX.argmax(0).astype(np.uint8)
        if predicted.save_probabilities:
            path = predicted.output / probabilities_name(volume)
            write_probabilities(path, native_KZYX, source.geometry)
            files[path.name] = sha256(path)
    else:
        mask_ZYX = restore_labels(predicted.probabilities[0], source.properties[0])
    if volume.frames == 1:
        files |= write_case_mask(predicted.output, volume.case, mask_ZYX, source.geometry)
    return Restored(source, mask_ZYX, files)


def _native_mean(predicted: Predicted) -> Array:
    total: Array | None = None
    for probabilities, properties, members in zip(
        predicted.probabilities, predicted.source.properties, predicted.members, strict=True
    ):
        native_KZYX: Array = restore_probabilities(probabilities, properties)
        if len(predicted.members) == 1:
            return native_KZYX
        share = np.float32(members / sum(predicted.members))
        total = native_KZYX * share if total is None else total + native_KZYX * share
    assert total is not None, "at least one model"
    return total


def probabilities_name(volume: Volume) -> str:
    """CASE.npz, and CASE_frame007.npz for a frame of a cine."""
    frame = f"_frame{volume.frame:03d}" if volume.frames > 1 else ""
    return f"{volume.case.case_id}{frame}{PROBABILITIES_SUFFIX}"


def write_probabilities(path: Path, probabilities_KZYX: Array, geometry: Geometry) -> None:
    """Writes an npz with `probabilities` (K, Z, Y, X), float32, and `geometry`, the JSON text of where they lie."""

    def check(written: Path) -> None:
        with np.load(written, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["probabilities"], probabilities_KZYX):
                raise UtsegError(
                    f"{path}: what was written does not read back the same; is the disk full or failing?"
                )

    with atomic_path(path, check) as temporary:
        np.savez_compressed(
            temporary, probabilities=probabilities_KZYX, geometry=np.array(json.dumps(geometry.to_json()))
        )


def write_case_mask(output: Path, case: Case, mask: NDArray[np.uint8], geometry: Geometry) -> dict[str, str]:
    """Writes CASE.nii.gz, 3-D or 4-D, and returns its SHA-256 by name."""
    path = output / f"{case.case_id}{MASK_SUFFIX}"
    write_mask(path, mask, geometry, case.images[0])
    return {path.name: sha256(path)}
