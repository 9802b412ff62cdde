"""How a page names the measures: the columns of `measures.csv` in words, with their units and digits."""

from utseg.cardiac.volumes import AT_PHASES, UNITS, column_of, digits_of
from utseg.evaluate.tables import number

MEASURES = {column_of(measure): measure for measure in UNITS}
HEADLINES = tuple(map(column_of, AT_PHASES))
"""The columns that stand first, in this order."""


def name_of(column: str) -> str:
    """As in "LV EDV", "RV EF", "cardiac output"."""
    return MEASURES[column].replace("_", " ")


def unit_of(column: str) -> str:
    """The unit of the column's measure."""
    return UNITS[MEASURES[column]]


def value_of(column: str, value: float | None) -> str:
    """The number as the page shows it; a dash for none."""
    return number(value, digits_of(MEASURES[column]))
