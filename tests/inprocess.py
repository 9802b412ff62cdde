"""Runs commands as a user types them, in this process: starting another costs seconds each time."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from utseg.commands import evaluate, find_best_configuration, plan_and_preprocess, predict, study, train
from utseg.compute.pool import InlineExecutor

COMMANDS = {
    f"utseg_{module.__name__.rpartition('.')[2]}": module.main
    for module in (evaluate, find_best_configuration, plan_and_preprocess, predict, study, train)
}


@dataclass(frozen=True)
class Result:
    """What `commandline.assert_refused` looks at."""

    returncode: int
    stdout: str
    stderr: str


class Typed:
    """Calls commands without worker processes; `capfd` catches what they say."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd = capfd
        for place in ("utseg.preprocess.dataset", "utseg.evaluate.score", "utseg.study.data"):
            monkeypatch.setattr(f"{place}.process_pool", lambda workers=None: InlineExecutor())
        monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 1000)

    def __call__(self, name: str, *words: object, home: Path | None) -> Result:
        """home: None leaves `--home` out."""
        self._capfd.readouterr()
        place = [] if home is None else ["--home", str(home)]
        code = COMMANDS[name]([*map(str, words), *place])
        out, err = self._capfd.readouterr()
        return Result(code, out, err)
