"""Volumes of the ventricles, ejection fraction and mass of a heart, from its volumes at ED and ES.

Volumes of LV and RV are of the cavity, summed over slices (Simpson's rule for discs), in ml. Stroke volume SV = EDV − ESV, ejection
fraction EF = 100·SV / EDV in %, undefined (NaN) where EDV is 0. Mass of the myocardium at ED in g = its volume × 1.05 g/ml (Myerson et al.,
Hypertension 2002). Papillary muscles are where the labels have them. Cardiac output = SV of the LV × heart rate. Indices are per body
surface, √(height in cm × weight in kg / 3600) m² (Mosteller, N Engl J Med 1987).
"""

import math
from typing import Literal, get_args

BasalRule = Literal["all", "myocardium"]
"""Slices whose LV cavity counts: all that have it, or those in which MYO lies along half of its outline or more.

Guidelines give the second to people who draw (cut-offs differ; Simprini et al., JCMR 2013, compare some). Masks learn from drawings
in which it was followed already: in 106 masks of experts (ACDC, ED and ES) both rules give the same volumes, so `all` is the default.
"""
BASAL_RULES: tuple[BasalRule, ...] = get_args(BasalRule)
GRAMS_PER_ML = 1.05
PHASES = ("ED", "ES")
UNITS = {
    "LV_EDV": "ml",
    "LV_ESV": "ml",
    "LV_SV": "ml",
    "LV_EF": "%",
    "RV_EDV": "ml",
    "RV_ESV": "ml",
    "RV_SV": "ml",
    "RV_EF": "%",
    "LV_mass": "g",
    "LV_EDVI": "ml/m²",
    "LV_ESVI": "ml/m²",
    "LV_SVI": "ml/m²",
    "LV_mass_index": "g/m²",
    "RV_EDVI": "ml/m²",
    "RV_ESVI": "ml/m²",
    "RV_SVI": "ml/m²",
    "cardiac_output": "l/min",
    "cardiac_index": "l/min/m²",
    "LV_peak_ejection": "ml/s",
    "LV_peak_filling": "ml/s",
    "RV_peak_ejection": "ml/s",
    "RV_peak_filling": "ml/s",
}
"""The measures, in the order of tables, and their units."""
AT_PHASES = tuple(f"LV_{each}" for each in ("EDV", "ESV", "SV", "EF", "mass")) + tuple(
    f"RV_{each}" for each in ("EDV", "ESV", "SV", "EF")
)
"""The measures that follow from ED and ES alone, those of the left side first."""
INDICES = {"LV_mass": "LV_mass_index", "cardiac_output": "cardiac_index"} | {
    f"{role}_{volume}": f"{role}_{volume}I" for role in ("LV", "RV") for volume in ("EDV", "ESV", "SV")
}
"""The measures that are divided by the body surface, and what they are then called."""


def measures_of(role: str, end_diastolic_ml: float, end_systolic_ml: float) -> dict[str, float]:
    """The measures of a structure ("LV", "MYO", "RV") from its volumes in ml, by the keys of `UNITS`."""
    if role == "MYO":
        return {"LV_mass": end_diastolic_ml * GRAMS_PER_ML}
    stroke = end_diastolic_ml - end_systolic_ml
    return {
        f"{role}_EDV": end_diastolic_ml,
        f"{role}_ESV": end_systolic_ml,
        f"{role}_SV": stroke,
        f"{role}_EF": 100 * stroke / end_diastolic_ml if end_diastolic_ml else float("nan"),
    }


def column_of(measure: str) -> str:
    """The column of a measure, as `lv_ef_percent`: key and unit in lower case."""
    unit = UNITS[measure].replace("%", "percent").replace("²", "2").replace("/", "_")
    return f"{measure}_{unit}".lower()


def digits_of(measure: str) -> int:
    """Decimals of a measure where it is shown to people."""
    return 2 if UNITS[measure].startswith("l/min") else 1


def body_surface_m2(height_m: float, weight_kg: float) -> float:
    """By Mosteller's formula."""
    return math.sqrt(100 * height_m * weight_kg / 3600)


def with_person(
    measures: dict[str, float], heart_rate_bpm: float | None, surface_m2: float | None
) -> dict[str, float]:
    """The measures with cardiac output where the heart rate is known, and the indices where the body surface is."""
    found = dict(measures)
    if heart_rate_bpm is not None and "LV_SV" in found:
        found["cardiac_output"] = found["LV_SV"] * heart_rate_bpm / 1000
    if surface_m2 is not None:
        found |= {INDICES[key]: value / surface_m2 for key, value in found.items() if key in INDICES}
    return found
