"""JSON of a stranger: no NaN or infinity, no key twice, no depth that ends in a crash, no control character that a terminal would obey."""

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any

from utseg.errors import InputError

DEPTH = 60
BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def parse_json(data: bytes, shown: str) -> Any:
    """The value of UTF-8 JSON. Raises InputError, which names `shown`, for all that the module names."""
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once_each
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown}: not valid JSON ({str(error)[:200]}); get it again") from None
    for depth, text in _texts(value):
        if depth > DEPTH:
            raise InputError(f"{shown}: nested deeper than {DEPTH} levels; get it again")
        if problem := text_problem(text):
            raise InputError(f"{shown}: {problem} in {text[:100]!r}; get it again")
    return value


def text_problem(text: str) -> str | None:
    """What keeps a text from being shown: control characters other than line feed and tab, half characters, changes of direction."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            return f"the character {character!a}"
        if character in BIDIRECTIONAL:
            return f"the direction mark {character!a}"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has a key twice")
    return value


def _texts(value: Any) -> Iterator[tuple[int, str]]:
    """All texts, keys among them, each with how deep it stands; and an empty one for every list and object."""
    waiting = [(0, value)]
    while waiting:
        depth, node = waiting.pop()
        if isinstance(node, str):
            yield depth, node
        elif isinstance(node, dict | list):
            yield depth, ""
            inner = [*node.keys(), *node.values()] if isinstance(node, dict) else node
            waiting += [(depth + 1, each) for each in inner]
