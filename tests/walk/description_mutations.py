"""Mutations of `dataset.json`: keys, spellings, text."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from walk.edits import (
    edit_description,
)
from walk.mutation import EITHER, NNUNET, NO_KEY, REFUSE, SAME, mutation
from walk.raw import Raw

KEYS: dict[str, tuple[Any, str]] = {
    "overwrite_image_reader_writer": ("SimpleITKIO", "overwrite_image_reader_writer"),
    "ignore_label": (3, "ignore_label"),
    "lables": ({"background": 0}, "lables"),
    "channel_name": ({"0": "T1"}, "channel_name"),
    "spacing": ([1, 1, 1], "spacing"),
    "regions_class_order": ([1, 2, 3], "regions_class_order"),
    "numTraining": (999, "numTraining"),
    "numTest": (3, ""),
    "description": ("free text", ""),
    "licence": ("CC BY", ""),
    "reference": ("a paper", ""),
}


@mutation("a further key in dataset.json", EITHER, st.sampled_from(sorted(KEYS)), layouts=NNUNET)
def _(raw: Raw, key: str) -> None:
    value, word = KEYS[key]
    edit_description(raw, lambda about: about.update({key: value}))
    raw.say += [word] if word else []


@mutation("the dataset key, with fewer cases", EITHER, layouts=NNUNET, last=True)
def _(raw: Raw, index: int) -> None:
    kept = sorted(raw.cases)[index % 2 :]
    entries = {
        name: {
            "images": [str(path.relative_to(raw.folder)) for path in raw.cases[name].images],
            "label": str(raw.cases[name].label.relative_to(raw.folder)),
        }
        for name in kept
    }
    edit_description(raw, lambda about: about.update(dataset=entries))
    raw.cases = {name: raw.cases[name] for name in kept}


def _v1(about: dict[str, Any]) -> None:
    about["modality"] = about.pop("channel_names")
    about["labels"] = {str(value): name for name, value in about["labels"].items()}


DESCRIPTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "v1 spelling": (SAME, _v1),
    "no channel_names": (REFUSE, lambda about: about.pop("channel_names")),
    "no labels": (REFUSE, lambda about: about.pop("labels")),
    "no file_ending": (EITHER, lambda about: about.pop("file_ending")),
    "no numTraining": (SAME, lambda about: about.pop("numTraining")),
    "ending without dot": (REFUSE, lambda about: about.update(file_ending="nii.gz")),
    "another ending": (REFUSE, lambda about: about.update(file_ending=".mha")),
    "background is 1": (
        REFUSE,
        lambda about: about["labels"].update(background=max(about["labels"].values()) + 1),
    ),
    "a number as text": (REFUSE, lambda about: about["labels"].update({list(about["labels"])[-1]: "3"})),
    "a number as true": (REFUSE, lambda about: about["labels"].update({list(about["labels"])[1]: True})),
    "two labels, one number": (REFUSE, lambda about: about["labels"].update({"another": 1})),
    "a label too few": (REFUSE, lambda about: about["labels"].popitem()),
    "a channel too many": (
        REFUSE,
        lambda about: about["channel_names"].update({str(len(about["channel_names"])): "T2"}),
    ),
    "channels from 1": (REFUSE, lambda about: about.update(channel_names={"1": "MRI"})),
    "channels as a list": (
        EITHER,
        lambda about: about.update(channel_names=["MRI"] * len(about["channel_names"])),
    ),
}


for _name, (_expect, _edit) in DESCRIPTIONS.items():

    @mutation(f"dataset.json: {_name}", _expect, NO_KEY, layouts=NNUNET, last=True)
    def _(raw: Raw, _drawn: None, edit: Callable[[dict[str, Any]], Any] = _edit) -> None:
        edit_description(raw, edit)


@mutation("dataset.json: CT", EITHER, NO_KEY, layouts=NNUNET)
def _(raw: Raw, _drawn: None) -> None:
    edit_description(
        raw, lambda about: about.update(channel_names=dict.fromkeys(about["channel_names"], "CT"))
    )
    raw.say.append("CT")


@mutation("dataset.json: regions", EITHER, NO_KEY, layouts=NNUNET, last=True)
def _(raw: Raw, _drawn: None) -> None:
    values = sorted(value for value in raw.labels.values() if value)
    regions = {"background": 0, "whole": values, "core": values[-1:]}
    edit_description(raw, lambda about: about.update(labels=regions, regions_class_order=values[:2]))
    raw.say.append("whole")


@mutation("dataset.json: ignore", EITHER, NO_KEY, layouts=NNUNET, last=True)
def _(raw: Raw, _drawn: None) -> None:
    last = max(raw.labels, key=lambda name: raw.labels[name])
    raw.labels["ignore"] = raw.labels.pop(last)
    edit_description(raw, lambda about: about.update(labels=raw.labels))
    raw.say.append("ignore")


TEXTS: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "UTF-8 with BOM": (SAME, lambda text: text.encode("utf-8-sig")),
    "UTF-16": (EITHER, lambda text: text.encode("utf-16")),
    "Windows lines": (SAME, lambda text: text.replace("\n", "\r\n").encode()),
    "cut off": (REFUSE, lambda text: text[: len(text) // 2].encode()),
    "a comma too many": (REFUSE, lambda text: text.rstrip().removesuffix("}").encode() + b",}"),
    "empty": (REFUSE, lambda text: b""),
    "a list": (REFUSE, lambda text: f"[{text}]".encode()),
    "labels twice": (
        EITHER,
        lambda text: text.replace("{", '{"labels": {"background": 0, "other": 1}, ', 1).encode(),
    ),
}


for _name, (_expect, _encode) in TEXTS.items():

    @mutation(f"the text of dataset.json: {_name}", _expect, NO_KEY, layouts=NNUNET, last=True)
    def _(raw: Raw, _drawn: None, encode: Callable[[str], bytes] = _encode, name: str = _name) -> None:
        path = raw.folder / "dataset.json"
        path.write_bytes(encode(path.read_text()))
        if name == "labels twice":
            raw.say.append("labels")
