"""What worker processes do around the network: read, check and preprocess a volume; bring its probabilities back and write them.

torch is never imported here, so that workers start quickly and stay small. The network itself runs in the main process.

Axes: K classes, Z slices, Y rows, X columns.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import UtsegError
from utseg.files import atomic_path, sha256
from utseg.inference.agreement import Agreement, Sums, agreement_between, entropy, expected_dice
from utseg.label_map import has_regions
from utseg.labels import class_numbers, decide, members, to_values
from utseg.notices import Notice
from utseg.planning.plan import Preprocessing
from utseg.postprocess import Postprocessing, postprocess
from utseg.predict.record import ENTROPY_FOLDER, input_checksums
from utseg.preprocess.case import CaseProperties, preprocess_case, restore_labels, restore_probabilities
from utseg.quality import CaseQuality, QualitySettings, assess
from utseg.rawdata.gate import LoadedCase, read_case
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.names import mask_name
from utseg.rawdata.voxels import voxels_sha256
from utseg.rawdata.write import write_mask

Array = NDArray[np.float32]
PROBABILITIES_SUFFIX = ".npz"
ENTROPY_SUFFIX = "_entropy.nii.gz"
ENTROPY_STEPS = 255
"""An entropy map is stored as uint8 with a slope of 1 / 255: 0 … 1 to every reader, in steps finer than it means."""


@dataclass(frozen=True)
class Outputs:
    """What a prediction writes into `folder` beside the masks, and what is done to these before."""

    folder: Path
    probabilities: bool
    overlays: bool
    entropy: bool
    postprocessing: Postprocessing
    quality: QualitySettings


@dataclass(frozen=True)
class Volume:
    """One 3-D volume to predict: a case, or one frame of its cine (`frames` > 1). `preprocessings`: one for each group of models."""

    case: Case
    frame: int | None
    frames: int
    preprocessings: tuple[Preprocessing, ...]

    @property
    def name(self) -> str:
        """For messages: the case and, of a cine, the frame."""
        return self.case.case_id if self.frames == 1 else f"{self.case.case_id} frame {self.frame}"


@dataclass(frozen=True)
class Preprocessed:
    """A volume ready for the network, once for each plan. `inputs`: SHA-256 of the image files, where it is the first of its case.
    `scans`: those of its voxels."""

    volume: Volume
    images: tuple[Array, ...]
    properties: tuple[CaseProperties, ...]
    geometry: Geometry
    inputs: dict[str, str]
    warnings: tuple[Notice, ...]
    scans: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """A volume after the network: probabilities for each plan, how many models each is the mean of, and the agreement of its members.

    `images` are gone. `threads`: of each batch of windows, one plan's after the other's.
    """

    source: Preprocessed
    probabilities: tuple[Array, ...]
    members: tuple[int, ...]
    agreements: tuple[Agreement, ...]
    outputs: Outputs
    threads: tuple[int, ...]


@dataclass(frozen=True)
class Segmented:
    """A predicted volume on its native grid: its mask in values of labels and in classes, and whether postprocessing changed it.

    `native_KZYX`: the probabilities, None where nothing asked for them there. `agreement`: of all members.
    """

    mask_ZYX: NDArray[np.uint8]
    classes_ZYX: NDArray[np.uint8]
    changed: bool
    native_KZYX: Array | None
    agreement: Agreement


@dataclass(frozen=True)
class Restored:
    """A volume on its native grid. `files`: SHA-256 of what was written for it, by name; a frame's mask and entropy are not written yet."""

    source: Preprocessed
    mask_ZYX: NDArray[np.uint8]
    entropy_ZYX: NDArray[np.uint8] | None
    quality: CaseQuality
    files: dict[str, str]
    threads: tuple[int, ...]


def prepare(volume: Volume) -> Preprocessed:
    """Reads a volume through the gate and makes each of its preprocessings. Raises what the gate raises."""
    case = replace(volume.case, label=None, frame=volume.frame)
    is_first = volume.frames == 1 or volume.frame == 0
    # With the first frame the whole file is checked.
    loaded = read_case(case, volume.preprocessings[0].labels, read_on=not is_first)
    inputs = input_checksums(case) if is_first else {}
    return replace(preprocess(volume, loaded), inputs=inputs, scans=voxels_sha256(loaded.image_CZYX))


def preprocess(volume: Volume, loaded: LoadedCase) -> Preprocessed:
    """Makes each preprocessing of a volume that was read, equal ones once. Checksums are left empty. Raises as `preprocess_case`."""
    wanted = volume.preprocessings
    made = {at: preprocess_case(loaded, each) for at, each in enumerate(wanted) if wanted.index(each) == at}
    done = [made[wanted.index(each)] for each in wanted]
    return Preprocessed(
        volume,
        tuple(each.image_CZYX for each in done),
        tuple(each.properties for each in done),
        loaded.geometry,
        {},
        loaded.warnings,
        (),
    )


def segment(predicted: Predicted) -> Segmented:
    """Brings the probabilities onto the native grid, takes the likeliest class, or what regions paint, and postprocesses.

    Masks have the values of the plan's labels. Models of several plans are averaged there, on the grid that they share.
    """
    source = predicted.source
    labels = source.volume.preprocessings[0].labels
    native_KZYX: Array | None = None
    agreement = predicted.agreements[0]
    if predicted.outputs.probabilities or predicted.outputs.entropy or len(predicted.probabilities) > 1:
        natives_KZYX = [
            restore_probabilities(probabilities, properties)
            for probabilities, properties in zip(predicted.probabilities, source.properties, strict=True)
        ]
        native_KZYX = _mean(natives_KZYX, predicted.members)
        likeliest_ZYX = decide(native_KZYX, labels)
        if len(natives_KZYX) > 1:
            agreement = _agreement_of_several(predicted, natives_KZYX)
    else:
        likeliest_ZYX = restore_labels(predicted.probabilities[0], source.properties[0], labels)
    classes_ZYX = postprocess(likeliest_ZYX, predicted.outputs.postprocessing, class_numbers(labels))
    changed = not np.array_equal(classes_ZYX, likeliest_ZYX)
    return Segmented(to_values(classes_ZYX, labels), classes_ZYX, changed, native_KZYX, agreement)


def restore(predicted: Predicted) -> Restored:
    """Segments a volume, judges the mask, writes what is asked for.

    The mask and the entropy of a single volume are written here; those of a cine's frames are handed back to become one file.
    """
    source, found = predicted.source, segment(predicted)
    labels = source.volume.preprocessings[0].labels
    mask_ZYX, native_KZYX, agreement = found.mask_ZYX, found.native_KZYX, found.agreement
    quality = assess(
        found.classes_ZYX,
        source.geometry.spacing_zyx_mm,
        class_numbers(labels),
        _expected_dice(predicted, native_KZYX, found.classes_ZYX, changed=found.changed),
        agreement.dice(),
        agreement.members,
        predicted.outputs.quality,
    )
    entropy_ZYX: NDArray[np.uint8] | None = None
    if predicted.outputs.entropy and native_KZYX is not None:
        entropy_ZYX = np.rint(entropy(native_KZYX, regions=has_regions(labels)) * ENTROPY_STEPS).astype(
            np.uint8
        )
    files = _write(predicted, native_KZYX, mask_ZYX, entropy_ZYX)
    return Restored(source, mask_ZYX, entropy_ZYX, quality, files, predicted.threads)


def _write(
    predicted: Predicted,
    native_KZYX: Array | None,
    mask_ZYX: NDArray[np.uint8],
    entropy_ZYX: NDArray[np.uint8] | None,
) -> dict[str, str]:
    """Writes what of a volume is a file of its own; returns the SHA-256 of each by name."""
    volume, geometry = predicted.source.volume, predicted.source.geometry
    files: dict[str, str] = {}
    if predicted.outputs.probabilities and native_KZYX is not None:
        path = predicted.outputs.folder / probabilities_name(volume.case.case_id, volume.frame, volume.frames)
        write_probabilities(path, native_KZYX, geometry)
        files[path.name] = sha256(path)
    if volume.frames == 1:
        files |= write_case(predicted.outputs.folder, volume.case, mask_ZYX, entropy_ZYX, geometry)
    return files


def _mean(natives_KZYX: Sequence[Array], members: Sequence[int]) -> Array:
    """Weighted by how many models each is the mean of."""
    if len(natives_KZYX) == 1:
        return natives_KZYX[0]
    shares = [np.float32(count / sum(members)) for count in members]
    total = natives_KZYX[0] * shares[0]
    for native_KZYX, share in zip(natives_KZYX[1:], shares[1:], strict=True):
        total = total + native_KZYX * share
    return total


def _expected_dice(
    predicted: Predicted, native_KZYX: Array | None, classes_ZYX: NDArray[np.uint8], *, changed: bool
) -> Sums:
    """That of the mask that is written, which postprocessing has `changed` or not.

    One plan's likeliest labels are judged on the network's grid, which spares the way of all probabilities to the native one.
    """
    labels = predicted.source.volume.preprocessings[0].labels
    members_KN = members(labels)
    if len(predicted.probabilities) == 1 and not changed:
        probabilities_KZYX = predicted.probabilities[0]
        return expected_dice(probabilities_KZYX, decide(probabilities_KZYX, labels), members_KN)
    if native_KZYX is None:
        native_KZYX = restore_probabilities(predicted.probabilities[0], predicted.source.properties[0])
    return expected_dice(native_KZYX, classes_ZYX, members_KN)


def _agreement_of_several(predicted: Predicted, natives_KZYX: Sequence[Array]) -> Agreement:
    """That of models of several plans, on the native grid that they share."""
    voxels = natives_KZYX[0][0].size
    alike = [
        agreement.scaled(voxels / probabilities[0].size)
        for agreement, probabilities in zip(predicted.agreements, predicted.probabilities, strict=True)
    ]
    return agreement_between(alike, natives_KZYX)


def probabilities_name(case_id: str, frame: int | None, frames: int) -> str:
    """CASE.npz, and CASE_frame007.npz for a frame of a cine."""
    return (
        f"{case_id}_frame{frame:03d}{PROBABILITIES_SUFFIX}" if frames > 1 else case_id + PROBABILITIES_SUFFIX
    )


def write_probabilities(path: Path, probabilities_KZYX: Array, geometry: Geometry) -> None:
    """Writes an npz with `probabilities`, float32, by channel (background, then labels by value, or regions in their order) and the axes
    of the file, last axis first, as the mask's voxels are; and `geometry`, the JSON text of where they lie.
    """
    in_file_KZYX = geometry.to_file(probabilities_KZYX)

    def check(written: Path) -> None:
        with np.load(written, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["probabilities"], in_file_KZYX):
                raise UtsegError(
                    f"{path}: what was written does not read back the same; is the disk full or failing?"
                )

    with atomic_path(path, check) as temporary:
        np.savez_compressed(
            temporary, probabilities=in_file_KZYX, geometry=np.array(json.dumps(geometry.to_json()))
        )


def write_case(
    folder: Path,
    case: Case,
    mask: NDArray[np.uint8],
    entropy_steps: NDArray[np.uint8] | None,
    geometry: Geometry,
) -> dict[str, str]:
    """Writes the mask and entropy/CASE_entropy.nii.gz, 3-D or 4-D, and returns their SHA-256 by name."""
    to_write = {mask_name(case.case_id, case.images[0].name): (mask, 1.0)}
    if entropy_steps is not None:
        to_write[entropy_name(case.case_id)] = entropy_steps, 1 / ENTROPY_STEPS
    written: list[Path] = []
    for name, (values, slope) in to_write.items():
        written += write_mask(folder / name, values, geometry, case.images[0], slope=slope)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in written}


def entropy_name(case_id: str) -> str:
    """The entropy map of a case in the folder of the masks."""
    return f"{ENTROPY_FOLDER}/{case_id}{ENTROPY_SUFFIX}"
