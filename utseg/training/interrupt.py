"""Signals that ask a run to stop: the iteration in hand is finished, the state is saved, the process exits as one that can be resumed."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("utseg")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A cluster signals every process of a job, and parents pass it on: signals so close to the first are the same request.
SAME_S = 1.0


class Stopped(Exception):
    """A signal has asked to stop; raised where it is safe to."""


class Interruption:
    """Remembers the signal that came. A second one, a second later, stops at once, as KeyboardInterrupt, unless this process is
    `one_of_many`: torchrun passes on what all have got already, and itself ends those that take too long.
    """

    def __init__(self, one_of_many: bool = False) -> None:
        self.name = ""
        self._came = 0.0
        self._one_of_many = one_of_many

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.name:
            if time.monotonic() - self._came > SAME_S and not self._one_of_many:
                raise KeyboardInterrupt
            return
        self._came = time.monotonic()
        self.name = signal.Signals(number).name
        logger.warning("%s received: the state will be saved after this iteration", self.name)

    @property
    def reason(self) -> str:
        """What asked to stop, in words."""
        return self.name or "a signal to another process of the run"

    def check(self) -> None:
        """Raises Stopped if a signal came."""
        if self.name:
            raise Stopped


@contextmanager
def interruptible(one_of_many: bool = False) -> Iterator[Interruption]:
    """Takes over SIGTERM and SIGINT for a while. Outside the main thread, where Python cannot, nothing is taken over."""
    interruption = Interruption(one_of_many)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.receive) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
