"""Where things live: `raw/NAME`, `preprocessed/NAME`, `results/NAME` below one home folder, each movable by an environment variable.

A folder that is missing is an error when it is used, not at import. Nothing is read or written here but folder names.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from utseg.errors import InputError, UsageError
from utseg.files import require_no_broken_link

DEFAULT_HOME = "utseg_data"
DEFAULT_PLANNER = "auto"
PLAN_FILE = "plan.json"
Configuration = Literal["2d", "2.5d"]
DEFAULT_CONFIGURATION: Configuration = "2d"
CONFIGURATIONS: tuple[Configuration, ...] = get_args(Configuration)
NUMBERED = re.compile(r"(?:Dataset|Task)(\d+)_(.+)")
QUOTES = "\"'"
FilePath = str | Path


@dataclass(frozen=True)
class Home:
    """The three root folders."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def locate(cls, home: FilePath | None = None) -> "Home":
        """`home`, else UTSEG_HOME, else ./utseg_data; UTSEG_RAW, UTSEG_PREPROCESSED and UTSEG_RESULTS move one of them."""

        def named(variable: str) -> Path | None:
            text = os.environ.get(variable)
            return typed_path(text, variable) if text else None

        root = (Path(home) if home else None) or named("UTSEG_HOME") or Path(DEFAULT_HOME)

        names = "raw", "preprocessed", "results"
        return cls(*((named(f"UTSEG_{name.upper()}") or root / name).absolute() for name in names))

    def raw_dataset(self, name: str | None) -> tuple[str, Path]:
        """Name and folder of a raw dataset; without a name, of the only one there. Dataset027_ACDC is found as 27 and as ACDC, too."""
        return _choose(self.raw, name, "raw dataset", "put it there, or name another --home")

    def preprocessed_dataset(self, name: str | None) -> tuple[str, Path]:
        """Name and folder of a planned and preprocessed dataset; without a name, of the only one there."""
        return _choose(
            self.preprocessed,
            name,
            "preprocessed dataset",
            "run utseg_plan_and_preprocess first",
            holds=tuple(f"{plan_folder_name('*', each)}/{PLAN_FILE}" for each in CONFIGURATIONS),
        )

    def trained_dataset(self, name: str | None) -> tuple[str, Path]:
        """Name and folder of a dataset with results; without a name, of the only one there."""
        return _choose(
            self.results, name, "trained dataset", "run utseg_train first", holds=("*/*/*/run.json",)
        )


def typed_path(text: str, what: str = "path") -> Path:
    """A path as a person or a settings file writes it: blanks and quotes around it are left out, ~ is the home folder.

    Raises UsageError where nothing is left, or ~ names nobody: no folder is ever called "~".
    """
    bare = text.strip()
    if len(bare) > 1 and bare[0] in QUOTES and bare[-1] == bare[0]:
        bare = bare[1:-1].strip()
    if not bare:
        raise UsageError(f"{what} {text!r} is empty; expected a file or folder")
    try:
        return Path(bare).expanduser()
    except RuntimeError:
        first = Path(bare).parts[0]
        raise UsageError(
            f"{what} {text!r}: no home folder is known for {first}; for a folder of that name write ./{bare}"
        ) from None


def plan_folder_name(planner: str, configuration: str = "2d") -> str:
    """The name of a plan's folder, in `preprocessed/NAME` and in `results/NAME`."""
    return f"{planner}_{configuration}"


def split_plan_name(name: str) -> tuple[str, Configuration]:
    """Planner and configuration of a plan as people name it: `auto` (which is 2d) or `auto_2.5d`."""
    for configuration in CONFIGURATIONS:
        planner = name.removesuffix(plan_folder_name("", configuration))
        if planner not in ("", name):
            return planner, configuration
    return name, "2d"


def plan_name(folder_name: str) -> str:
    """A plan's folder as people name it: `auto` of auto_2d, auto_2.5d itself."""
    return folder_name.removesuffix(plan_folder_name("", "2d"))


def planner_words(folder_name: str) -> list[str]:
    """The words of `utseg_plan_and_preprocess` that plan what is in this folder."""
    planner, configuration = split_plan_name(folder_name)
    return ["-pl", planner, *(["-c", configuration] if configuration != "2d" else [])]


def choose_plan_folder(preprocessed: Path, planner: str | None, configuration: str) -> Path:
    """The folder of the plan that was asked for, with or without its configuration; else of `auto`; else of the only one there."""
    if planner is not None:
        asked, (planner, named) = planner, split_plan_name(check_name(planner, "plan"))
        if planner != asked and named != configuration:
            raise UsageError(f"-pl {asked}: that is a {named} plan: utseg_train {named} -pl {planner}")
    ending = plan_folder_name("", configuration)
    folders = sorted(entry.name for entry in preprocessed.iterdir() if (entry / PLAN_FILE).is_file())
    there = [name.removesuffix(ending) for name in folders if name.endswith(ending)]
    listed = ", ".join(map(plan_name, folders)) or "none"
    if not there:
        words = " ".join(planner_words(plan_folder_name(planner or DEFAULT_PLANNER, configuration)))
        raise InputError(
            f"{preprocessed}: no {configuration} plan is there (plans there: {listed}); "
            f"run utseg_plan_and_preprocess {words} first"
        )
    if planner is None:
        if len(there) > 1 and DEFAULT_PLANNER not in there:
            raise UsageError(f"{preprocessed}: several plans: {', '.join(there)}; choose one with -pl")
        planner = DEFAULT_PLANNER if DEFAULT_PLANNER in there else there[0]
    if planner not in there:
        folder = plan_folder_name(planner, configuration)
        raise InputError(
            f"{preprocessed / folder}: no plan is there (plans there: {listed}); run utseg_plan_and_preprocess "
            f"{' '.join(planner_words(folder))}, or choose one of them with -pl"
        )
    return preprocessed / plan_folder_name(planner, configuration)


def check_configuration(name: str, hint: str = "") -> None:
    """Raises UsageError where no configuration is called that."""
    if name not in CONFIGURATIONS:
        raise UsageError(f"no configuration is called {name!r}; there are: {', '.join(CONFIGURATIONS)}{hint}")


def is_fold(selection: str) -> bool:
    """Whether a selection, or the name of a run's folder, is a fold of the splits: fold0; not fold00, nor fold=0, a column's value."""
    return re.fullmatch("fold(0|[1-9][0-9]{0,8})", selection) is not None


def selection_folder_name(selection: str) -> str:
    """A selection (`fold0`, `vendor=A,B`) as the name of a run's folder: itself, with all that file systems dislike replaced by `_`."""
    return re.sub(r"[^\w.,=!+-]", "_", selection).lstrip(".") or "_"


def check_name(name: str, what: str) -> str:
    """A name that becomes a folder: no path in it."""
    plain = name and Path(name).name == name and "\\" not in name and name.strip(QUOTES + " ") == name
    if not plain or name.startswith((".", "~")):
        raise UsageError(
            f"{what} {name!r} is not a plain name: no slashes, no leading dot or ~, no quotes or blanks around it"
        )
    return name


def _is_numbered(folder: str, name: str) -> bool:
    """Whether a folder is called as nnU-Net's (Dataset027_ACDC) or the Decathlon's (Task09_Spleen), and the name is its number or end."""
    numbered = NUMBERED.fullmatch(folder)
    return numbered is not None and (name == numbered[2] or name.lstrip("0") == numbered[1].lstrip("0"))


def _choose(
    root: Path, name: str | None, what: str, advice: str, holds: tuple[str, ...] = ()
) -> tuple[str, Path]:
    """`holds`: patterns; folders without a file of any of them do not count."""
    there = (
        sorted(
            entry.name
            for entry in root.iterdir()
            if entry.is_dir()
            and not entry.name.startswith(".")
            and (not holds or any(next(entry.glob(each), None) for each in holds))
        )
        if root.is_dir()
        else []
    )
    if name is not None:
        check_name(name, what)
        if name in there:
            return name, root / name
        meant = [entry for entry in there if _is_numbered(entry, name)]
        if len(meant) == 1:
            return meant[0], root / meant[0]
        if meant:
            raise UsageError(
                f"{what} {name!r}: several are meant by it: {', '.join(meant)}; write the whole name"
            )
        require_no_broken_link(root / name)
        found = f"found there: {', '.join(there)}" if there else "nothing is there"
        raise InputError(f"{root / name}: no {what} called {name!r} ({found}); {advice}")
    if len(there) == 1:
        return there[0], root / there[0]
    if not there:
        raise InputError(f"{root}: no {what} is there; {advice}")
    raise UsageError(f"several of kind {what!r} are in {root}: {', '.join(there)}; choose one with -d")
