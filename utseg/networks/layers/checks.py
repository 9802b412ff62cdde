"""What a network's settings may be, checked once where the network is built.

Each error is one line that names the setting, its value and what is allowed.
"""

from collections.abc import Collection
from typing import Any

from utseg.errors import SettingError


def check_whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingError(f"{name} is {value!r}; it must be a whole number of at least {least}")
    return value


def check_counts(**values: Any) -> None:
    """Settings that are whole numbers of at least 1, by name."""
    for name, value in values.items():
        check_whole(name, value)


def check_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise SettingError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
    return str(value)


def check_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise SettingError(f"{name} is {value!r}; it must be true or false")
    return value


def check_fraction(name: str, value: Any) -> float:
    """At least 0 and less than 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise SettingError(f"{name} is {value!r}; it must be a number from 0 to less than 1")
    return float(value)


def check_wholes(name: str, value: Any) -> tuple[int, ...]:
    """A list of whole numbers, each at least 1."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise SettingError(f"{name} is {value!r}; it must be a list of whole numbers, such as (1, 1, 1, 1)")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, int) or entry < 1:
            raise SettingError(f"{name} has the entry {entry!r}; each must be a whole number of at least 1")
    return tuple(value)


def check_listed(name: str, value: Any, last: int, allowed: str) -> tuple[int, ...]:
    """Whole numbers from 0 to `last`, each once, sorted. `allowed`: that in words."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise SettingError(f"{name} is {value!r}; it must be a list of {allowed}")
    entries = list(value)
    for entry in entries:
        whole = isinstance(entry, int) and not isinstance(entry, bool)
        if not whole or not 0 <= entry <= last or entries.count(entry) > 1:
            raise SettingError(f"{name} has the entry {entry!r}; allowed are {allowed}")
    return tuple(sorted(entries))


def check_divides(name: str, heads: int, channels: int, where: str) -> int:
    """A number of heads that divides the channels."""
    if channels % heads:
        raise SettingError(f"{name} has {heads} for {where}; it must divide the {channels} channels there")
    return heads


def entries_by_level(name: str, value: Any, listed: tuple[int, ...], levels: int) -> dict[int, int]:
    """Per-level entries such as num_heads, as {level: entry}.

    A single entry serves all levels. With as many entries as there are listed levels: one each, in rising order. Else with `levels`
    entries: levels 1 … `levels`; with one more: levels 0 … `levels`; there entries of levels that are not listed are kept, so that a
    default serves any selection.
    """
    entries = check_wholes(name, value)
    if len(entries) == 1:
        return dict.fromkeys(range(levels + 1), entries[0])
    if len(entries) == len(listed):
        return dict(zip(listed, entries, strict=True))
    if len(entries) in (levels, levels + 1):
        first = levels + 1 - len(entries)
        return {first + position: entry for position, entry in enumerate(entries)}
    raise SettingError(
        f"{name} is {entries!r}, {len(entries)} entries; block_list {listed!r} takes {len(listed)}, one a level "
        f"(or 1 for all, {levels} for levels 1 to {levels}, {levels + 1} for levels 0 to {levels})"
    )
