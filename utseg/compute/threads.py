"""How many threads a repeated piece of work gets: the fastest of a few numbers, by the time that the pieces themselves take.

Threads wait for each other at the end of every operation. On a free machine as many as cores are fastest. Beside a busy process one of them
waits for its core, and all the others for it: fewer are faster then. Numbers are tried on the work itself, so nothing is done twice.
torch is imported when work begins, not before.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Self

from utseg.errors import number_of

logger = logging.getLogger("utseg")
UNTIMED = 2  # pieces at the start, in which memory is allocated and kernels are made
TIMED = 3  # pieces whose median is the time of a number of threads
GAIN = 0.1  # a number is taken if each of its pieces takes less time by that share: noise changes nothing
SLOWER = 1.25  # times as long as usual: other work has come
SHARE = 0.02  # of the time, which trials may cost
PATIENCE = 50  # pieces before more threads are tried, twice as many after each retreat from other work, up to
MOST_PATIENCE = 800


@dataclass
class Trial:
    """Numbers to try, nearest first, and the times of the first one's pieces. `cost`: seconds lost to those that were not faster."""

    upward: bool
    numbers: list[int]
    times: list[float] = field(default_factory=list)
    cost: float = 0.0


class Threads:
    """The number of torch's threads for each piece of some work. A context manager, which puts back the number that was there before.

    Fewer are tried after the first pieces, and when pieces become slower; more from time to time. At most as many are taken as torch has
    now: one for each core, or what OMP_NUM_THREADS says. Where those are one, or unless it `adapts`, nothing is timed or changed.
    """

    def __init__(
        self, work: str, *, adapts: bool = True, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """work: what the log calls it."""
        import torch

        self._work = work
        self._clock = clock
        self._most = torch.get_num_threads()
        self._numbers = numbers_up_to(self._most) if adapts else [self._most]
        self._number = self._most
        self._untimed = UNTIMED
        self._recent: deque[float] = deque(maxlen=TIMED)
        self._usual: float | None = None
        self._trial: Trial | None = None
        self._worked = 0.0
        self._next = {False: 0.0, True: 0.0}  # from what `_worked` on fewer threads, and more, may be tried
        self._patience = PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self._most)

    @property
    def is_settled(self) -> bool:
        """Whether a number has been chosen and no other is being tried."""
        return len(self._numbers) == 1 or (self._usual is not None and self._trial is None)

    @property
    def choice(self) -> tuple[int, float | None]:
        """The number chosen and the usual seconds of a piece with it, None before they are known."""
        return self._number, self._usual

    def go_on(self, number: int, usual: float | None) -> None:
        """Goes on from the `choice` of earlier work, as far as so many threads are allowed now."""
        allowed = max(each for each in self._numbers if each <= max(number, self._numbers[0]))
        self._number, self._usual = allowed, usual if allowed == number else None

    @contextmanager
    def timed(self, amount: float = 1) -> Iterator[int]:
        """Around a piece of work, of that amount if pieces differ: gives it its number of threads, and times it."""
        import torch

        number = self._trial.numbers[0] if self._trial else self._number
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)
        began = self._clock()
        yield number
        if len(self._numbers) > 1:
            self._took((self._clock() - began) / amount)

    def _took(self, seconds: float) -> None:
        if self._trial:
            self._judge(self._trial, seconds)
            return
        if self._untimed:
            self._untimed -= 1
            return
        self._recent.append(seconds)
        self._worked += seconds
        if len(self._recent) < TIMED:
            return
        now = median(self._recent)
        is_slow = self._usual is None or now > SLOWER * self._usual
        self._usual = min(now, self._usual or now)
        if is_slow and self._worked >= self._next[False]:
            self._try(upward=False)
        elif self._number < self._most and self._worked >= self._next[True]:
            self._try(upward=True)

    def _try(self, *, upward: bool, cost: float = 0.0) -> None:
        """Tries the next two numbers, or ends the trial where there is none."""
        at = self._numbers.index(self._number)
        numbers = self._numbers[at + 1 : at + 3] if upward else self._numbers[max(0, at - 2) : at][::-1]
        self._trial = Trial(upward, numbers, cost=cost)
        if not numbers:
            self._end(self._trial)

    def _judge(self, trial: Trial, seconds: float) -> None:
        """Takes the number that is tried when all its pieces were faster; goes on to the next at the first that was not."""
        trial.times.append(seconds)
        before = median(self._recent)
        if seconds > (1 - GAIN) * before:
            trial.cost += sum(trial.times) - len(trial.times) * before
            trial.times.clear()
            del trial.numbers[0]
            if not trial.numbers:
                self._end(trial)
        elif len(trial.times) == TIMED:
            self._take(trial, before)

    def _take(self, trial: Trial, before: float) -> None:
        number, left = trial.numbers[0], self._number
        faster = before / median(trial.times)
        text = "%s: %s from here on, %.1f times as fast as %d"
        logger.info(text, self._work, number_of(number, "thread"), faster, left)
        self._number, self._recent = number, deque(trial.times, TIMED)
        if not trial.upward:
            self._next[True] = self._worked + self._patience * median(trial.times)
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self._try(upward=trial.upward, cost=trial.cost)

    def _end(self, trial: Trial) -> None:
        """Goes on with the number chosen. What it takes is the usual from now on, and nothing is tried for a while."""
        self._trial, self._usual = None, median(self._recent)
        wait = trial.cost / SHARE
        if trial.upward:
            wait = max(wait, PATIENCE * self._usual)
        self._next[trial.upward] = max(self._next[trial.upward], self._worked + wait)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Gives torch so many threads, and afterwards as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers_up_to(most: int) -> list[int]:
    """The numbers that are tried, ascending: halves of the most, and one less than it, for one busy neighbour on many cores."""
    halves = {most >> times for times in range(most.bit_length())}
    return sorted(halves | {max(1, most - 1)})


def changes(numbers: Iterable[int], first: int) -> list[tuple[int, int]]:
    """Numbers of threads of one piece after the other, the first counted as `first`, as (piece, threads) where they change."""
    found, at = [], first
    for number, run in groupby(numbers):
        found.append((at, number))
        at += len(list(run))
    return found
