"""What healthy adults have, as published: means and standard deviations by sex, by the columns of `measures.csv`.

Only what two sources say. A measure that is not here has no range, and a page leaves its place empty.

LV: Petersen et al., "Reference ranges for cardiac structure and function using cardiovascular magnetic resonance (CMR) in Caucasians from
the UK Biobank population cohort", J Cardiovasc Magn Reson 2017;19:18, doi 10.1186/s12968-017-0327-9. 368 men and 432 women of 45 to 74
years, 1.5 T, papillary muscles counted as cavity, as in M&Ms and ACDC. Ejection fraction and mass by body surface stand in its abstract;
EDV, ESV and SV are those of its table 12 as later works quote it (EDV − ESV agrees with SV, SV / EDV with the abstract's EF).

RV: the abstract of Hudsmith et al., "Normal human left and right ventricular and left atrial dimensions using steady state free precession
magnetic resonance imaging", J Cardiovasc Magn Reson 2005;7:775-782, doi 10.1080/10976640500295516. 63 men and 45 women of 21 to 68 years.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Sex = Literal["women", "men"]
WITHIN_SD = 1.96
"""Of a normal distribution 95 % lie within so many standard deviations of the mean."""
PETERSEN = "Petersen 2017"
HUDSMITH = "Hudsmith 2005"
SOURCES = {
    PETERSEN: "Petersen et al., J Cardiovasc Magn Reson 2017;19:18 (UK Biobank, 368 men and 432 women of 45 to 74 years, 1.5 T, papillary "
    "muscles counted as cavity)",
    HUDSMITH: "Hudsmith et al., J Cardiovasc Magn Reson 2005;7:775-782 (63 men and 45 women of 21 to 68 years)",
}


@dataclass(frozen=True)
class NormalRange:
    """Mean and standard deviation of healthy adults, in the measure's unit, and the key of the source in `SOURCES`."""

    mean: float
    sd: float
    source: str

    @property
    def low(self) -> float:
        """2.5 % of them lie below, were they distributed normally."""
        return self.mean - WITHIN_SD * self.sd

    @property
    def high(self) -> float:
        """2.5 % of them lie above."""
        return self.mean + WITHIN_SD * self.sd

    def place(self, value: float) -> Literal["below", "within", "above"]:
        """Where a value lies. The limits are within."""
        return "below" if value < self.low else "above" if value > self.high else "within"


def _of(source: str, women: tuple[float, float], men: tuple[float, float]) -> Mapping[Sex, NormalRange]:
    return {"women": NormalRange(*women, source), "men": NormalRange(*men, source)}


NORMAL: Mapping[str, Mapping[Sex, NormalRange]] = {
    "lv_edv_ml": _of(PETERSEN, (124, 21), (166, 32)),
    "lv_esv_ml": _of(PETERSEN, (49, 11), (69, 16)),
    "lv_sv_ml": _of(PETERSEN, (75, 14), (96, 20)),
    "lv_ef_percent": _of(PETERSEN, (61, 5), (58, 5)),
    "lv_mass_index_g_m2": _of(PETERSEN, (42, 7), (53, 9)),
    "rv_edv_ml": _of(HUDSMITH, (148, 35), (190, 33)),
    "rv_esv_ml": _of(HUDSMITH, (56, 18), (78, 20)),
}


def sex_of(text: str) -> Sex | None:
    """The sex that a table's cell names (F, female, M, male, …); None for another text."""
    letters = text.strip().casefold()
    if letters in ("f", "female", "w", "woman", "women"):
        return "women"
    return "men" if letters in ("m", "male", "man", "men") else None
