"""The errors that a person may cause or has to know of.

Every message is one line: what, where, expected and found, what to do. The commands print it after `error: ` and choose the exit code;
anything that is not a UtsegError is a defect of ours. Nothing is printed here.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

LONGEST_LINE = 2000
# Of what a person may ask for; more is a typing error.
LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1
LONGEST_S = 1e9
MOST_WORKERS = 1024  # processes without end must not start


class UtsegError(Exception):
    """What the user can act on. Exit code 1."""

    exit_code = 1

    def lines(self) -> list[str]:
        """One line for each thing that is wrong; what a file says without end is cut."""
        return [shortened(str(self), LONGEST_LINE)]


class InputError(UtsegError, ValueError):
    """A file, folder or value that was handed in is not usable."""


class SettingError(InputError):
    """A setting (of a plan, a recipe, a network) has a wrong key or value."""


class TimeTooShort(InputError):
    """Fewer iterations fit into `--max-time` than anything is learnt from."""


class ArtefactError(UtsegError):
    """An artefact of ours is damaged, missing, or belongs to something else."""


class WorkerError(UtsegError, RuntimeError):
    """A worker process died; the message says which and why that may be."""


class FolderBusy(UtsegError):
    """Another process works in the folder."""


class UsageError(UtsegError):
    """The command line asks for something that does not exist. Exit code 2."""

    exit_code = 2


class Interrupted(UtsegError):
    """Stopped by a signal after the work was saved; the same command goes on. Exit code 75."""

    exit_code = 75


class CaseErrors(InputError):
    """Several cases are unusable: one line each, all found before the work starts (or, in a long run, after the others finished)."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))

    def __reduce__(self) -> tuple[type["CaseErrors"], tuple[list[str]]]:
        return type(self), (self.problems,)  # or a process pool would hand over the joined text

    def lines(self) -> list[str]:
        return [shortened(problem, LONGEST_LINE) for problem in self.problems]


class UnknownValues(CaseErrors):
    """The label map of one case has `values` that no label has, and nothing else is wrong with it."""

    def __init__(self, problems: Iterable[str], values: Sequence[str]) -> None:
        super().__init__(problems)
        self.values = tuple(values)

    def __reduce__(self) -> tuple[type["UnknownValues"], tuple[list[str], tuple[str, ...]]]:  # type: ignore[override]
        return type(self), (self.problems, self.values)


@contextmanager
def explained_by(warnings: Iterable[str]) -> Iterator[None]:
    """Wrong input that is raised inside carries these warnings as its notes, for they may say why. The commands print them before it."""
    try:
        yield
    except (InputError, ArtefactError) as error:
        for warning in warnings:
            if warning not in getattr(error, "__notes__", ()):
                error.add_note(warning)
        raise


def number_of(count: int, noun: str) -> str:
    """The count with its noun, in the plural where it is not one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shortened(text: str, most: int = 200) -> str:
    """A text that came from elsewhere, cut where it is longer than a message has room for."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def listing(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are: for messages that stay one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
