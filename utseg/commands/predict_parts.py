"""`utseg_predict --dask`: each place of a cluster predicts a part of the cases into the same folder, in a process of its own.

    python -m utseg.commands.predict_parts WORDS…

is that process: `utseg_predict` with `--part I/N --resume`, so that a part whose worker died goes on elsewhere. Which cases a part has, and
how the parts' records are joined, is not decided here.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utseg.compute.children import as_child, run_child
from utseg.compute.cluster import DaskExecutor
from utseg.compute.pool import THREAD_VARIABLES, run_each
from utseg.errors import CaseErrors, Interrupted, UtsegError
from utseg.progress import progress

logger = logging.getLogger("utseg")
DASK = "--dask"


@dataclass(frozen=True)
class PartOfCommand:
    """The words of a command that predicts one part, the folder that they are typed in, and the variables that it goes by."""

    words: tuple[str, ...]
    part: str
    folder: Path
    environment: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"part {self.part}"


def without_dask(words: Sequence[str]) -> list[str]:
    """The words of the command, the cluster's address left out."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith(f"{DASK}=") and DASK not in (before, word)
    ]


def predict_on_cluster(executor: DaskExecutor, words: Sequence[str], cases: int) -> None:
    """Predicts the cases of a command in as many parts as the cluster has places. `words`: as typed here, without the address.

    Raises CaseErrors with the lines of all parts for what could not be predicted, after the others have finished.
    """
    count = min(executor.tasks_at_once, cases)
    cores = executor.cores_each
    moved = {name: value for name, value in os.environ.items() if name.startswith("UTSEG_")}
    environment = (*moved.items(), *((name, str(cores)) for name in THREAD_VARIABLES))
    parts = [
        PartOfCommand((*words, "-np", str(cores)), f"{number}/{count}", Path.cwd(), environment)
        for number in range(1, count + 1)
    ]
    problems: list[str] = []
    with progress("parts predicted", count) as advance:
        for outcome in run_each(predict_part, parts, executor):
            if outcome.error is not None:
                problems += outcome.error.lines()
            for line in outcome.result or ():
                logger.warning("%s", line)
            advance()
    if problems:
        raise CaseErrors(dict.fromkeys(problems))


def predict_part(part: PartOfCommand) -> list[str]:
    """On a worker: predicts the part in a process of its own and returns its warnings. Raises what `run_child` raises."""
    words = [*part.words, "--part", part.part, "--resume"]
    try:
        return run_child(__name__, words, environment=dict(part.environment), folder=part.folder)
    except Interrupted:
        raise UtsegError(f"{part}: stopped; run the command again with --resume to go on") from None


if __name__ == "__main__":
    from utseg.commands.predict import make_predict_parser, predict

    sys.exit(as_child(lambda: predict(make_predict_parser().parse_args(), sys.argv[1:])))
