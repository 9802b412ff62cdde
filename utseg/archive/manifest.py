"""`manifest.json` of a model archive: format, origin, terms of use, members, scores, and size and SHA-256 of every other file.

What is in an archive follows from its members alone; a file that the manifest does not name has no business there. Nothing is read or
written here.
"""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from utseg.archive.scores import ScoreTable
from utseg.planning.settings import Settings
from utseg.rawdata.names import name_problem
from utseg.runs import RUN_FILE, SUMMARY_FILE, VALIDATION_FOLDER, WEIGHTS_FILE

FORMAT: Literal["utseg-model-1"] = "utseg-model-1"
MANIFEST_FILE = "manifest.json"
CARD_FILE = "MODEL_CARD.md"
SUMMARY = f"{VALIDATION_FOLDER}/{SUMMARY_FILE}"
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, StringConstraints(max_length=20_000)]


class Terms(Settings):
    """What the makers of a model say about it; empty where they said nothing."""

    licence: Text = ""
    citation: Text = ""
    contact: Text = ""
    description: Text = ""


class Cohort(Settings):
    """How many were trained or validated on. `groups` counts the subjects of each value of a column ("vendor", "A").

    `subjects` is None, and `groups` empty, where only the cases are known.
    """

    cases: Count
    subjects: Count | None = None
    groups: dict[str, dict[str, Count]] = Field(default_factory=dict)


class Member(Settings):
    """One run: PLAN_2d/MODEL/FOLD, its network, what it was trained on. `finished`: its training came to its end."""

    name: str
    network: str
    selection: str
    training: Cohort
    validation: Cohort
    finished: bool


class FileRecord(Settings):
    """Size in bytes and SHA-256 of a file in the archive."""

    size: Count
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Settings):
    """The content of `manifest.json`. `with_case_ids` says whether the run records name the cases that were trained on."""

    format: Literal["utseg-model-1"] = FORMAT
    utseg_version: str
    dataset: str
    labels: dict[str, int]
    channel_names: tuple[str, ...]
    terms: Terms
    with_case_ids: bool
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=100)]
    scores: tuple[ScoreTable, ...]
    files: dict[str, FileRecord]

    @property
    def models(self) -> tuple[str, ...]:
        """PLAN_2d/MODEL of all members, each once."""
        return tuple(dict.fromkeys(member.name.rpartition("/")[0] for member in self.members))


def member_files(member: Member) -> list[str]:
    """The files that the archive has for a member."""
    files = [RUN_FILE, WEIGHTS_FILE, *([SUMMARY] if member.finished else [])]
    return [f"{member.name}/{file}" for file in files]


def expected_files(manifest: Manifest) -> set[str]:
    """All files that the archive has besides the manifest."""
    return {CARD_FILE, *(file for member in manifest.members for file in member_files(member))}


def manifest_problem(manifest: Manifest) -> str | None:
    """What about the names in a manifest cannot be, or None: paths in names, members that are not PLAN_2d/MODEL/FOLD, other files."""
    if problem := name_problem(manifest.dataset):
        return f"dataset: {manifest.dataset[:100]!r} {problem}"
    names = [member.name for member in manifest.members]
    for name in names:
        parts = name.split("/")
        if len(parts) != 3 or not parts[0].endswith("_2d"):
            return f"members: {name[:100]!r} is not of the form PLAN_2d/MODEL/FOLD"
    if problem := path_problem(names):
        return f"members: {problem}"
    wanted, given = expected_files(manifest), set(manifest.files)
    for name in sorted(wanted ^ given):
        there = "is missing" if name in wanted else "belongs to no member"
        return f"files: {name[:200]!r} {there}"
    for table in manifest.scores:
        if not set(table.runs) <= set(names):
            return "scores: are of runs that are no members"
    return None


def path_problem(names: Sequence[str]) -> str | None:
    """Why relative paths cannot all become files below one folder, on any file system; or None.

    Refused are `..`, absolute paths, drive letters, backslashes, control characters, names that are there twice or differ by letter
    case only, at every level.
    """
    for name in names:
        for part in name.split("/"):
            if problem := name_problem(part):
                return f"the name {name[:200]!r} is not allowed: {part[:100]!r} {problem}"
            if part != part.rstrip(". "):
                return f"the name {name[:200]!r} is not allowed: {part[:100]!r} ends with a dot or space"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"the name {twice[:200]!r} is there more than once"
    folders = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    if clash := sorted(folders.intersection(names)):
        return f"{clash[0][:200]!r} is both a file and a folder"
    spelt: dict[str, str] = {}
    for path in sorted(folders.union(names)):
        other = spelt.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path:
            return f"the names {other[:200]!r} and {path[:200]!r} differ by letter case only"
    return None
