"""The study file: what to train on, what to test on, what to vary. TOML in, a frozen value out, and back.

A wrong key or value is one line that names the file, the path of the key and what there is. Which subjects and runs follow from it is
decided elsewhere (`subjects.py`, `expand.py`).
"""

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from utseg.errors import InputError, SettingError, UsageError
from utseg.home import typed_path
from utseg.planning.plan import Positive
from utseg.settings import AnyValues, Settings, validate

SUFFIX = ".toml"
COMPARED = ("networks", "plans", "seeds")
Item = TypeVar("Item")


def _distinct(value: tuple[Item, ...]) -> tuple[Item, ...]:
    twice = next((item for item in value if value.count(item) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice")
    return value


Several = Annotated[tuple[Item, ...], AfterValidator(_distinct)]
OneOrMore = Annotated[tuple[Item, ...], Field(min_length=1), AfterValidator(_distinct)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


class TrainOn(Settings):
    """The training sets. `dataset`: left out, the command's. What follows adds up; without any of it there is one set, all subjects.

    `selections`: "all", or conditions on columns as in `utseg_train` ("vendor=A,B", "vendor!=C"). `each`: a set for every value of the
    column; `together`: and one of them all. `leave_out`: a set for every value of the column, of all other subjects; those with the value
    are tested. `subjects`: of every set also nested subsets of so many subjects, those that validate included. `folds`: which fifth of a
    set's subjects validates.
    """

    dataset: Name | None = None
    selections: Several[Name] = ()
    each: Name | None = None
    together: bool = False
    leave_out: Name | None = None
    subjects: Several[Annotated[int, Field(ge=2)]] = ()
    folds: OneOrMore[Count] = (0,)

    @model_validator(mode="after")
    def _together_with_each(self) -> "TrainOn":
        if self.together and self.each is None:
            raise ValueError("together needs each = COLUMN: it is one set of all that each makes")
        return self


class TestOn(Settings):
    """`datasets`: left out, the training dataset. `by`: the column that tells seen from unseen.

    `share`: of the training dataset's subjects, set aside for testing where it has no labelled testing or validation partition.
    """

    __test__ = False  # no test of pytest's

    datasets: Several[Name] = ()
    by: Name = "vendor"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2


class Variant(Settings):
    """Values of plan and recipe (those of `--set`) under a name. Variants of one `part` are compared with each other.

    `network`: instead of the study's. Its settings come on top of the study's.
    """

    part: str = ""
    name: str = ""
    network: Name | None = None
    settings: AnyValues = Field(default_factory=dict)


class Definition(Settings):
    """A study. `epochs`: left out, the plan's, or what the command's --max-time leaves for each run."""

    name: Name
    question: str = ""
    networks: OneOrMore[Name] = ("UTNet",)
    plans: OneOrMore[Name] = ("auto",)
    seeds: OneOrMore[Count] = (0,)
    epochs: Positive | None = None
    settings: AnyValues = Field(default_factory=dict)
    train: TrainOn = TrainOn()
    test: TestOn = TestOn()
    variants: tuple[Variant, ...] = ()

    @field_validator("variants")
    @classmethod
    def _told_apart(cls, value: tuple[Variant, ...], info: ValidationInfo) -> tuple[Variant, ...]:
        named = [(variant.part, variant.name) for variant in value]
        for part, name in named:
            if len(value) > 1 and not name:
                raise ValueError("each variant needs a name")
            if named.count((part, name)) > 1:
                raise ValueError(f"the name {name!r} is there twice" + (f" in part {part!r}" if part else ""))
        return value

    def parts(self) -> tuple[str, ...]:
        """The names of the parts that variants belong to."""
        return tuple(dict.fromkeys(variant.part for variant in self.variants if variant.part))


def builtin_names() -> list[str]:
    """The studies that come with this package."""
    entries = (files(__package__) / "builtin").iterdir()
    return sorted(entry.name.removesuffix(SUFFIX) for entry in entries if entry.name.endswith(SUFFIX))


def definition_text(name: str) -> tuple[str, str]:
    """Where a study is (for messages) and its text: a built-in name, or a file. Raises UsageError where it is neither."""
    if name in builtin_names():
        return f"{name}{SUFFIX}", (files(__package__) / "builtin" / f"{name}{SUFFIX}").read_text("utf-8")
    path = typed_path(name, "study")
    if not path.is_file():
        raise UsageError(
            f"{name}: no study is called so, and no such file is there; built in are: {', '.join(builtin_names())} "
            "(--print shows one, to copy)"
        )
    try:
        return str(path), path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: could not be read ({error})") from None


def read_definition(name: str) -> Definition:
    """The study of a built-in name or a file. Raises UsageError for neither, SettingError that names the path of a wrong key."""
    where, text = definition_text(name)
    return parse_definition(text, where)


def parse_definition(text: str, where: str) -> Definition:
    """The study that a TOML text describes. Raises SettingError: where, path of the key, expected, found."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise SettingError(f"{where}: not valid TOML ({error})") from None
    variants = tree.get("variants")
    tables = [entry for entry in variants if isinstance(entry, dict)] if isinstance(variants, list) else []
    for table in (tree, *tables):
        if isinstance(table.get("settings"), dict):
            table["settings"] = _dotted(table["settings"])
    for number, table in enumerate(tables, start=1):
        validate(Variant, table, f"{where}: variants, number {number}")  # says which keys a variant has
    return validate(Definition, tree, where)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key, however they are written: network.base_channels = 16, "network.base_channels" = 16, or a table."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def with_values(definition: Definition, values: Mapping[str, Any], where: str) -> Definition:
    """The study with other values, by dotted key (`networks`, `train.dataset`, …), checked as a whole."""
    tree = definition.model_dump(mode="json")
    for key, value in values.items():
        node = tree
        *groups, last = key.split(".")
        for group in groups:
            node = node[group]
        node[last] = value
    return validate(Definition, tree, where)


def to_toml(definition: Definition) -> str:
    """The study as a file: what is compared, and what differs from the default. Read again, it is the same study."""
    tree = definition.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    compared = definition.model_dump(mode="json", include=set(COMPARED))
    tree = {key: tree.pop(key) for key in ("name", "question") if key in tree} | compared | tree
    groups = {key: tree.pop(key) for key in ("train", "test") if key in tree}
    variants = tree.pop("variants", [])
    blocks = [_lines(tree)]
    blocks += [[f"[{name}]", *_lines(group)] for name, group in groups.items()]
    blocks += [["[[variants]]", *_lines(variant)] for variant in variants]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in table.items()]


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items()) + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)  # true, false and numbers are written alike
