"""Volumes of the ventricles, ejection fraction and mass of a heart, from its volumes at ED and ES.

Volumes of LV and RV are of the cavity, summed over slices (Simpson's rule for discs), in ml. Stroke volume SV = EDV − ESV, ejection
fraction EF = 100·SV / EDV in %, undefined (NaN) where EDV is 0. Mass of the myocardium at ED in g = its volume × 1.05 g/ml (Myerson et al.,
Hypertension 2002). Papillary muscles are where the labels have them.
"""

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
}
"""The measures, in the order of tables, and their units."""


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
