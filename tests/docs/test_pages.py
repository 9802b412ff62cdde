"""What the documentation quotes is what the program has: messages, commands with their options, rooms of the tree."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from source import is_said

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMANDS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
CALL = re.compile(r"\b(utseg_(?!data\b)\w+)((?: [^`|&#\n]*)?)")
OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")


def test_every_message_that_is_explained_is_one_of_the_program():
    explained = re.findall(r"^### `(.*)`$", (PROJECT / "docs" / "faq.md").read_text(encoding="utf-8"), re.M)
    assert len(explained) >= 20
    assert [text for text in explained if not is_said(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_that_a_page_gives_it(page, capsys):
    wrong = []
    for name, words in CALL.findall(page.read_text(encoding="utf-8")):
        if name not in COMMANDS:
            wrong.append(name)
            continue
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(name, capsys)))
        wrong += [f"{name} {option}" for option in OPTION.findall(words) if option not in known]
    assert wrong == []


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    module, function = COMMANDS[name].split(":")
    with pytest.raises(SystemExit):
        getattr(importlib.import_module(module), function)(["--help"])
    return capsys.readouterr().out


def test_the_tree_in_the_readme_has_every_room():
    readme = PAGES[0].read_text(encoding="utf-8")
    rooms = [entry.parent.name for entry in (PROJECT / "utseg").glob("*/__init__.py")]
    assert len(rooms) > 15 and [room for room in rooms if f" {room}/" not in readme] == []
