"""The recipe of whole runs in tests, their log, and how they are killed."""

import json

from trainers.utnet import recipe
from utseg.training import loop

SAVED_AT_ONCE = {"save_minutes": 1e-5}
RECIPE = recipe("UTNet")


def lines(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


class Kill(BaseException):
    """Ends a run at once, like SIGKILL: nothing in the program expects it."""


def killed_at(monkeypatch, iteration, kind=Kill):
    """Training dies before the given 1-based iteration."""
    original = loop.iterate

    def dying(run, state, batches):
        if state.iteration == iteration - 1:
            raise kind
        original(run, state, batches)

    monkeypatch.setattr(loop, "iterate", dying)
