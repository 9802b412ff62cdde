"""How well predicted Dice foretells true Dice, and how many of the worst masks are caught.

    utseg_predict -i held_out -o OUT …; utseg_evaluate -p OUT -g references -o OUT
    python benchmarks/quality.py OUT… [--limits 0.7 0.8 0.9]

Each OUT has `prediction.json` (with verdicts) and `metrics.csv`, as the `validation/` folders of runs have; several are pooled, a case of
each counting by itself. Printed: per label Pearson's and Spearman's correlation and the mean error of the predicted Dice, and of the two it
is the lower of; then which of the worst tenth of the cases by true mean Dice over labels were flagged (as recorded, and by predicted Dice
below each limit or anatomy alone), beside the share of all cases that was; and which are among the lowest tenth and fifth by predicted mean
Dice. Cases or labels without a true or predicted Dice are left out and counted.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

from utseg.evaluate import read_metrics
from utseg.predict.record import read_record
from utseg.quality import CaseQuality

KINDS = ("predicted_dice", "expected_dice", "members_dice")


@dataclass(frozen=True)
class Judged:
    """A case: its verdict, and its true Dice by label name."""

    name: str
    quality: CaseQuality
    true: dict[str, float]

    @property
    def mean_true(self) -> float:
        return float(np.mean(list(self.true.values())))

    @property
    def mean_predicted(self) -> float:
        """A label that is missing in the mask but not in the reference counts 0."""
        return float(np.mean([self.quality.predicted_dice[name] or 0.0 for name in self.true]))

    @property
    def lowest_predicted(self) -> float:
        return min(self.quality.predicted_dice[name] or 0.0 for name in self.true)

    @property
    def passes_anatomy(self) -> bool:
        return all(check.passed for check in self.quality.checks)


def read_judged(folder: Path) -> list[Judged]:
    """The cases of a folder that have verdict and scores."""
    record = read_record(folder)
    if record is None:
        raise SystemExit(f"{folder}: no prediction.json is there")
    true: dict[str, dict[str, float]] = {}
    for row in read_metrics(folder / "metrics.csv"):
        if not math.isnan(float(row["dice"])):
            true.setdefault(str(row["case"]), {})[str(row["label_name"])] = float(row["dice"])
    found = [
        Judged(f"{folder}/{case_id}", entry.quality, true[case_id])
        for case_id, entry in record.cases.items()
        if entry.quality is not None and case_id in true
    ]
    print(f"{folder}: {len(found)} of {len(record.cases)} cases have verdict and scores")
    return found


def print_correlations(cases: Sequence[Judged]) -> None:
    print(
        f"\n{'':16}{'label':12}{'n':>4}{'Pearson':>9}{'Spearman':>9}{'bias':>8}{'mean |error|':>14}{'true':>8}"
    )
    for kind in KINDS:
        for label in cases[0].quality.predicted_dice:
            pairs = [(getattr(case.quality, kind)[label], case.true.get(label)) for case in cases]
            known = np.array([pair for pair in pairs if None not in pair], float)
            if len(known) > 2:
                told, true = known.T
                errors = told - true
                print(
                    f"{kind:16}{label:12}{len(known):4}{pearsonr(told, true)[0]:9.2f}{spearmanr(told, true)[0]:9.2f}"
                    f"{errors.mean():+8.3f}{np.abs(errors).mean():14.3f}{true.mean():8.3f}"
                )


def print_caught(cases: Sequence[Judged], limits: Sequence[float]) -> None:
    """How many of the worst tenth each rule finds, and how many of all it asks a person to look at."""
    count = math.ceil(len(cases) / 10)
    worst = sorted(cases, key=lambda case: case.mean_true)[:count]
    print(f"\nworst tenth: {count} cases, mean Dice {worst[0].mean_true:.3f} to {worst[-1].mean_true:.3f}")

    def line(what: str, caught: Callable[[Judged], bool]) -> None:
        share = sum(map(caught, cases)) / len(cases)
        print(f"{what:44}{sum(map(caught, worst)):3} of {count} caught, {share:6.0%} of all looked at")

    line("flagged, as recorded", lambda case: case.quality.flagged)
    line("anatomy alone", lambda case: not case.passes_anatomy)
    for limit in limits:

        def below(case: Judged, limit: float = limit) -> bool:
            return case.lowest_predicted < limit

        line(f"predicted Dice of a label below {limit:g}", below)
        line("  that or anatomy", lambda case, below=below: below(case) or not case.passes_anatomy)
    ranked = sorted(cases, key=lambda case: case.mean_predicted)
    for share in (0.1, 0.2):
        lowest = {case.name for case in ranked[: math.ceil(share * len(cases))]}
        line(f"lowest {share:.0%} by predicted mean Dice", lambda case, lowest=lowest: case.name in lowest)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("--limits", nargs="+", type=float, default=[0.7, 0.8, 0.85, 0.9, 0.95])
    arguments = parser.parse_args()
    cases = [case for folder in arguments.folders for case in read_judged(folder)]
    if len(cases) < 3:
        raise SystemExit("fewer than three cases: nothing to correlate")
    print_correlations(cases)
    print_caught(cases, arguments.limits)


if __name__ == "__main__":
    main()
