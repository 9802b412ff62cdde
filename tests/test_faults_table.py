"""`docs/faults.md`: all 42 faults, each with tests that are there, and with lines that the program says."""

import ast
import re
from functools import cache
from pathlib import Path

from source import is_said

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d", line)
]


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_tests_that_are_there():
    assert [int(row[0].strip("| ")) for row in ROWS] == list(range(1, 43))
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[3])
        assert named, row
        assert [test for file, test in named if test not in functions_of(file)] == [], row


def test_every_line_that_is_quoted_is_one_of_the_program():
    quoted = [text for row in ROWS for text in re.findall(r"`([^`]* [^`]*)`", row[2])]
    assert len(quoted) > 30 and [text for text in quoted if not is_said(text)] == []
