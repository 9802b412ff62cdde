"""Mutations of tables and of `Info.cfg`: encodings, columns, rows, frame numbers."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from walk.edits import (
    rows_of,
    table_of,
    write_table,
)
from walk.mutation import ACDC, EITHER, INDEX, MNMS, NO_KEY, REFUSE, SAME, mutation
from walk.raw import Raw

SPREADSHEETS: dict[str, Any] = {
    "semicolons": {"separator": ";"},
    "tabs": {"separator": "\t"},
    "UTF-8 with BOM": {"encoding": "utf-8-sig"},
    "UTF-16": {"encoding": "utf-16"},
    "UTF-16 with tabs": {"encoding": "utf-16", "separator": "\t"},
    "Latin-1": {"encoding": "latin-1"},
}


@mutation(
    "a table as spreadsheets write it",
    SAME,
    st.tuples(st.sampled_from(sorted(SPREADSHEETS)), st.booleans()),
    layouts=("nnunet", "mnms"),
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    table = table_of(raw)
    if table is None:
        return
    how = SPREADSHEETS[drawn[0]]
    write_table(table, rows_of(table), **how)
    if drawn[1]:
        encoding = how.get("encoding", "utf-8")
        text = table.read_text(encoding=encoding)
        table.write_text(f"sep={how.get('separator', ',')}\n{text}", encoding=encoding)


@mutation("columns in another order, letter case, further ones", SAME, layouts=("nnunet", "mnms"), last=True)
def _(raw: Raw, index: int) -> None:
    table = table_of(raw)
    if table is None:
        return
    rows = rows_of(table)
    names = list(rows[0])
    names = names[index % len(names) :] + names[: index % len(names)]
    write_table(
        table, [{name.upper(): row[name] for name in names} | {"Notes": "a, b", "": ""} for row in rows]
    )


@mutation(
    "codes in another letter case",
    EITHER,
    st.sampled_from([str.lower, str.upper, str.swapcase]),
    layouts=("nnunet", "mnms"),
    last=True,
)
def _(raw: Raw, fold: Any) -> None:
    table = table_of(raw)
    if table is None:
        return
    rows = rows_of(table)
    column = "case" if raw.layout == "nnunet" else "External code"
    changed = any(fold(row[column]) != row[column] for row in rows)
    write_table(table, [row | {column: fold(row[column])} for row in rows])
    if changed and raw.layout == "mnms":
        raw.hidden |= set(raw.cases)


@mutation("a row too many", EITHER, layouts=("nnunet", "mnms"), last=True)
def _(raw: Raw, _index: int) -> None:
    table = table_of(raw)
    if table is None:
        return
    rows = rows_of(table)
    column = "case" if raw.layout == "nnunet" else "External code"
    write_table(table, [*rows, rows[0] | {column: "Nobody"}])
    raw.say.append("Nobody")


@mutation("a row twice", EITHER, layouts=("nnunet", "mnms"), last=True)
def _(raw: Raw, index: int) -> None:
    table = table_of(raw)
    if table is not None:
        rows = rows_of(table)
        write_table(table, [*rows, rows[index % len(rows)]])


@mutation("a row too few", EITHER, layouts=("nnunet", "mnms"), last=True)
def _(raw: Raw, index: int) -> None:
    table = table_of(raw)
    if table is None:
        return
    column = "case" if raw.layout == "nnunet" else "External code"
    name, case = raw.pick(index)
    gone = name if raw.layout == "nnunet" else case.subject
    write_table(table, [row for row in rows_of(table) if row[column] != gone])
    if raw.layout == "mnms":
        raw.hidden |= {other for other, its in raw.cases.items() if its.subject == gone}
    raw.say.append(gone)


@mutation("ED and ES counted from 1", REFUSE, NO_KEY, layouts=MNMS, last=True)
def _(raw: Raw, _drawn: None) -> None:
    _frames(raw, lambda ed, es: (ed + 1, es + 1))


@mutation("ED and ES as 0.0", SAME, NO_KEY, layouts=MNMS)
def _(raw: Raw, _drawn: None) -> None:
    _frames(raw, lambda ed, es: (float(ed), float(es)))


@mutation(
    "ED and ES of one subject wrong",
    EITHER,
    st.tuples(INDEX, st.sampled_from([(0, 0), (-1, 1), (0, 99), (0.5, 1), ("", 1), ("x", 1)])),
    layouts=MNMS,
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    subject = raw.pick(drawn[0])[1].subject
    _frames(raw, lambda ed, es: drawn[1], subject)
    raw.hidden |= {name for name, case in raw.cases.items() if case.subject == subject}
    raw.say.append(subject)


def _frames(raw: Raw, edit: Callable[[int, int], Any], subject: str | None = None) -> None:
    table = table_of(raw)
    assert table is not None
    rows = rows_of(table)
    for row in rows:
        if subject in (None, row["External code"]):
            row["ED"], row["ES"] = map(str, edit(int(float(row["ED"])), int(float(row["ES"]))))
    write_table(table, rows)


INFO: dict[str, tuple[str, Callable[[str], str]]] = {
    "Windows lines": (SAME, lambda text: text.replace("\n", "\r\n")),
    "blanks and an empty line": (SAME, lambda text: "\n" + text.replace(": ", " :  ")),
    "no ED": (EITHER, lambda text: text.replace("ED", "XX")),
    "counted from 0": (REFUSE, lambda text: "\n".join(_less(line) for line in text.splitlines())),
    "words for numbers": (REFUSE, lambda text: text.replace("ED: ", "ED: one ")),
    "empty": (EITHER, lambda text: ""),
}


def _less(line: str) -> str:
    key, _, value = line.partition(": ")
    return f"{key}: {int(value) - 1}" if key in ("ED", "ES") else line


@mutation("Info.cfg", EITHER, st.tuples(INDEX, st.sampled_from(sorted(INFO))), layouts=ACDC, last=True)
def _(raw: Raw, drawn: Any) -> None:
    expect, edit = INFO[drawn[1]]
    case = raw.pick(drawn[0])[1]
    path = case.label.parent / "Info.cfg"
    path.write_bytes(edit(path.read_text()).encode())
    if expect != SAME:
        raw.hidden |= {other for other, its in raw.cases.items() if its.subject == case.subject}
        raw.say.append(case.subject)


@mutation("Info.cfg is missing", EITHER, layouts=ACDC, last=True)
def _(raw: Raw, index: int) -> None:
    case = raw.pick(index)[1]
    (case.label.parent / "Info.cfg").unlink()
    raw.hidden |= {other for other, its in raw.cases.items() if its.subject == case.subject}
    raw.say.append(case.subject)
