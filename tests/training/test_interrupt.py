"""Signals that ask a training to stop: the first is remembered, a repetition is the same request, a later one stops at once."""

import os
import signal

import pytest

from utseg.training import interrupt
from utseg.training.interrupt import Stopped, interruptible


def test_a_signal_that_is_passed_on_too_is_one_request(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with interruptible() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            interruption.check()
        monkeypatch.setattr(interrupt, "SAME_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
