"""Our source, read: its calls, for tests of what it may not do, and its texts, for tests of what pages quote."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PACKAGES = ("utseg", "planners", "trainers")
Calls = Iterator[tuple[str, ast.Call, tuple[ast.AST, ...]]]


@cache
def trees() -> list[tuple[str, ast.Module]]:
    """Path below the project, and the parsed file, of each file."""
    files = [file for package in PACKAGES for file in sorted((PROJECT / package).rglob("*.py"))]
    return [(str(file.relative_to(PROJECT)), ast.parse(file.read_text(encoding="utf-8"))) for file in files]


@cache
def texts() -> str:
    """Every text of the source, `…` in the place of what is filled in."""
    found = []
    for _file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(?:\.\d)?[sdg]", "…", node.value))
    return "\n".join(found)


def is_said(text: str) -> bool:
    """Whether the program has a message that begins, goes on or ends like this."""
    return text.removesuffix(" …").removesuffix(", …") in texts()


def calls(tree: ast.AST) -> Calls:
    """Each call: what is called, as `np.load` or `.write_text` of anything else than a name; the call; functions and `with`s around it."""
    todo: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(tree, ())]
    while todo:
        node, around = todo.pop()
        if isinstance(node, ast.Call):
            yield called(node), node, around
        inner = (*around, node) if isinstance(node, ast.FunctionDef | ast.With) else around
        todo += [(child, inner) for child in ast.iter_child_nodes(node)]


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        return f"{owner.id if isinstance(owner, ast.Name) else ''}.{node.func.attr}"
    return node.func.id if isinstance(node.func, ast.Name) else ""


def value_of(node: ast.Call, keyword: str) -> object:
    """The constant that a keyword is given; None without it."""
    found = [each.value for each in node.keywords if each.arg == keyword]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None
