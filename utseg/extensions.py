"""Planners, trainers and networks by name, through entry points: ours and anybody else's alike.

A name that a file or a person gives is only ever looked up here; nothing is imported because a plan or an archive names it.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from utseg.errors import UsageError

Kind = Literal["planners", "trainers", "networks"]


@cache
def _registered(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"utseg.{kind}")}


def names(kind: Kind) -> list[str]:
    """The registered names of a kind, sorted."""
    return sorted(_registered(kind))


def find(kind: Kind, name: str) -> Any:
    """The object registered under a name. Raises UsageError that lists the known names."""
    point = _registered(kind).get(name)
    if point is None:
        raise UsageError(
            f"no {kind.removesuffix('s')} is called {name!r}; there are: {', '.join(names(kind))}"
        )
    return point.load()
