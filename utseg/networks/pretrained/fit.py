"""Check that published weights fit a network, and say in one line where they do not."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from utseg.errors import InputError, listing


def misshapen(entries: Iterable[tuple[str, Tensor, Sequence[int]]]) -> list[str]:
    """Names, values and the shapes that they should have: those that have another, in words."""
    wrong = (
        f"{name} {tuple(value.shape)} where {tuple(shape)} is expected"
        for name, value, shape in entries
        if value.shape != shape
    )
    return list(dict.fromkeys(wrong))


def require_fit(what: str, problems: Mapping[str, Sequence[str]], advice: str) -> None:
    """Raises InputError with what is missing, unexpected or of another shape: names by kind."""
    found = [f"{len(names)} {kind}: {listing(names, most=8)}" for kind, names in problems.items() if names]
    if found:
        raise InputError(f"{what}; {'; '.join(found)}; {advice}")
