"""Loaded cases, plans and small preprocessed datasets for the tests of preprocessing."""

from functools import partial
from typing import Any

import numpy as np
import plans
from plans import LABELS as LABELS
from rawfiles import make_affine, make_heart

from utseg.case import Case
from utseg.planning.plan import Preprocessing
from utseg.rawdata.gate import LoadedCase
from utseg.rawdata.geometry import Geometry

make_plan = partial(plans.make_plan, dataset="Heart", spacing_yx_mm=(1.4, 1.4), clip_percentiles=(5, 98))


def make_preprocessing(**changes: Any) -> Preprocessing:
    return make_plan(**changes).preprocessing


def make_loaded(
    image: np.ndarray | None = None,
    label: np.ndarray | None = None,
    spacing_zyx_mm: tuple[float, float, float] = (8.0, 1.5, 1.25),
    case_id: str = "s00_ED",
    **case: Any,
) -> LoadedCase:
    """A case as it comes out of the gate; without arrays, a ring with a crescent."""
    if image is None:
        image, label = make_heart()
    image_CZYX = np.asarray(image, dtype=np.float32).reshape(-1, *image.shape[-3:])
    affine = make_affine(spacing_zyx_mm, angles=(0.2, -0.3, 0.1))
    geometry = Geometry(image.shape[-3:], tuple(map(tuple, affine.tolist())), b"header")
    return LoadedCase(
        Case(case_id, case.pop("subject", case_id[:3]), (), **case), image_CZYX, label, geometry
    )


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    size = (a == value).sum() + (b == value).sum()
    return float(2 * ((a == value) & (b == value)).sum() / size) if size else 1.0


def one_hot(label_ZYX: np.ndarray, classes: int = 4) -> np.ndarray:
    return (label_ZYX == np.arange(classes)[:, None, None, None]).astype(np.float32)
