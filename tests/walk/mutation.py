"""What a mutation is: a change to a raw dataset on disk, drawn by hypothesis, and what should come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from walk.raw import Raw

SAME = "same anatomy"  # must be accepted, and read as what it is
REFUSE = "refuse"  # must be refused
EITHER = "either"  # may be refused; where it is accepted, it must be read as what it is
NNUNET, MNMS, ACDC = ("nnunet",), ("mnms",), ("acdc",)
ALL = ("nnunet", "mnms", "acdc")
Parameters = Any


@dataclass(frozen=True)
class Mutation:
    """`draw` gives the parameters; `apply` changes files and the truth. `whole`: whether every ml stays what it was."""

    name: str
    expect: str
    layouts: tuple[str, ...]
    draw: SearchStrategy[Any]
    apply: Callable[[Raw, Parameters], None]
    whole: bool
    last: bool


MUTATIONS: dict[str, Mutation] = {}
INDEX = st.integers(0, 99)
"""Which case, by any whole number."""
NO_KEY = st.just(None)
AXES = st.permutations([0, 1, 2]).map(tuple)
FLIPS = st.tuples(st.booleans(), st.booleans(), st.booleans())


def mutation(
    name: str,
    expect: str,
    draw: SearchStrategy[Any] = INDEX,
    layouts: tuple[str, ...] = ALL,
    *,
    whole: bool = True,
    last: bool = False,
) -> Callable[[Callable[[Raw, Parameters], None]], Callable[[Raw, Parameters], None]]:
    """Registers a function as a mutation. `last`: it damages files that others could not read afterwards, so it comes after them."""

    def register(apply: Callable[[Raw, Parameters], None]) -> Callable[[Raw, Parameters], None]:
        assert name not in MUTATIONS, name
        MUTATIONS[name] = Mutation(name, expect, layouts, draw, apply, whole, last)
        return apply

    return register
