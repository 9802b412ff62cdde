"""The content of the code that trains a run, so that an edited planner, recipe or network is another run: ours and a plugin's alike."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from utseg.files import sha256_json

OUR_PACKAGE = "utseg"


def code_sha256(thing: Any) -> str:
    """Of the file of a class or function, and of the files of its own package that it imports (of ours: of its own room)."""
    return _code_sha256(thing.__module__)


@cache
def _code_sha256(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == OUR_PACKAGE:
        package = f"{package}.{rest.partition('.')[0]}"
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = _spec(name) if name == package or name.startswith(f"{package}.") else None
        if name in sources or spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        sources[name] = Path(spec.origin).read_text(encoding="utf-8")
        waiting += _imported(sources[name], spec)
    return sha256_json(sources)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # what is imported from a module is no module of it
        return None


def _imported(source: str, importer: ModuleSpec) -> Iterator[str]:
    """The names of modules that a file imports, and of what it imports from them, which may be modules too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), importer.parent)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
