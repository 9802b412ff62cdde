"""Every definition against the public tool that has it, to rounding; and where tools differ, that they do.

surface-distance, medpy and MONAI are the optional extra `metrics-peers`; what is not installed is skipped.
"""

import numpy as np
import pytest
from scipy import ndimage

from utseg.evaluate.metrics import Definition, evaluate_pair
from utseg.evaluate.stack import evaluate_stack
from utseg.evaluate.surfaces import area_by_code, length_by_code

SPACING = (8.0, 1.5, 1.25)
TOLERANCE = 2.0
SINGLE = {"rel": 2e-6, "abs": 1e-6}  # MONAI computes in float32


def blob(rng, shape=(7, 40, 36)):
    """A smooth random structure that may reach the border of the image."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), (1, 4, 4))
    return noise > np.quantile(noise, 0.7)


@pytest.fixture(scope="module", params=range(4))
def pair(request):
    rng = np.random.default_rng(request.param)
    reference = blob(rng)
    prediction = (
        np.roll(reference, (0, 2, -3), (0, 1, 2)) ^ (rng.random(reference.shape) < 0.01)
        if request.param % 2
        else blob(rng)
    )
    return prediction, reference


def ours(pair, surface, percentile):
    definition = {"surface": surface, "percentile": percentile, "tolerance_mm": TOLERANCE}
    return evaluate_pair(*pair, SPACING, {"x": 1}, **definition)["x"]


def test_medpy_is_voxels_and_pooled(pair):
    binary = pytest.importorskip("medpy.metric.binary")
    scores = ours(pair, "voxels", "pooled")
    theirs = {
        "dice": binary.dc(*pair),
        "jaccard": binary.jc(*pair),
        "precision": binary.precision(*pair),
        "recall": binary.recall(*pair),
        "hd_mm": binary.hd(*pair, SPACING),
        "hd95_mm": binary.hd95(*pair, SPACING),
        "assd_mm": binary.assd(*pair, SPACING),
        "masd_mm": (binary.asd(*pair, SPACING) + binary.asd(*pair[::-1], SPACING)) / 2,
    }
    assert {key: scores[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)


def monai_scores(pair, spacing):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    prediction, reference = (torch.from_numpy(mask)[None, None].float() for mask in pair)
    both = {"y_pred": prediction, "y": reference, "include_background": True, "spacing": list(spacing)}
    return {
        "dice": float(metrics.compute_dice(prediction, reference)),
        "jaccard": float(metrics.compute_iou(prediction, reference)),
        "hd_mm": float(metrics.compute_hausdorff_distance(**both)),
        "hd95_mm": float(metrics.compute_hausdorff_distance(**both, percentile=95)),
        "assd_mm": float(metrics.compute_average_surface_distance(**both, symmetric=True)),
        "surface_dice": float(metrics.compute_surface_dice(**both, class_thresholds=[TOLERANCE])),
    }


def test_monai_is_voxels_and_directed(pair):
    theirs = monai_scores(pair, SPACING)
    scores = ours(pair, "voxels", "directed")
    assert {key: scores[key] for key in theirs} == pytest.approx(theirs, **SINGLE)


def test_monai_surface_dice_with_subvoxels_is_by_area(pair):
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    prediction, reference = (torch.from_numpy(mask)[None, None].float() for mask in pair)
    theirs = metrics.compute_surface_dice(
        prediction,
        reference,
        [TOLERANCE],
        include_background=True,
        spacing=list(SPACING),
        use_subvoxels=True,
    )
    assert ours(pair, "area", "directed")["surface_dice"] == pytest.approx(float(theirs), **SINGLE)


def surface_distance_scores(pair, spacing):
    tool = pytest.importorskip("surface_distance")
    prediction, reference = pair
    found = tool.compute_surface_distances(reference, prediction, spacing)
    back, forth = tool.compute_average_surface_distance(found)
    weight = [found[f"surfel_areas_{side}"].sum() for side in ("gt", "pred")]
    return {
        "dice": tool.compute_dice_coefficient(reference, prediction),
        "hd_mm": tool.compute_robust_hausdorff(found, 100),
        "hd95_mm": tool.compute_robust_hausdorff(found, 95),
        "masd_mm": (back + forth) / 2,
        "assd_mm": (back * weight[0] + forth * weight[1]) / sum(weight),
        "surface_dice": tool.compute_surface_dice_at_tolerance(found, TOLERANCE),
    }


def test_surface_distance_is_by_area_and_directed(pair):
    theirs = surface_distance_scores(pair, SPACING)
    scores = ours(pair, "area", "directed")
    assert {key: scores[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)


def test_every_slice_as_the_tools_score_it_in_two_dimensions(pair):
    prediction, reference = pair
    medpy = pytest.importorskip("medpy.metric.binary")
    plain = evaluate_stack(*pair, SPACING, {"x": 1}, Definition("voxels", "pooled", TOLERANCE))
    directed = evaluate_stack(*pair, SPACING, {"x": 1}, Definition("voxels", "directed", TOLERANCE))
    by_area = evaluate_stack(*pair, SPACING, {"x": 1}, Definition("area", "directed", TOLERANCE))
    rows = zip(plain.slices["x"], directed.slices["x"], by_area.slices["x"], strict=True)
    for one, other, third in rows:
        masks = prediction[one["slice"]], reference[one["slice"]]
        if one["status"] != "ok":
            continue
        assert one["hd95_mm"] == pytest.approx(medpy.hd95(*masks, SPACING[1:]))
        assert one["assd_mm"] == pytest.approx(medpy.assd(*masks, SPACING[1:]))
        theirs = monai_scores(masks, SPACING[1:])
        assert {key: other[key] for key in theirs} == pytest.approx(theirs, **SINGLE)
        theirs = surface_distance_scores(masks, SPACING[1:])
        assert {key: third[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)


def test_the_tools_disagree_with_one_another(pair):
    """What the table of DEFINITIONS.md is for: the choice moves HD95 and the averages by more than rounding."""
    found = [
        ours(pair, *kind) for kind in (("voxels", "pooled"), ("voxels", "directed"), ("area", "directed"))
    ]
    for metric in ("hd95_mm", "masd_mm", "surface_dice"):
        values = {round(scores[metric], 6) for scores in found}
        assert len(values) >= 2, metric


def test_areas_and_lengths_are_those_of_surface_distance():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    for spacing in ((1.0, 1.0, 1.0), SPACING):
        areas = tables.create_table_neighbour_code_to_surface_area(spacing)
        lengths = tables.create_table_neighbour_code_to_contour_length(spacing[1:])
        # a code of theirs has the bits in the other order; either way round the area is the same, by point symmetry
        assert area_by_code(spacing) == pytest.approx(areas, rel=1e-12)
        assert length_by_code(spacing[1:]) == pytest.approx(lengths, rel=1e-12)
