"""2.5-D from files to masks: neighbours of the same frame of the same case, against masks made by hand in float64."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from test_pipeline import case_of, random_volume, read_mask, write_image
from tiny_models import BandNetwork, band_model
from torch import Tensor

from utseg.predict.pipeline import predict_cases
from utseg.predict.stages import Volume, prepare

WEIGHTS = 0.7, 1.0, -0.4  # of the slice below, itself, above: a network that is not symmetric in z


class AcrossNetwork(BandNetwork):
    """The bands of a weighted sum of the slices shown."""

    def main_logits(self, x: Tensor) -> Tensor:
        return super().main_logits((x * torch.tensor(WEIGHTS).reshape(1, 3, 1, 1)).sum(1, keepdim=True))


def across_model(**changes):
    model = band_model(name="across", configuration="2.5d", neighbour_distance_mm=8.0, **changes)
    return replace(model, network=AcrossNetwork().requires_grad_(False).eval())


def by_hand(image_ZYX: np.ndarray, weights: tuple[float, ...] = WEIGHTS) -> np.ndarray:
    values = (image_ZYX - image_ZYX.mean(dtype=np.float64)) / image_ZYX.std(dtype=np.float64)
    last = len(values) - 1
    seen = [
        sum(w * values[min(max(z + offset, 0), last)] for w, offset in zip(weights, (-1, 0, 1), strict=True))
        for z in range(len(values))
    ]
    return np.digitize(np.stack(seen), BandNetwork.edges).astype(np.uint8)


def predicted(path: Path, *models) -> np.ndarray:
    (mask,) = predict_cases([case_of(path)], models, path.parent / "out")
    return read_mask(mask)


def test_frames_and_cases_never_mix(tmp_path):
    cine, single = random_volume(2, (3, 4, 17, 40)), random_volume(3, (5, 20, 22))
    paths = write_image(tmp_path / "cine.nii.gz", cine), write_image(tmp_path / "single.nii.gz", single)
    masks = predict_cases([case_of(path) for path in paths], [across_model()], tmp_path / "out")
    for frame, mask in zip(cine, read_mask(masks[0]), strict=True):
        np.testing.assert_array_equal(mask, by_hand(frame))
    np.testing.assert_array_equal(read_mask(masks[1]), by_hand(single))


def test_a_reversed_stack_is_seen_from_the_other_side(tmp_path):
    image = random_volume(5, (5, 20, 22))
    path = write_image(tmp_path / "reversed.nii.gz", image[::-1])
    np.testing.assert_array_equal(predicted(path, across_model())[::-1], by_hand(image, WEIGHTS[::-1]))


def test_a_single_slice_is_its_own_neighbour(tmp_path):
    image = random_volume(6, (1, 20, 22))
    np.testing.assert_array_equal(
        predicted(write_image(tmp_path / "one.nii.gz", image), across_model()), by_hand(image)
    )


def test_slices_nearer_than_planned_are_passed_over(tmp_path):
    image = random_volume(7, (7, 20, 22))
    path = write_image(tmp_path / "near.nii.gz", image, np.diag([1.25, 1.25, 4.0, 1.0]))
    mask = predicted(path, across_model())
    values = (image - image.mean()) / image.std()
    np.testing.assert_array_equal(
        mask[3], np.digitize(0.7 * values[1] + values[3] - 0.4 * values[5], BandNetwork.edges)
    )


def test_equal_preprocessings_of_a_volume_are_made_once(tmp_path):
    path = write_image(tmp_path / "one.nii.gz", random_volume(9, (3, 20, 22)))
    same, other = (band_model(spacing_yx_mm=(mm, mm)).record.plan.preprocessing for mm in (1.25, 2.5))
    first, second, third = prepare(Volume(case_of(path), None, 1, (same, other, same))).images
    assert first is third and second.shape != first.shape


def test_models_of_2d_and_2_5d_predict_together(tmp_path):
    image = random_volume(8, (4, 20, 22))
    path = write_image(tmp_path / "both.nii.gz", image)
    flat = band_model()
    (file,) = predict_cases(
        [case_of(path)], [flat, across_model()], tmp_path / "out", save_probabilities=True
    )
    alone = [
        predict_cases([case_of(path)], [each], tmp_path / f"out{number}", save_probabilities=True)[0]
        for number, each in enumerate((flat, across_model()))
    ]
    both, first, second = (np.load(each.with_name("both.npz"))["probabilities"] for each in (file, *alone))
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    assert nibabel.load(file).shape == image.T.shape
