"""Slices made up in memory, behind the part of SliceStore that the loader needs. A module of its own, so that workers can import it."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import plans

from utseg.errors import ArtefactError
from utseg.planning.plan import AugmentationSettings

EVERYTHING = AugmentationSettings(
    rotation_deg=40,
    rotation_probability=0.7,
    scale_range=(0.7, 1.4),
    scale_probability=0.7,
    noise_sd_range=(0.05, 0.2),
    noise_probability=0.7,
    brightness_range=(-0.3, 0.3),
    brightness_probability=0.7,
    contrast_range=(0.7, 1.3),
    contrast_probability=0.7,
    gamma_range=(0.7, 1.5),
    gamma_probability=0.7,
    mirror_axes=("y", "x"),
    foreground_fraction=0.4,
    blur_sd_mm_range=(0.5, 2.0),
    blur_probability=0.7,
    resolution_range=(0.4, 0.9),
    resolution_probability=0.7,
    histogram_share_range=(0.2, 0.9),
    histogram_probability=0.7,
)
NOTHING = EVERYTHING.model_copy(
    update={f"{kind}_probability": 0.0 for kind in plans.KINDS}
    | {"mirror_axes": (), "foreground_fraction": 0.0}
)


make_plan = partial(
    plans.make_plan,
    channel_names=("MR",),
    spacing_yx_mm=(1.5, 1.2),
    patch_size=(32, 48),
    augmentation=EVERYTHING,
)


@dataclass(frozen=True)
class MadeSlices:
    """Cases "a" … with slices of differing size; every third slice has no label, RV is rare. Frozen: reading makes the same slice anew."""

    cases: int = 3
    slices: int = 6
    channels: int = 1
    damaged: str = ""

    def case_ids(self) -> list[str]:
        return [chr(ord("a") + index) for index in range(self.cases)]

    def labels_of(self, case_id: str, z: int) -> list[int]:
        return [] if z % 3 == 2 else [1, 2] + [3] * (case_id == "a")

    def records(self, case_ids: str = "") -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                case_id=case_id,
                slices=[SimpleNamespace(labels=[0, *self.labels_of(case_id, z)]) for z in range(self.slices)],
                subject=f"subject of {case_id}",
                groups={"vendor": "A" if case_id == "a" else "B"},
                slice_distance_mm=10.0,
            )
            for case_id in case_ids or self.case_ids()
        ]

    def read_slice(self, case_id: str, z: int) -> tuple[np.ndarray, np.ndarray]:
        if self.damaged == f"{case_id}/{z:03d}":
            raise ArtefactError(f"{self.damaged}.npz is damaged; run utseg_plan_and_preprocess again")
        rng = np.random.default_rng((ord(case_id), z))
        shape = (24 + 5 * z, 60 - 4 * z)
        image = rng.standard_normal((self.channels, *shape)).astype(np.float32)
        label = np.zeros(shape, dtype=np.uint8)
        for value in self.labels_of(case_id, z):
            label[4 * value : 4 * value + 4, 8:14] = value
        return image, label
