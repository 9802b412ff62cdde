"""Types of network settings, by which `build_network` checks them, and checks of relations between several."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from utseg.errors import SettingError

Count = Annotated[int, Strict(), Field(ge=1)]
Counts = tuple[Count, ...]
Levels = tuple[Annotated[int, Strict(), Field(ge=0)], ...]
Flag = Annotated[bool, Strict()]
Fraction = Annotated[float, Strict(), Field(ge=0, lt=1)]
ReduceSize = Annotated[int, Strict(), Field(ge=2)]
Projection = Literal["interp", "maxpool"]
RelativePosition = Literal["2d-bias", "1d-qk", "none"]


def check_count(name: str, value: object) -> None:
    """Raises SettingError where a value is no whole number of at least 1: for networks whose settings have no type that says so."""
    if type(value) is not int or value < 1:
        raise SettingError(f"{name} is {value!r}; it must be a whole number of at least 1")


def check_listed(name: str, entries: Levels, last: int, what: str) -> Levels:
    """Whole numbers from 0 to `last`, each once, sorted."""
    for entry in entries:
        if entry > last or entries.count(entry) > 1:
            raise SettingError(
                f"{name} has the entry {entry}; allowed are {what} from 0 to {last}, each once"
            )
    return tuple(sorted(entries))


def check_divides(name: str, heads: int, channels: int, where: str) -> int:
    """A number of heads that divides the channels."""
    if channels % heads:
        raise SettingError(f"{name} has {heads} for {where}; it must divide the {channels} channels there")
    return heads


def one_each(name: str, entries: Counts, listed: Levels, of: str) -> dict[int, int]:
    """An entry for each that is listed, or one for all, as {number: entry}."""
    if len(entries) not in (1, len(listed)):
        raise SettingError(
            f"{name} is {entries!r}, {len(entries)} entries; {of} {listed!r} takes {len(listed)}, or 1 for all"
        )
    return dict(zip(listed, entries if len(entries) > 1 else entries * len(listed), strict=True))


def entries_by_level(name: str, entries: Counts, listed: Levels, levels: int) -> dict[int, int]:
    """Per-level entries such as num_heads, as {level: entry}.

    A single entry serves all levels. With as many entries as there are listed levels: one each, in rising order. Else with `levels`
    entries: levels 1 … `levels`; with one more: levels 0 … `levels`; entries of levels that are not listed stay, so that a default
    serves any selection.
    """
    if len(entries) == 1:
        return dict.fromkeys(range(levels + 1), entries[0])
    if len(entries) == len(listed):
        return dict(zip(listed, entries, strict=True))
    if len(entries) in (levels, levels + 1):
        return dict(enumerate(entries, levels + 1 - len(entries)))
    raise SettingError(
        f"{name} is {entries!r}, {len(entries)} entries; block_list {listed!r} takes {len(listed)}, one a level "
        f"(or 1 for all, {levels} for levels 1 to {levels}, {levels + 1} for levels 0 to {levels})"
    )
