"""Measures one case that passed the gate: intensities, and size and place of each label. Reads no file and knows no other case."""

from typing import TYPE_CHECKING

import numpy as np

from utseg.fingerprint.foreground import labelled_intensities
from utseg.fingerprint.model import PERCENTILES, CaseFingerprint, ChannelFigures, LabelFigures, rounded
from utseg.label_map import Labels, inside, structures
from utseg.labels import ignored, without_ignored
from utseg.rawdata.channels import require_bytes, scheme_of
from utseg.rawdata.voxels import voxels_sha256

if TYPE_CHECKING:
    from utseg.rawdata.gate import LoadedCase

MAX_SAMPLED_VOXELS = 4_000_000


def measure_case(
    loaded: "LoadedCase",
    labels: Labels,
    channel_names: tuple[str, ...],
    checksums: dict[str, str],
    stamps: dict[str, tuple[int, int]],
) -> CaseFingerprint:
    """The figures of one loaded case; its label is required. Percentiles of volumes beyond four million voxels use every n-th voxel."""
    case = loaded.case
    if loaded.label_ZYX is None:
        raise ValueError(f"case {case.case_id}: a case without label has no place in a fingerprint")
    for channel, name in enumerate(channel_names):
        if scheme_of(name) == "rgb_to_0_1":
            require_bytes(loaded.image_CZYX[channel], case.case_id, channel)
    label_ZYX, spacing = without_ignored(loaded.label_ZYX, labels), loaded.geometry.spacing_zyx_mm
    foreground = measure_label(label_ZYX > 0, spacing)
    center = None if foreground is None else _center_yx(label_ZYX > 0)
    measured = {
        name: measure_label(inside(label_ZYX, value), spacing, center)
        for name, value in structures(labels).items()
    }
    return CaseFingerprint(
        case_id=case.case_id,
        subject=case.subject,
        phase=case.phase,
        groups=dict(case.groups),
        frame=case.frame,
        checksums=checksums,
        stamps=stamps,
        voxels_sha256=voxels_sha256(loaded.image_CZYX),
        size_zyx=loaded.geometry.size_zyx,
        spacing_zyx_mm=_triple_mm((1, 1, 1), spacing),
        orientation=loaded.geometry.orientation,
        way=loaded.geometry.way,
        ignored_share=rounded(ignored(loaded.label_ZYX, labels).mean()),
        nonzero_share=_nonzero_share((loaded.image_CZYX != 0).any(0)),
        channels=tuple(
            measure_channel(image_ZYX, label_ZYX, foreground=scheme_of(name) == "CT")
            for name, image_ZYX in zip(channel_names, loaded.image_CZYX, strict=True)
        ),
        labels={name: figures for name, figures in measured.items() if figures is not None},
        foreground=foreground,
        warnings=loaded.warnings,
    )


def measure_channel(
    image_ZYX: np.ndarray, label_ZYX: np.ndarray, *, foreground: bool = False
) -> ChannelFigures:
    """Percentiles, range, mean and standard deviation of one channel, and where the labelled voxels lie among the percentiles.

    foreground: whether the intensities of the labelled voxels are wanted, too.
    """
    voxels = image_ZYX.reshape(-1)
    step = -(-voxels.size // MAX_SAMPLED_VOXELS)
    values = np.percentile(voxels[::step], PERCENTILES)
    labelled = np.sort(image_ZYX[label_ZYX > 0])
    below = np.searchsorted(labelled, values, side="left") / max(1, labelled.size)
    return ChannelFigures(
        percentiles=tuple(rounded(value) for value in values),
        labelled_below=tuple(rounded(value) for value in below),
        minimum=float(voxels.min()),
        maximum=float(voxels.max()),
        mean=rounded(voxels.mean(dtype=np.float64)),
        sd=rounded(voxels.std(dtype=np.float64)),
        labelled=labelled_intensities(labelled) if foreground and labelled.size else None,
    )


def measure_label(
    mask_ZYX: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
    center_yx: tuple[float, float] | None = None,
) -> LabelFigures | None:
    """Size and place of a mask, None where it is empty. The offset is taken from `center_yx` (voxels), by default its own centre."""
    held_z, held_y, held_x = (np.flatnonzero(mask_ZYX.any(axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    if not held_z.size:
        return None
    crop_ZYX = mask_ZYX[held_z[0] : held_z[-1] + 1, held_y[0] : held_y[-1] + 1, held_x[0] : held_x[-1] + 1]
    extent = _triple(crop_ZYX.shape)
    _, dy, dx = spacing_zyx_mm
    areas = crop_ZYX.sum((1, 2))
    held_ZYX, areas = crop_ZYX[areas > 0], areas[areas > 0]
    boxes = np.maximum(_lengths(held_ZYX.any(2)), _lengths(held_ZYX.any(1)))
    own = _center_yx(mask_ZYX)
    center = own if center_yx is None else center_yx
    voxels = int(areas.sum())
    return LabelFigures(
        voxels=voxels,
        volume_ml=rounded(voxels * float(np.prod(spacing_zyx_mm)) / 1000),
        slices=len(areas),
        extent_zyx_px=extent,
        extent_zyx_mm=_triple_mm(extent, spacing_zyx_mm),
        slice_box_px_largest=int(boxes.max()),
        slice_box_px_median=float(np.median(boxes)),
        diameter_mm=rounded(np.median(np.sqrt(areas * dy * dx * 4 / np.pi))),
        thickness_mm=rounded(np.median([_thickness_mm(mask_YX, (dy, dx)) for mask_YX in held_ZYX])),
        offset_yx_mm=(rounded((own[0] - center[0]) * dy), rounded((own[1] - center[1]) * dx)),
    )


def _thickness_mm(mask_YX: np.ndarray, spacing_yx_mm: tuple[float, float]) -> float:
    """Twice the largest distance to the border, which lies half a pixel before the nearest pixel outside."""
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(np.pad(mask_YX, 1), sampling=spacing_yx_mm).max()
    return 2 * float(distance) - min(spacing_yx_mm)


def _center_yx(mask_ZYX: np.ndarray) -> tuple[float, float]:
    rows, columns = mask_ZYX.sum((0, 2)), mask_ZYX.sum((0, 1))
    return (
        float(rows @ np.arange(rows.size) / rows.sum()),
        float(columns @ np.arange(columns.size) / columns.sum()),
    )


def _nonzero_share(nonzero_ZYX: np.ndarray) -> float:
    """Of the volume, the box around what is not 0: what cropping to it would leave."""
    held = [np.flatnonzero(nonzero_ZYX.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return rounded(np.prod([each[-1] + 1 - each[0] for each in held]) / nonzero_ZYX.size)


def _lengths(present_ZL: np.ndarray) -> np.ndarray:
    """Length of the box around what is present, along the last axis; every row holds something."""
    lengths: np.ndarray = present_ZL.shape[1] - present_ZL[:, ::-1].argmax(1) - present_ZL.argmax(1)
    return lengths


def _triple(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = shape
    return z, y, x


def _triple_mm(
    extent: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[float, float, float]:
    z, y, x = (rounded(length * step) for length, step in zip(extent, spacing, strict=True))
    return z, y, x
