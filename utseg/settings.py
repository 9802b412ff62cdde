"""Reads JSON into pydantic models, and applies `--set KEY=VALUE`, with errors that name the path of the key and list the right ones."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from utseg.errors import SettingError, shortened
from utseg.files import read_json


class Settings(BaseModel):
    """Base of everything that a person may edit in a file: frozen, no unknown keys, no number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


DEEPEST_VALUE = 64
"""Levels of lists and mappings in a value of any kind; far below what stops code that calls itself for each level."""


def tree_nodes(value: Any) -> Iterator[Any]:
    """A tree as JSON has it, every list, mapping, key and value of it, however deep."""
    for level in _levels(value):
        yield from level


def _levels(value: Any) -> Iterator[list[Any]]:
    level = [value]
    while level:
        yield level
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below += [*node.keys(), *node.values()]
            elif isinstance(node, list | tuple):
                below += node
        level = below


def _plain(value: Any) -> Any:
    for depth, level in enumerate(_levels(value)):
        if depth > DEEPEST_VALUE:
            raise ValueError(f"a value in it is nested more than {DEEPEST_VALUE} levels deep")
        for node in level:
            if isinstance(node, float) and not isfinite(node):
                raise ValueError(f"a number in it is {node}; expected finite numbers")
    return value


AnyValues = Annotated[dict[str, Any], AfterValidator(_plain)]
"""Values whose types their owner checks, as a network its settings."""

Model = TypeVar("Model", bound=BaseModel)


def read_model(model: type[Model], path: Path) -> Model:
    """Reads and validates a JSON file. A wrong value or an unknown key is one error that names file and path of the key."""
    return validate(model, read_json(path), str(path))


def validate(model: type[Model], value: Any, where: str) -> Model:
    """Validates a value; the first problem becomes a SettingError: where, path of the key, expected, found, the keys that exist."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        unknown_first = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        problems = [_problem_line(model, problem) for problem in unknown_first]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SettingError(f"{where}: {problems[0]}{more}") from None


def _problem_line(model: type[BaseModel], problem: Any) -> str:
    path = shortened(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return _unknown(path, setting_keys(model))
    if problem["type"] == "missing":
        return f"key {path!r} is missing"
    return f"{path}: {expectation(problem)}; found {shortened(repr(problem['input']))}"


def expectation(problem: Any) -> str:
    """What pydantic expected, as a person who writes JSON, TOML or `--set` calls it: a list, not a tuple."""
    words: str = problem["msg"].removeprefix("Value error, ")
    return words.replace("tuple", "list").replace("Tuple", "List")


def setting_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys of a model, groups opened."""
    keys = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += setting_keys(annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as a dictionary. Values are JSON where they parse as such, `128,128` is a list, all else is text."""
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise SettingError(f"--set {assignment}: expected KEY=VALUE, as in --set epochs=16")
        parsed[key.strip()] = _parse_value(text.strip())
    return parsed


def _parse_value(text: str) -> Any:
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits, thousands of brackets
            raise SettingError(f"--set: {shortened(text)}: {error}") from None
    return [part.strip() for part in text.split(",")] if "," in text else text


def with_settings(model: Model, values: dict[str, Any], where: str = "--set") -> Model:
    """A copy of the model with dotted keys replaced, validated as a whole. Unknown keys raise SettingError that lists the known ones."""
    tree = model.model_dump(mode="json")
    known = setting_keys(type(model))
    for key, value in values.items():
        if key not in known:
            raise unknown_key(key, known, where)
        node = tree
        *groups, last = key.split(".")
        for group in groups:
            node = node[group]
        node[last] = value
    return validate(type(model), tree, where)


def unknown_key(key: str, known: Iterable[str], where: str = "--set") -> SettingError:
    """The error for a key that does not exist: the nearest one, then all."""
    return SettingError(f"{where}: {_unknown(key, list(known))}")


def _unknown(key: str, known: list[str]) -> str:
    same_name = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    close = same_name or difflib.get_close_matches(key, known, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {key!r}; {guess}known: {', '.join(known)}"
