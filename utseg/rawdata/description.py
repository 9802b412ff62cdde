"""`dataset.json` of the nnU-Net layout: read, checked, and no key passed over without a word.

The spelling of nnU-Net v1 and the Decathlon is read, too. Free text is left alone; any key that is not known is a warning. No image is
looked at here.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from utseg.errors import InputError, SettingError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import (
    IGNORE,
    LARGEST_LABEL,
    MOST_VALUES,
    Labels,
    LabelValue,
    all_values,
    painted,
    structures,
    values_of,
)
from utseg.rawdata.names import IMAGE_ENDINGS, PICTURE_ENDINGS, image_stem

DESCRIPTION_FILE = "dataset.json"
REQUIRED_KEYS = ("channel_names", "labels", "file_ending")
KNOWN_KEYS = (
    *REQUIRED_KEYS,
    *("numTraining", "dataset", "overwrite_image_reader_writer", "regions_class_order"),
)
FREE_TEXT = frozenset({
    "name", "dataset_name", "description", "reference", "citation", "licence", "license", "release", "version", "date",
    "author", "authors", "contact", "url", "tensorimagesize", "numtest", "converted_by",
})  # fmt: skip
"""Keys, in lower case, that describe and decide nothing."""
SAME_READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")
READERS_OF_PICTURES = ("NaturalImage2DIO", "Tiff3DIO")
"""Readers that give the values that are read here too; masks come back as each file lies, whichever is named."""
OLDER = "the format of nnU-Net v1 and the Decathlon"
LISTS = ("training", "test")


ListedCase = tuple[tuple[Path, ...], Path]
"""A case of the `dataset` key: its images, one a channel, and its label."""


@dataclass(frozen=True)
class Description:
    """What is used of a `dataset.json`. `listed` are the cases of its `dataset` key, None without it; `warnings` are for the user.

    `numbered`: image files are called CASE_0000, one a channel; those of the Decathlon are called CASE, and hold all channels.
    """

    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: str
    num_training: int | None
    listed: Mapping[str, ListedCase] | None = None
    warnings: tuple[str, ...] = ()
    numbered: bool = True

    @property
    def joint(self) -> bool:
        """Whether a file may hold several channels: an RGB picture, or a 4-D file of the Decathlon."""
        return not self.numbered or self.file_ending in PICTURE_ENDINGS


Wrong = Callable[[str, str], SettingError]


def read_description(path: Path) -> Description:
    """Reads and checks `dataset.json`. Raises SettingError that names the path of the key, what was expected and found."""

    def wrong(key: str, text: str) -> SettingError:
        return SettingError(f"{path}: {key}: {text}")

    value = _read_json(path)
    if not isinstance(value, dict):
        raise SettingError(f"{path}: expected an object {{…}}, found {_kind(value)}")
    numbered = True
    if "modality" in value and "channel_names" not in value:
        value, numbered = _as_written_now(value, path.parent, wrong)
    _refuse_lists(value, wrong)
    unknown = [key for key in value if key not in KNOWN_KEYS and key.casefold() not in FREE_TEXT]
    for key in KNOWN_KEYS:
        if key not in value:
            _refuse_missing(key, value, unknown, wrong)
    channels = _channel_names(value["channel_names"], wrong)
    labels = _labels(value["labels"], value.get("regions_class_order"), wrong)
    reader, ending = value.get("overwrite_image_reader_writer"), _file_ending(value["file_ending"], wrong)
    same = READERS_OF_PICTURES if ending in PICTURE_ENDINGS else SAME_READERS
    if reader not in (None, "None", *same):
        readers = ", ".join(same)
        raise wrong(
            "overwrite_image_reader_writer",
            f"{reader!r} is not supported; expected one of {readers}, or none: the reader goes by the file's ending",
        )
    number = value.get("numTraining")
    if number is not None and (type(number) is not int or number < 0):
        raise wrong("numTraining", f"expected a whole number, found {number!r}")
    line = f"{path}: keys that are not known and have no effect: {listing(unknown)}"
    about = Description(channels, labels, ending, number, None, (line,) if unknown else (), numbered)
    return (
        replace(about, listed=_listed(path.parent, value["dataset"], about, wrong))
        if "dataset" in value
        else about
    )


def lists_cases(folder: Path) -> bool:
    """Whether a folder has a `dataset.json` with a `dataset` key of which some file is there. Whether it is right is not asked."""
    try:
        listed = read_description(folder / DESCRIPTION_FILE).listed or {}
    except InputError:
        return False
    return any(path.exists() for images, _ in listed.values() for path in images)


def _as_written_now(older: Mapping[str, Any], folder: Path, wrong: Wrong) -> tuple[dict[str, Any], bool]:
    """What nnU-Net v1 and the Decathlon say, in the words of v2; and whether their images are called CASE_0000."""
    value = {key: of for key, of in older.items() if key not in ("modality", *LISTS)}
    value = {"channel_names": older["modality"], "file_ending": IMAGE_ENDINGS[0], **value}
    labels = older.get("labels")
    if isinstance(labels, dict) and labels and all(key.isdecimal() and len(key) < 10 for key in labels):
        names = list(labels.values())
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise wrong(
                "labels", f"expected a name of its own for each value, found {json.dumps(labels)[:80]}"
            )
        value["labels"] = {name: int(number) for number, name in labels.items()}
    if "training" not in older:
        return value, True
    entries = older["training"]
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(_is_path(entry.get(key)) for key in ("image", "label"))
        for entry in entries
    ):
        raise wrong(
            "training", f'expected a list of {{"image": PATH, "label": PATH}}, found {_kind(entries)}'
        )
    images = {(image_stem(Path(entry["image"]).name) or entry["image"]): entry for entry in entries}
    if len(images) < len(entries):
        raise wrong("training", f"{len(entries) - len(images)} images are listed twice")
    numbered = not any((folder / entry["image"]).exists() for entry in entries)
    channels = len(older["modality"]) if isinstance(older["modality"], dict) else 1

    def files(image: str) -> list[str]:
        stem = image_stem(image) or image
        names = [f"{stem}_{number:04d}{image.removeprefix(stem)}" for number in range(channels)]
        return names if numbered else [image]

    value["dataset"] = {
        name: {"images": files(entry["image"]), "label": entry["label"]} for name, entry in images.items()
    }
    return value, numbered


def _is_path(value: Any) -> bool:
    """Whether it is a text that a file may be called."""
    return isinstance(value, str) and len(value) < 1000 and all(len(part) <= 255 for part in value.split("/"))


def _refuse_lists(value: Mapping[str, Any], wrong: Wrong) -> None:
    for key in LISTS:
        if key in value:
            raise wrong(
                key,
                f"this list of cases is {OLDER} and is not read, as channel_names are not called modality; remove it to use all of "
                "imagesTr and imagesTs, or name the training cases by the key dataset",
            )


def _refuse_missing(key: str, value: Mapping[str, Any], unknown: list[str], wrong: Wrong) -> None:
    """A key that is missing, or, where one is called nearly so, which it should be. Only the required ones must be there."""
    others = {other.casefold().replace("_", ""): other for other in unknown}
    close = difflib.get_close_matches(key.casefold().replace("_", ""), list(others), n=1, cutoff=0.75)
    if close:
        raise wrong(others[close[0]], f"unknown key; did you mean {key!r}?")
    if key in REQUIRED_KEYS:
        raise wrong(key, f"this key is missing; found {', '.join(value) or 'none'}")


def _file_ending(ending: Any, wrong: Wrong) -> str:
    if ending in IMAGE_ENDINGS:
        return str(ending)
    meant = f".{ending}".casefold().replace("..", ".")
    hint = f"; did you mean {meant!r}?" if meant in IMAGE_ENDINGS else ""
    raise wrong("file_ending", f"expected one of {', '.join(IMAGE_ENDINGS)}, found {ending!r}{hint}")


def _listed(folder: Path, value: Any, about: Description, wrong: Wrong) -> dict[str, ListedCase]:
    """The cases of the `dataset` key. Paths are relative to the folder of `dataset.json`, or absolute."""
    if not isinstance(value, dict) or not value:
        example = '{"CASE": {"images": ["imagesTr/CASE_0000.nii.gz"], "label": "labelsTr/CASE.nii.gz"}}'
        raise wrong("dataset", f"expected an object like {example}, found {_kind(value)}")
    listed, channels = {}, len(about.channel_names)
    for case, entry in value.items():
        where = f"dataset.{case}"
        if not isinstance(entry, dict) or set(entry) != {"images", "label"}:
            found = f"the keys {', '.join(entry) or 'none'}" if isinstance(entry, dict) else _kind(entry)
            raise wrong(where, f"expected the keys images and label, found {found}")
        images, label = entry["images"], entry["label"]
        if not isinstance(images, list) or not all(map(_is_path, images)):
            raise wrong(f"{where}.images", f"expected a list of paths, found {_kind(images)}")
        if len(images) != channels and not (about.joint and 1 <= len(images) < channels):
            expected = f"expected {channels}, one a channel of channel_names"
            raise wrong(f"{where}.images", f"{expected}, found {len(images)}")
        if not _is_path(label):
            raise wrong(f"{where}.label", f"expected a path, found {_kind(label)}")
        listed[case] = tuple(folder / image for image in images), folder / label
    return listed


def _read_json(path: Path) -> Any:
    try:
        text = require_no_broken_link(path).read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; it says which channels and labels there are, see raw_data_template/"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SettingError(f"{path}: not valid JSON ({error})") from None
    except ValueError as error:
        raise SettingError(f"{path}: {error}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice}: this key is there {keys.count(twice)} times; keep one")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: f"the text {value!r}", type(None): "null"}
    return names.get(type(value), repr(value))


def _channel_names(value: Any, wrong: Wrong) -> tuple[str, ...]:
    if not isinstance(value, dict) or not value:
        raise wrong("channel_names", f'expected an object like {{"0": "cine-MRI"}}, found {_kind(value)}')
    expected = [str(number) for number in range(len(value))]
    if other := sorted(set(value) - set(expected)):
        keys = f"expected the keys {', '.join(expected)}, found {', '.join(value)}"
        raise wrong(f"channel_names.{other[0]}", keys)
    for key, name in value.items():
        if not isinstance(name, str):
            raise wrong(f"channel_names.{key}", f"expected a text, found {_kind(name)}")
    return tuple(value[key] for key in expected)


def _labels(value: Any, order: Any, wrong: Wrong) -> dict[str, LabelValue]:
    """`labels`, regions as tuples whose first value is the one that `regions_class_order` says."""
    example = '{"background": 0, "LV": 1}'
    if not isinstance(value, dict) or not value:
        raise wrong("labels", f"expected an object like {example}, found {_kind(value)}")
    if all(key.isdigit() for key in value):
        raise wrong("labels", f"names come first, as in {example}; found {json.dumps(value)[:80]}")
    for name, entry in value.items():
        _check_label(f"labels.{name}", name, entry, wrong)
    background = [name for name, entry in value.items() if entry == 0]
    if len(background) != 1:
        raise wrong("labels", f"expected one label of the value 0 (background), found {len(background)}")
    regions = any(isinstance(entry, list) for entry in value.values())
    if not regions and order is not None:
        raise wrong(
            "regions_class_order", "no label is a list of values, so that there are no regions; remove it"
        )
    labels = (
        _with_regions(value, order, wrong)
        if regions
        else dict(sorted(value.items(), key=lambda item: item[1]))
    )
    numbers = list(labels.values())
    if not structures(labels) or len(set(numbers)) < len(numbers):
        found = json.dumps(list(value.values()))
        raise wrong(
            "labels", f"expected the value 0 (background) and others, without repetition, found {found[1:-1]}"
        )
    known = all_values(labels)
    if len(known) > MOST_VALUES:
        raise wrong("labels", f"expected at most {MOST_VALUES} values beside background, found {len(known)}")
    if IGNORE in labels and value[IGNORE] <= known[-1]:
        where, what = f"labels.{IGNORE}", "a value of its own, higher than that of any label"
        raise wrong(where, f"expected {what}, above {known[-1]}, found {value[IGNORE]}")
    return labels


def _check_label(where: str, name: str, entry: Any, wrong: Wrong) -> None:
    if name.casefold() == IGNORE:
        if name != IGNORE:
            raise wrong(where, f"the label of voxels that are not annotated is written {IGNORE!r}")
        if isinstance(entry, list):
            raise wrong(where, f"expected a number, not a list, found {json.dumps(entry)}")
    for number in entry if isinstance(entry, list) else [entry]:
        if type(number) is not int or not 0 <= number <= LARGEST_LABEL:
            expected = f"expected a whole number from 0 to {LARGEST_LABEL}"
            raise wrong(where, f"{expected}, found {_kind(number)}")
    if entry == [0]:
        raise wrong(where, "background is written 0, not [0]")
    if isinstance(entry, list) and (not entry or 0 in entry or len(set(entry)) < len(entry)):
        raise wrong(where, f"expected values above 0, each once, found {json.dumps(entry)}")


def _with_regions(value: Mapping[str, Any], order: Any, wrong: Wrong) -> dict[str, LabelValue]:
    """Labels of a dataset with regions, where those of one number are regions too. Refuses what cannot be told from masks again."""
    others = {name: entry for name, entry in value.items() if entry == 0 or name == IGNORE}
    regions = {
        name: entry if isinstance(entry, list) else [entry]
        for name, entry in value.items()
        if name not in others
    }
    key = "regions_class_order"
    if (
        not isinstance(order, list)
        or len(order) != len(regions)
        or any(type(each) is not int for each in order)
    ):
        raise wrong(
            key,
            f"expected a list of numbers, what each region paints, in the order of {', '.join(regions)}; found {json.dumps(order)}",
        )
    if len(set(order)) < len(order):
        raise wrong(
            key,
            f"expected each value once, for masks are to tell the regions apart, found {json.dumps(order)}",
        )
    labels: dict[str, LabelValue] = dict(others)
    for (name, values), first in zip(regions.items(), order, strict=True):
        if first not in values:
            raise wrong(key, f"{first} is none of the values of {name}, {json.dumps(values)}")
        labels[name] = (first, *(each for each in values if each != first))
    painting = list(structures(labels))
    for earlier, later in combinations(regions, 2):
        overlap = set(regions[earlier]) & set(regions[later])
        if set(regions[earlier]) == set(regions[later]):
            raise wrong("labels", f"the regions {earlier} and {later} have the same values; remove one")
        if overlap and painting.index(earlier) > painting.index(later):
            raise wrong(
                key,
                f"{later} would paint over {earlier}, which has fewer values or paints a higher one; name the regions from the largest to "
                "the smallest, those of a size by what they paint",
            )
    for earlier, later in combinations(painting, 2):
        if (paint := painted(labels[earlier])) in values_of(labels[later]):
            raise wrong(
                key,
                f"{earlier} paints {paint}, which is a value of {later} too, so that a mask would show both; choose another",
            )
    return labels
