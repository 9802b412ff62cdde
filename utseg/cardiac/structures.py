"""Which of a dataset's labels are the cavities of the ventricles and the myocardium, by the names in use.

Nothing is guessed from values: datasets number them differently (M&Ms: 1 LV, 2 MYO, 3 RV; ACDC: the other way round).
"""

from collections.abc import Collection
from dataclasses import dataclass

HEART = ("LV", "MYO", "RV")
NAMES = {
    "LV": ("lv", "lvc", "lvbp", "lvcavity", "lvbloodpool", "leftventricle", "leftventricularcavity"),
    "MYO": ("myo", "lvm", "lvmyo", "lvmyocardium", "myocardium", "leftventricularmyocardium"),
    "RV": ("rv", "rvc", "rvbp", "rvcavity", "rvbloodpool", "rightventricle", "rightventricularcavity"),
}


@dataclass(frozen=True)
class Structures:
    """The dataset's own label name for each role ("LV", "MYO", "RV") that it has."""

    names: dict[str, str]

    @property
    def left(self) -> list[str]:
        """The labels of the left ventricle: cavity and myocardium."""
        return [self.names[role] for role in ("LV", "MYO") if role in self.names]


def find_structures(labels: Collection[str]) -> Structures:
    """By the letters of a label's name, whatever their case and what stands between them. A role that two labels claim is left out."""
    found: dict[str, list[str]] = {}
    for name in labels:
        letters = "".join(character for character in name.casefold() if character.isalnum())
        for role, known in NAMES.items():
            if letters in known:
                found.setdefault(role, []).append(name)
    return Structures({role: names[0] for role, names in found.items() if len(names) == 1})
