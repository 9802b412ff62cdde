"""TensorBoard's events on a disk that is full: one error, whenever its thread comes to know of it."""

import resource
import threading

import pytest

from utseg.errors import UtsegError
from utseg.training.events import EventWriter


@pytest.mark.parametrize("limit_bytes", [20, 150])
def test_a_full_disk_is_one_error_and_no_traceback_of_a_thread(tmp_path, monkeypatch, limit_bytes):
    uncaught = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    hook, limits = threading.excepthook, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        with (
            pytest.raises(UtsegError, match="TensorBoard events could not be written"),
            EventWriter(tmp_path) as events,
        ):
            events.write(1, {f"loss/{number}": 0.5 for number in range(20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert uncaught == [] and threading.excepthook == hook
