"""The first look at a study's results: mean Dice of each network, trained on this and tested on that, as a table of text.

Means over seeds and folds; intervals and tests are in `results.csv` and in the report.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from utseg.evaluate.metrics import Row
from utseg.evaluate.tables import mean_of, number
from utseg.rawdata.tables import read_table
from utseg.study.record import ALL, MEAN_LABEL, RESULTS_FILE, SEEN, UNSEEN

LAST = (SEEN, UNSEEN, ALL)
KEYS = ("network", "plan", "part", "variant", "trained_on")
HEADS = {
    "network": "network",
    "plan": "plan",
    "part": "part",
    "variant": "variant",
    "trained_on": "trained on",
}


def read_results(folder: Path) -> list[Row]:
    """The rows of `results.csv`, as text. Raises InputError where it cannot be read."""
    return [dict(row) for row in read_table(folder / RESULTS_FILE).rows]


def matrix(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table: a row for each network (and plan, variant) and training set, a column for each test set."""
    chosen = [row for row in rows if row["group"] == ALL and row["label"] == MEAN_LABEL and row["dice"]]
    keys = [key for key in KEYS if key in ("network", "trained_on") or _differ(chosen, key)]
    tested = sorted({row["tested_on"] for row in chosen} - {*LAST})
    tested += [name for name in LAST if any(row["tested_on"] == name for row in chosen)]
    table = []
    for group in dict.fromkeys(tuple(row[key] for key in keys) for row in chosen):
        own = [row for row in chosen if tuple(row[key] for key in keys) == group]
        table.append(
            [
                *group,
                *(
                    number(mean_of(float(row["dice"]) for row in own if row["tested_on"] == name), 3)
                    for name in tested
                ),
            ]
        )
    return [*(HEADS[key] for key in keys), *tested], table


def _differ(rows: Iterable[Row], key: str) -> bool:
    return len({row[key] for row in rows}) > 1
