"""How a page names the measures: the columns of `measures.csv` in words, with their units."""

from utseg.cardiac.structures import HEART
from utseg.evaluate.tables import number

UNITS = {
    "_ml_s_m2": "ml/s/m²",
    "_l_min_m2": "l/min/m²",
    "_ml_m2": "ml/m²",
    "_g_m2": "g/m²",
    "_l_min": "l/min",
    "_ml_s": "ml/s",
    "_percent": "%",
    "_ml": "ml",
    "_g": "g",
    "_ms": "ms",
    "_m2": "m²",
    "_bpm": "beats/min",
}
"""By the end of a column's name; the first that fits."""
SHORT = ("edv", "esv", "sv", "ef", "edvi", "esvi", "svi")
DIGITS = {"l/min": 2, "l/min/m²": 2, "m²": 2}
HEADLINES = (
    *("lv_ef_percent", "lv_edv_ml", "lv_esv_ml", "lv_sv_ml", "lv_mass_g"),
    *("rv_ef_percent", "rv_edv_ml", "rv_esv_ml", "rv_sv_ml"),
)
"""The measures that stand first, in this order."""


def unit_of(column: str) -> str:
    """The unit, by the end of the column's name; "" where it has none."""
    return next((unit for ending, unit in UNITS.items() if column.endswith(ending)), "")


def name_of(column: str) -> str:
    """As in "LV EDV", "RV EF", "cardiac output"."""
    ending = next((ending for ending in UNITS if column.endswith(ending)), "")
    words = column.removesuffix(ending).split("_")
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    if word in SHORT:
        return word[:-1].upper() + "i" if word.endswith("i") else word.upper()
    return word.upper() if word.upper() in HEART else word


def value_of(column: str, value: float | None) -> str:
    """The number as the page shows it; a dash for none."""
    return number(value, DIGITS.get(unit_of(column), 1))
