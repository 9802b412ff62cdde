"""Scores of parts of a volume, from the same surfaces: every slice on its own, and the basal, mid and apical thirds of a cardiac stack.

Slices: in each that has the structure in prediction or reference, scores are of its pixels, distances between the two outlines within it.
A case's `slice_dice` is the mean over all those slices, one that only one of them has counting 0; its `slice_hd95_mm` the mean over those
that both have. Beside them stands how many both have, the prediction missed, and has to no purpose.

Regions (`utseg.cardiac.thirds`): overlap and volumes count the voxels in a region's slices; distances run from the surface elements in
those slices to the whole other surface, so that cutting a stack makes no new surface.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.thirds import OUTSIDE, REGIONS, Regions, short_axis_regions
from utseg.evaluate.metrics import METRICS, Definition, LabelPair, label_pairs
from utseg.evaluate.surfaces import Directed
from utseg.label_map import Labels


@dataclass(frozen=True)
class StackScores:
    """Per label name: those of the volume, of each slice {"slice", "region", …}, of each region {"region", …}; no regions where it is no
    cardiac short-axis stack."""

    volume: dict[str, dict[str, Any]]
    slices: dict[str, list[dict[str, Any]]]
    regions: dict[str, list[dict[str, Any]]]


def evaluate_stack(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
    definition: Definition | None = None,
    *,
    whole: bool = True,
) -> StackScores:
    """Everything about one case; arguments and errors as of `evaluate_pair`. The volume's scores have the slices' aggregates, too.

    whole: False where the reference is annotated in part only: nothing says then where its stack begins and ends, so there are no regions.
    """
    pairs = label_pairs(prediction_ZYX, reference_ZYX, spacing_zyx_mm, labels, definition or Definition())
    regions = short_axis_regions(reference_ZYX, spacing_zyx_mm, labels) if whole else None
    slices = {name: slice_scores(pair, regions) for name, pair in pairs.items()}
    return StackScores(
        {name: {**pair.scores(), **aggregate(slices[name])} for name, pair in pairs.items()},
        slices,
        {name: region_scores(pair, regions) if regions else [] for name, pair in pairs.items()},
    )


def slice_scores(pair: LabelPair, regions: Regions | None = None) -> list[dict[str, Any]]:
    """One row for each slice that the prediction or the reference has: its index in the volume, region, scores, areas in mm², status."""
    counts_Z3 = pair.counts.T.tolist()
    both = [bool(predicted and referenced) for predicted, referenced, _ in counts_Z3]
    bounds = []
    if any(both):
        planes = np.arange(len(counts_Z3) + 1)
        bounds = [np.searchsorted(side.planes_N, planes).tolist() for side in pair.directed_in_slices]
    rows = []
    for z, counts in enumerate(counts_Z3):
        if not any(counts):
            continue
        directed: tuple[Directed, ...] = ()
        if both[z]:
            directed = tuple(
                side.where(slice(ends[z], ends[z + 1]))
                for side, ends in zip(pair.directed_in_slices, bounds, strict=True)
            )
        z_in_volume = pair.first_slice + z
        where = {"slice": z_in_volume, "region": regions.name(z_in_volume) if regions else ""}
        rows.append(where | pair.score(counts, directed, "slice"))
    return rows


def aggregate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a case's scores say about its slices. The means are NaN where there is no slice to average."""
    return {metric.key: metric.of_slices(rows) for metric in METRICS if metric.of_slices}


def region_scores(pair: LabelPair, regions: Regions) -> list[dict[str, Any]]:
    """One row for each region: its slices, and Scores. `outside` only where prediction or reference has something there."""
    planes = regions.of_slice_Z if pair.definition.surface == "voxels" else regions.of_corners
    last = pair.first_slice + pair.counts.shape[1]
    of_counts = regions.of_slice_Z[pair.first_slice : last]
    whole = bool(pair.counts[0].any() and pair.counts[1].any())
    rows = []
    for index, region in enumerate(REGIONS):
        counts = pair.counts[:, of_counts == index].sum(axis=1).tolist()
        if index == OUTSIDE and not any(counts):
            continue
        directed: tuple[Directed, ...] = ()
        if whole and counts[0] and counts[1]:
            directed = tuple(
                side.where(planes[side.planes_N + pair.first_slice] == index) for side in pair.directed
            )
        where = {"region": region, "slices": int(np.count_nonzero(regions.of_slice_Z == index))}
        rows.append(where | pair.score(counts, directed, "region"))
    return rows
