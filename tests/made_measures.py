"""A record of measures with its masks and images: five frames of hearts made of rectangles, whose names are hostile."""

from pathlib import Path

import numpy as np
from made_scores import HOSTILE_CASE, HOSTILE_VENDOR
from rawfiles import LABELS, SPACING_ZYX_MM, make_nifti

from utseg.evaluate.clinical import agreement
from utseg.measure.record import CineMeasures, Curve, Flag, MeasuresRecord, Provenance, ReferencePair

FRAMES, SLICES, ROWS, COLUMNS = 5, 3, 40, 44
HALF = (8, 6, 5, 4, 7)
"""Half the side of the cavity in each frame: frame 0 is ED, frame 3 ES."""
HOSTILE_WORDS = "Is <b onclick=hacked=4>this</b> a doubt?"


def masks_of_cine(place: int) -> np.ndarray:
    """(T, Z, Y, X): a square cavity, in a square wall, beside a rectangle; the apical slice is empty. `place` moves the whole."""
    masks = np.zeros((FRAMES, SLICES, ROWS, COLUMNS), np.uint8)
    for frame, half in enumerate(HALF):
        masks[frame, :2, 10:30, 4:14] = LABELS["RV"]
        masks[frame, :2, 20 - half - 3 : 20 + half + 3, 25 - half - 3 : 25 + half + 3 + place] = LABELS["MYO"]
        masks[frame, :2, 20 - half : 20 + half, 25 - half : 25 + half] = LABELS["LV"]
    return masks


def make_measures(folder: Path, cines: int) -> MeasuresRecord:
    """`masks/` and `images/` of so many cines, and their record. The second has no image, the third a hostile name."""
    names = ["a_sa", "no image", HOSTILE_CASE, "d_sa"][:cines]
    found = []
    for place, name in enumerate(names):
        masks = masks_of_cine(place)
        noise = np.random.default_rng(place).integers(0, 200, masks.shape)
        make_nifti(folder / "masks" / f"{name}.nii.gz", masks)
        image = make_nifti(
            folder / "images" / f"{place}.nii.gz", (noise + 400 * (masks > 0)).astype(np.int16)
        )
        found.append(_measures(name, masks, image if place != 1 else None, place))
    references = [
        ReferencePair(
            cine=one.cine,
            subject=one.subject,
            measure="lv_ef_percent",
            prediction=one.values["lv_ef_percent"],
            reference=50.0 + place,
        )
        for place, one in enumerate(found)
    ]
    pairs = np.array([(pair.reference, pair.prediction) for pair in references], dtype=float)
    made = Provenance(
        when="2026-01-02T03:04:05Z", versions={"utseg": "0"}, masks=str(folder / "masks"), labels=LABELS
    )
    return MeasuresRecord(
        made=made,
        rules={"all": "Every labelled slice counts.", "ED": "The frame of the largest LV."},
        cines=found,
        references=tuple(references),
        agreement={"lv_ef_percent": {"unit": "%", **agreement(pairs[:, 0], pairs[:, 1])}},
    )


def _measures(name: str, masks: np.ndarray, image: Path | None, place: int) -> CineMeasures:
    voxel_ml = float(np.prod(SPACING_ZYX_MM)) / 1000
    ml = {label: [float((frame == LABELS[label]).sum()) * voxel_ml for frame in masks] for label in LABELS}
    values = {
        "lv_edv_ml": ml["LV"][0],
        "lv_esv_ml": ml["LV"][3],
        "lv_ef_percent": 100 * (1 - ml["LV"][3] / ml["LV"][0]) - 3 * place,
        "lv_mass_g": 1.05 * ml["MYO"][0],
        "cardiac_output_l_min": None,
    }
    return CineMeasures(
        cine=name,
        subject=f"S{place:03d}",
        mask=f"{name}.nii.gz",
        image=None if image is None else str(image),
        groups={"vendor": ("A", "B", HOSTILE_VENDOR)[place % 3], "sex": ("F", "M", "")[place % 3]},
        frames=FRAMES,
        spacing_zyx_mm=SPACING_ZYX_MM,
        ed_frame=0,
        es_frame=3,
        frame_ms=30.0,
        heart_rate_bpm=None,
        height_m=None,
        weight_kg=None,
        bsa_m2=None,
        values=values,
        curve=Curve(lv_ml=ml["LV"], rv_ml=[None, *ml["RV"][1:]], myo_ml=ml["MYO"]),
        flags=[Flag(name="odd", words=HOSTILE_WORDS, severity="check")] if place == 2 else [],
        basal_rule="all",
    )
