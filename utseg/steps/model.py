"""`load_model`: trained models, from wherever they are, that segment arrays as `utseg_predict` segments files.

Axes: N images, C channels, K classes (background, then labels by value), Z slices, Y rows, X columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utseg.device import Precision, resolve_device
from utseg.errors import InputError, UsageError
from utseg.home import FilePath
from utseg.inference.views import NO_AUGMENTATION, TestTimeAugmentation
from utseg.label_map import LabelValue
from utseg.labels import in_words
from utseg.postprocess import Postprocessing, check_labels
from utseg.predict.arrays import check_image, geometry_by, geometry_of, predict_arrays
from utseg.predict.model import LoadedModel
from utseg.predict.model import load_model as load_run
from utseg.predict.pipeline import ready
from utseg.rawdata.geometry import Geometry
from utseg.steps.choice import ModelChoice, chosen_models
from utseg.training.record import Checkpoint

Mask = NDArray[np.uint8]
Probabilities = NDArray[np.float32]
Found = Mask | tuple[Mask, Probabilities]
Spacing = tuple[float, float, float]


def load_model(
    path: FilePath | Sequence[FilePath] = (),
    *,
    home: FilePath | None = None,
    dataset: str | None = None,
    planner: str | None = None,
    models: Sequence[str] = (),
    folds: Sequence[str] = (),
    checkpoint: Checkpoint = "final",
    device: str = "auto",
    precision: Precision | None = None,
    step_size: float | None = None,
) -> "Predictor":
    """Trained models that predict together, loaded.

    path: an archive of `export_model`, a run's folder, a folder with its folds, or several of these. Without it, what `utseg_predict -d`
    would take: `dataset` below `home` (each may be left out, as there), as best.json says unless `planner`, `models` or `folds` are named.
    checkpoint: "final" weights, or the "best" of each run's validation. device: auto, cpu, cuda, cuda:N or mps.
    precision: what the networks compute in; None: the best that the device has. step_size: windows everywhere, that share of a window from
    one to the next; None: as planned.

    Raises what `chosen_models` raises, ArtefactError for a damaged model, UsageError for a device that is not there.
    """
    for key, value in (("models", models), ("folds", folds)):
        if isinstance(value, str) or not all(isinstance(each, str) for each in value):
            raise UsageError(f"{key}: expected a list of names, as ['fold0'], found {value!r}")
    if dataset is not None and not isinstance(dataset, str):
        raise UsageError(f"dataset: expected a name, or a number in quotes, found {dataset!r}")
    paths = [path] if isinstance(path, str | Path) else path
    choice = ModelChoice(
        paths=tuple(map(Path, paths)),
        home=None if home is None else Path(home),
        dataset=dataset,
        planner=planner,
        models=tuple(models),
        folds=tuple(folds),
        checkpoint=checkpoint,
    )
    where = resolve_device(device)
    with chosen_models(choice) as chosen:
        loaded = [load_run(run, where, checkpoint) for run in chosen.runs]
    check_labels(chosen.postprocessing, loaded[0].record.plan.preprocessing.labels)
    return Predictor(tuple(ready(loaded, step_size)), chosen.postprocessing, chosen.tta, precision)


@dataclass(frozen=True, eq=False)
class Predictor:
    """One or more models that predict together: the mean of their probabilities, and what is done to the mask.

    Pixel spacing, intensities and matrix are brought to the plan's by the model itself; hand in what the scanner gave.
    """

    models: tuple[LoadedModel, ...]
    postprocessing: Postprocessing
    test_time_augmentation: TestTimeAugmentation
    precision: Precision | None = None

    def __repr__(self) -> str:
        names = ", ".join(model.name for model in self.models)
        return f"Predictor({names}; channels {', '.join(self.channel_names)}; labels {in_words(self.labels)})"

    @property
    def labels(self) -> dict[str, LabelValue]:
        """Names and the values that they have in masks, background 0 included."""
        return dict(self.models[0].record.plan.preprocessing.labels)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """What the channels of an image have to be, in this order."""
        return self.models[0].record.plan.preprocessing.channel_names

    def predict(
        self,
        image_CZYX: ArrayLike,
        spacing_zyx_mm: Spacing | None = None,
        *,
        affine: ArrayLike | None = None,
        probabilities: bool = False,
        tta: bool = True,
    ) -> Found:
        """The mask (Z, Y, X) uint8 of an image (C, Z, Y, X) of any real numbers, in the values of `labels`.

        spacing_zyx_mm: mm between slices, rows and columns; the image is then taken to lie as the training scans do. affine: in place of
        it, 4 × 4 from voxel (x, y, z) to RAS mm, as nibabel has it; a scan that lies otherwise is then turned for the network, as
        `utseg_predict` does by the header. probabilities: also the mean of the models' (K, Z, Y, X) float32, before postprocessing.
        tta: False shows the networks the image as it is only.

        Raises InputError, a ValueError, for other shapes and channels, NaN, an image of one value, a spacing that no scan has.
        """
        image = check_image(image_CZYX, self.channel_names, "image")
        if (spacing_zyx_mm is None) == (affine is None):
            raise InputError("image: expected spacing_zyx_mm or affine, one of them")
        geometry = (
            geometry_of(image, spacing_zyx_mm, "image")
            if affine is None
            else geometry_by(image, affine, "image")
        )
        (found,) = self._predict([("image", image, geometry)], probabilities, tta)
        return found

    def predict_many(
        self,
        images: Iterable[ArrayLike],
        spacing_zyx_mm: Spacing | Iterable[Spacing],
        *,
        probabilities: bool = False,
        tta: bool = True,
    ) -> Iterator[Found]:
        """What `predict` gives for each image, one after the other: the next image is taken when the next mask is asked for.

        spacing_zyx_mm: one for all images, or one for each. Raises as `predict`, naming the image by its number, from 0.
        """
        spacings: Iterator[Any] = repeat(spacing_zyx_mm) if _is_one(spacing_zyx_mm) else iter(spacing_zyx_mm)

        def checked() -> Iterator[tuple[str, Probabilities, Geometry]]:
            for number, given in enumerate(images):
                shown = f"image {number}"
                image = check_image(given, self.channel_names, shown)
                if (spacing := next(spacings, None)) is None:
                    raise InputError(
                        f"{shown}: there is no spacing_zyx_mm for it; expected one for all images, or one for each"
                    )
                yield shown, image, geometry_of(image, spacing, shown)

        return self._predict(checked(), probabilities, tta)

    def predict_slices(
        self,
        images_NCYX: ArrayLike,
        spacing_yx_mm: tuple[float, float],
        *,
        probabilities: bool = False,
        tta: bool = True,
    ) -> Found:
        """Masks (N, Y, X) of images that have nothing to do with each other; also (N, K, Y, X) where probabilities are asked for.

        The slices of one scan belong into `predict`: intensities are normalised over the whole of it. Raises as `predict_many`.
        """
        images = np.asarray(images_NCYX)
        if images.ndim != 4 or not len(images):
            raise InputError(
                f"images: their shape is {images.shape}; expected (image, channel, y, x), none of them 0"
            )
        spacing = 1.0, *np.ravel(spacing_yx_mm)  # mm between slices, of which there is one
        stacks = (image[:, np.newaxis] for image in images)
        found = [*self.predict_many(stacks, spacing, probabilities=probabilities, tta=tta)]
        if not probabilities:
            return np.concatenate(found)
        masks, their_probabilities = zip(*found, strict=True)
        return np.concatenate(masks), np.stack([each[:, 0] for each in their_probabilities])

    def _predict(
        self, images: Iterable[tuple[str, Probabilities, Geometry]], probabilities: bool, tta: bool
    ) -> Iterator[Found]:
        for mask_ZYX, found_KZYX in predict_arrays(
            images,
            self.models,
            tta=self.test_time_augmentation if tta else NO_AUGMENTATION,
            precision=self.precision,
            postprocessing=self.postprocessing,
            probabilities=probabilities,
        ):
            yield mask_ZYX if found_KZYX is None else (mask_ZYX, found_KZYX)


def _is_one(spacing: Any) -> bool:
    """Whether it is a spacing, and not one for each image."""
    if not isinstance(spacing, Iterable):
        return True
    return isinstance(spacing, Sequence | np.ndarray) and all(np.ndim(value) == 0 for value in spacing)
