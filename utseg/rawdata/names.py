"""Which names a case may have, since they become file and folder names on any system; by which endings a file is an image, and its mask.

Nothing is renamed here; a name that does not do is refused.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from utseg.errors import listing

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".mha", ".nrrd")
PICTURE_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
IMAGE_ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS, *PICTURE_ENDINGS)
CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)
FORBIDDEN = frozenset("/\\:\0")
LONGEST = 200


def is_picture(path: Path) -> bool:
    """Whether a file is a 2-D picture by its name."""
    return path.name.endswith(PICTURE_ENDINGS)


def image_stem(name: str) -> str | None:
    """The name of an image file without its ending, None where it is no image by its name."""
    return next((name.removesuffix(ending) for ending in IMAGE_ENDINGS if name.endswith(ending)), None)


def mask_name(case_id: str, image: str) -> str:
    """The file of a case's mask, by the name of its (first) image: a picture's has the picture's ending, any other is NIfTI."""
    ending = next((ending for ending in PICTURE_ENDINGS if image.endswith(ending)), NIFTI_ENDINGS[0])
    return case_id + ending


def name_problem(name: str) -> str | None:
    """Why a name cannot be a case's (a path in it, absolute, hidden, control characters, too long), or None."""
    if not name:
        return "is empty"
    if any(character in FORBIDDEN for character in name):
        return "has a path in it; use a plain name without / \\ or :"
    if name.startswith((".", "~")):
        return "begins with a dot or ~"
    if name != name.strip():
        return "begins or ends with a space"
    if any(unicodedata.category(character).startswith("C") for character in name):
        return "has control characters in it"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None


def name_problems(names: Iterable[str], what: str) -> list[str]:
    """One line for each name that cannot be used, is there twice, or differs from another by letter case only."""
    names = list(names)
    problems = [
        f"{what} {name!r} {problem}" for name in dict.fromkeys(names) if (problem := name_problem(name))
    ]
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_folded(name)].append(name)
    for group in alike.values():
        if len(group) > 1 and len(set(group)) == 1:
            problems.append(f"{what} {group[0]!r} is there {len(group)} times; names must be unique")
        elif len(group) > 1:
            listed = ", ".join(repr(name) for name in sorted(set(group)))
            problems.append(
                f"{what}s {listed} differ by letter case only, which many file systems cannot tell apart; rename them"
            )
    return problems


def letter_case_pairs(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Those of `ours` that only need another letter case to be one of `theirs`, and which."""
    folded = {_folded(name): name for name in theirs}
    return {
        name: folded[_folded(name)] for name in sorted(ours) if name not in theirs and _folded(name) in folded
    }


def letter_case_differs(ours: Collection[str], theirs: Collection[str], here: str, there: str) -> str | None:
    """Which of `ours`, found in `here`, only need another letter case to be one of `theirs`, found in `there`; None where none does.

    Nothing is matched by it: which of the two is right is for a person to say.
    """
    pairs = [
        f"{name!r} in {here}, {other!r} {there}" for name, other in letter_case_pairs(ours, theirs).items()
    ]
    return f"the letter case of {len(pairs)} names differs: {listing(pairs)}" if pairs else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
