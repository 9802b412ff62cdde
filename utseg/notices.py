"""`Notice`: something odd about one file that is used all the same. What many files share is said once.

Notices are kept as they are found, case by case; `notice_lines` makes lines of them where people read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Notice:
    """`kind` says what, in the same words for every file that has it; `detail` has the file's own figures, "" for none."""

    kind: str
    file: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


def notice_lines(notices: Iterable[Notice]) -> list[str]:
    """One line a kind, in the order in which kinds first appear; a file that several cases share counts once."""
    kinds: dict[str, dict[str, Notice]] = {}
    for notice in notices:
        kinds.setdefault(notice.kind, {}).setdefault(notice.file, notice)
    lines = []
    for kind, files in kinds.items():
        first = next(iter(files.values()))
        shown = f"{first.file}: {first.detail}" if first.detail else first.file
        lines.append(str(first) if len(files) == 1 else f"{len(files)} files: {kind} (first: {shown})")
    return lines
