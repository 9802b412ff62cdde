"""The learning rate as a function of where in the schedule a step is. Plain numbers; no optimizer is touched here.

The publication's form: exponential warm-up lr·e^(10(t/T_w − 1)), then polynomial decay lr·(1 − t/T)^power, with t counted in iterations.
"""

import math
from dataclasses import dataclass, replace

from utseg.training.recipe import ScheduleSettings


@dataclass(frozen=True)
class Schedule:
    """How far through the schedule an iteration is: 0 at the start, 1 at its end. `warmup` is the share that is warm-up.

    A run that turns out slower than measured is retimed: from `anchor_iteration` on, at `anchor_progress`, the rest of the schedule is
    spread over the iterations that are left. Else progress is iteration / iterations. `cools_down`: it was shortened to end the run early,
    and stays so. `held`: so many iterations in a row have one learning rate.
    """

    iterations: int
    warmup: float
    anchor_iteration: int = 0
    anchor_progress: float = 0.0
    cools_down: bool = False
    held: int = 1

    def progress(self, iteration: int) -> float:
        """Progress at a 0-based iteration."""
        share = (iteration - self.anchor_iteration) / (self.iterations - self.anchor_iteration)
        return self.anchor_progress + share * (1 - self.anchor_progress)

    def retimed(self, at: int, iterations: int, *, cools_down: bool = False) -> "Schedule":
        """The schedule that from where this one is at iteration `at` ends after `iterations` in all."""
        return replace(
            self,
            iterations=iterations,
            anchor_iteration=at,
            anchor_progress=self.progress(at),
            cools_down=cools_down,
        )

    def learning_rate(self, iteration: int, peak: float, power: float) -> float:
        """The learning rate at a 0-based iteration."""
        progress = self.progress(iteration - iteration % self.held)
        if progress < self.warmup:
            return peak * math.exp(10 * (progress / self.warmup - 1))
        return peak * math.pow(1 - progress, power)


def warmup_share(settings: ScheduleSettings, epochs: int) -> float:
    """The share of the schedule that is warm-up: `warmup_epochs` of the epochs, but no more than `warmup_largest_share`."""
    return min(settings.warmup_epochs / epochs, settings.warmup_largest_share)
