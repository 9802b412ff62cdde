"""The nnU-Net layout: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `imagesTs`, and optionally `cases.csv`.

`dataset.json` may carry keys of its own; those that are used here must be right. Region-based labels and an ignore label are not supported.
No pixel is read here: a file that is missing is reported by the gate, with all other faults.
"""

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utseg.case import Case, Dataset, Partition
from utseg.errors import CaseErrors, InputError, SettingError, listing
from utseg.files import require_no_broken_link
from utseg.rawdata.names import name_problems
from utseg.rawdata.tables import Table, is_empty, read_table

FILE_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
DESCRIPTION_FILE = "dataset.json"
TABLE_FILE = "cases.csv"
PLACES = ("imagesTr", "imagesTs", "labelsTr", "labelsTs")
REQUIRED_KEYS = ("channel_names", "labels", "file_ending")
LARGEST_LABEL = 255
GROUPS = {
    "phase": ("phase",),
    "vendor": ("vendor",),
    "centre": ("centre", "center"),
    "pathology": ("pathology",),
}
"""Columns of `cases.csv` that are known whatever their letter case; others keep the name that they have there."""
CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)


@dataclass(frozen=True)
class Description:
    """What is used of a `dataset.json`."""

    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    file_ending: str
    num_training: int | None


def looks_like(folder: Path) -> bool:
    """Whether a folder has `dataset.json` or `imagesTr`."""
    return (folder / DESCRIPTION_FILE).exists() or (folder / "imagesTr").is_dir()


def has_images(folder: Path) -> bool:
    """Whether a folder has an image folder of this layout. With `dataset.json` only it may be a plain folder that names its labels."""
    return any(
        (folder / images).is_dir() or (folder / images).is_symlink() for images in ("imagesTr", "imagesTs")
    )


def open_nnunet(folder: Path, name: str) -> Dataset:
    """Reads a folder in this layout. Raises SettingError (`dataset.json`), InputError, CaseErrors (names, rows of `cases.csv`)."""
    for place in (*PLACES, TABLE_FILE):
        require_no_broken_link(folder / place)
    about = read_description(folder / DESCRIPTION_FILE)
    training = _partition_cases(folder, "Tr", "training", about)
    testing = _partition_cases(folder, "Ts", "testing", about)
    cases = [*training, *testing]
    if not cases:
        raise InputError(
            f"{folder / 'imagesTr'}: no images called CASE_0000{about.file_ending} (file_ending of dataset.json)"
        )
    problems = name_problems((case.case_id for case in cases), "case")
    if problems:
        raise CaseErrors(f"{folder}: {problem}" for problem in problems)
    warnings = _completeness(folder, about, training, cases)
    if (folder / TABLE_FILE).exists():
        cases = _with_rows(cases, read_table(folder / TABLE_FILE), warnings)
    return Dataset(name, folder, "nnunet", about.channel_names, about.labels, tuple(cases), tuple(warnings))


def read_description(path: Path) -> Description:
    """Reads and checks `dataset.json`. Raises SettingError that names the path of the key, what was expected and found."""
    value = _read_json(path)
    if not isinstance(value, dict):
        raise SettingError(f"{path}: expected an object {{…}}, found {_kind(value)}")
    if "channel_names" not in value and "modality" in value:
        raise SettingError(
            f'{path}: modality: this is the key of an older format; rename it to "channel_names"'
        )
    for key in (*REQUIRED_KEYS, "numTraining"):
        if key not in value:
            _report_missing(path, key, value)
    channels = _channel_names(path, value["channel_names"])
    ending = value["file_ending"]
    if ending not in FILE_ENDINGS:
        raise SettingError(
            f"{path}: file_ending: expected one of {', '.join(FILE_ENDINGS)}, found {ending!r}"
        )
    number = value.get("numTraining")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise SettingError(f"{path}: numTraining: expected a whole number, found {number!r}")
    return Description(channels, _labels(path, value["labels"]), ending, number)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(require_no_broken_link(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; it says which channels and labels there are, see raw_data_template/"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SettingError(f"{path}: not valid JSON ({error})") from None


def _report_missing(path: Path, key: str, value: Mapping[str, Any]) -> None:
    """A key that is missing, or, where one is called nearly so, which it should be. `numTraining` may be left out."""
    others = {other.casefold().replace("_", ""): other for other in value if other not in REQUIRED_KEYS}
    close = difflib.get_close_matches(key.casefold().replace("_", ""), list(others), n=1, cutoff=0.75)
    if close:
        raise SettingError(f"{path}: {others[close[0]]}: unknown key; did you mean {key!r}?")
    if key in REQUIRED_KEYS:
        raise SettingError(f"{path}: {key}: this key is missing; found {', '.join(value) or 'none'}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: f"the text {value!r}", type(None): "null"}
    return names.get(type(value), repr(value))


def _channel_names(path: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, dict) or not value:
        raise SettingError(
            f'{path}: channel_names: expected an object like {{"0": "cine-MRI"}}, found {_kind(value)}'
        )
    expected = {str(number) for number in range(len(value))}
    if set(value) != expected:
        wrong = sorted(set(value) - expected)
        raise SettingError(
            f"{path}: channel_names.{wrong[0]}: expected the keys {', '.join(sorted(expected))}, found {', '.join(value)}"
        )
    for key, name in value.items():
        if not isinstance(name, str):
            raise SettingError(f"{path}: channel_names.{key}: expected a text, found {_kind(name)}")
    return tuple(value[str(number)] for number in range(len(value)))


def _labels(path: Path, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise SettingError(
            f'{path}: labels: expected an object like {{"background": 0, "LV": 1}}, found {_kind(value)}'
        )
    if all(key.isdigit() for key in value):
        raise SettingError(
            f'{path}: labels: names come first, as in {{"background": 0, "LV": 1}}; found {json.dumps(value)[:80]}'
        )
    for name, number in value.items():
        if isinstance(number, list):
            raise SettingError(
                f"{path}: labels.{name}: regions (lists of values) are not supported; give each structure a value of its own"
            )
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_LABEL:
            raise SettingError(
                f"{path}: labels.{name}: expected a whole number from 0 to {LARGEST_LABEL}, found {_kind(number)}"
            )
        if name.casefold() == "ignore":
            raise SettingError(
                f"{path}: labels.{name}: an ignore label is not supported; label those voxels or leave the case out"
            )
    numbers = sorted(value.values())
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise SettingError(
            f"{path}: labels: expected the values 0 (background), 1, 2, … without gaps or repetition, found {', '.join(map(str, numbers))}"
        )
    return dict(sorted(value.items(), key=lambda item: int(item[1])))


def _image_cases(folder: Path, channels: int, ending: str, partition: Partition) -> list[Case]:
    """The cases of an image folder, each its own subject, in the order of their names.

    A channel that is missing is left to the gate; a channel too many, or a file without a channel number, raises CaseErrors.
    """
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(ending) or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(ending)
        match = CHANNEL_SUFFIX.fullmatch(stem)
        if match is None:
            problems.append(
                f"{path}: no channel number in the name; expected for example {stem}_0000{ending}"
            )
        elif int(match["channel"]) >= channels:
            problems.append(
                f"{path}: channel {int(match['channel'])}, but channel_names in dataset.json has {channels}, counted from 0"
            )
        else:
            found[match["case"]][int(match["channel"])] = path
    if problems:
        raise CaseErrors(problems)
    cases = []
    for case, there in found.items():
        images = (there.get(number, folder / f"{case}_{number:04d}{ending}") for number in range(channels))
        cases.append(Case(case, case, tuple(images), partition=partition))
    return cases


def _partition_cases(folder: Path, suffix: str, partition: Partition, about: Description) -> list[Case]:
    images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
    if not images.is_dir():
        return []
    cases = _image_cases(images, len(about.channel_names), about.file_ending, partition)
    labelled = []
    for case in cases:
        label = labels / f"{case.case_id}{about.file_ending}"
        # A link counts wherever it leads: the gate says where it leads nowhere.
        labelled.append(replace(case, label=label) if label.is_file() or label.is_symlink() else case)
    return labelled


def _completeness(
    folder: Path, about: Description, training: Sequence[Case], cases: Sequence[Case]
) -> list[str]:
    """Warnings about what is there without its counterpart."""
    warnings = []
    bare = [case.case_id for case in training if case.label is None]
    if bare:
        warnings.append(
            f"{folder / 'labelsTr'}: {len(bare)} images of imagesTr have no label and are not trained on: {listing(bare)}"
        )
    for suffix in ("Tr", "Ts"):
        used = {case.label for case in cases}
        labels = folder / f"labels{suffix}"
        there = sorted(labels.iterdir()) if labels.is_dir() else []
        lone = [
            path.name
            for path in there
            if path not in used and path.name.endswith(FILE_ENDINGS) and path.name[0] != "."
        ]
        if lone:
            warnings.append(f"{labels}: {len(lone)} labels have no image and are left out: {listing(lone)}")
    if about.num_training is not None and about.num_training != len(training):
        warnings.append(
            f"{folder / 'dataset.json'}: numTraining is {about.num_training}, but imagesTr holds {len(training)} cases"
        )
    return warnings


def _with_rows(cases: Iterable[Case], table: Table, warnings: list[str]) -> list[Case]:
    """Subject, phase and groups from `cases.csv`. A training case without a row is an error: its subject decides on its fold."""
    columns = {key: _required_column(table, key) for key in ("case", "subject")}
    problems = name_problems((row[columns["case"]] for row in table.rows), "case")
    rows = {row[columns["case"]]: row for row in table.rows}
    group_columns = _group_columns(table, set(columns.values()))
    complete, lacking = [], []
    for case in cases:
        row = rows.pop(case.case_id, None)
        if row is None:
            lacking += [case.case_id] if case.partition == "training" else []
            complete.append(case)
            continue
        if is_empty(row[columns["subject"]]):
            problems.append(
                f"case {case.case_id} has no subject; repeat the case's name where it is the only one of its subject"
            )
        groups = {
            group: "" if is_empty(row[column]) else row[column] for group, column in group_columns.items()
        }
        if "phase" in groups:
            groups["phase"] = groups["phase"].upper()
        complete.append(
            replace(case, subject=row[columns["subject"]], phase=groups.get("phase", ""), groups=groups)
        )
    if lacking:
        problems.append(
            f"{len(lacking)} cases of imagesTr have no row: {listing(lacking)}; add them, their subject decides on their fold"
        )
    if problems:
        raise CaseErrors(f"{table.path}: {problem}" for problem in problems)
    if rows:
        warnings.append(
            f"{table.path}: {len(rows)} rows have no image and are left out: {listing(sorted(rows))}"
        )
    return complete


def _group_columns(table: Table, others: set[str]) -> dict[str, str]:
    """The columns to group by, as they are called in the file, by the name of the group. Columns without any value are left out."""
    canonical = {alias: group for group, aliases in GROUPS.items() for alias in aliases}
    found: dict[str, str] = {}
    for column in table.columns:
        if column in others or all(is_empty(row[column]) for row in table.rows):
            continue
        group = canonical.get(column.casefold(), column)
        if group in found:
            raise InputError(f"{table.path}: columns {found[group]!r} and {column!r} mean the same; keep one")
        found[group] = column
    return found


def _required_column(table: Table, key: str) -> str:
    column = table.column(key)
    if column is None:
        raise InputError(
            f"{table.path}: column {key!r} is missing; found {', '.join(table.columns) or 'none'}"
        )
    return column
