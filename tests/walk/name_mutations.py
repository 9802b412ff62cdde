"""Mutations of names, and of which files there are: labels, cases, endings, links, subjects."""

import shutil
from typing import Any

import numpy as np
import SimpleITK
from hypothesis import strategies as st

from walk.edits import change_label, change_voxels, edit_description, rows_of, table_of, write_table
from walk.mutation import EITHER, INDEX, NNUNET, REFUSE, SAME, mutation
from walk.raw import Raw


@mutation("label numbers permuted, names with them", SAME, st.integers(1, 5), layouts=NNUNET)
def _(raw: Raw, turns: int) -> None:
    names = [name for name, value in raw.labels.items() if value]
    new = {name: (index + turns) % len(names) + 1 for index, name in enumerate(names)}
    table = np.zeros(256, dtype=np.uint8)
    for name in names:
        table[raw.labels[name]] = new[name]
    for path in raw.files("labels"):
        change_label(path, lambda voxels: table[np.rint(voxels).astype(int)])
    raw.labels = {"background": 0, **new}
    edit_description(raw, lambda about: about.update(labels=raw.labels))


ODD_NAMES = (
    "left ventricle",
    "Herzmuskel äöü",
    "心室",
    "lv",
    "RV cavity (blood)",
    "x" * 80,
    "1st",
    "a,b;c",
    "=1+1",
    "NaN",
    "<b>LV</b>",
)


@mutation(
    "label names with blanks, accents, signs", SAME, st.permutations(ODD_NAMES), layouts=NNUNET, last=True
)
def _(raw: Raw, names: Any) -> None:
    new = {"background": 0}
    for value in sorted(raw.labels.values()):
        if value:
            new[names[value]] = value
    renamed = {name: names[value] for name, value in raw.labels.items()}
    raw.say = [renamed.get(word, word) for word in raw.say]
    raw.labels = new
    edit_description(raw, lambda about: about.update(labels=new))


def rename_case(raw: Raw, old: str, new: str) -> None:
    """Renames a case of an nnU-Net folder, its row in the table too."""
    case = raw.cases.pop(old)
    moved = []
    for path in (*case.images, case.label):
        target = path.with_name(path.name.replace(old, new, 1))
        path.rename(target)
        moved.append(target)
    case.images, case.label = moved[:-1], moved[-1]
    table = raw.folder / "cases.csv"
    if table.exists():
        rows = rows_of(table)
        for row in rows:
            if row["case"] == old:
                row["case"] = new
        write_table(table, rows)
    elif case.subject == old:
        case.subject = new
    raw.cases[new] = case


ODD_CASES = (
    "a case",
    "fälle_1",
    "c.d.e",
    "UPPER",
    "-dash",
    "x_0000",
    "100%",
    "it's",
    "a+b",
    "#1",
    "名前",
    "nan",
    "~home",
    "$HOME",
)


@mutation(
    "case names with blanks, accents, signs",
    SAME,
    st.tuples(INDEX, st.sampled_from(ODD_CASES)),
    layouts=NNUNET,
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    rename_case(raw, raw.pick(drawn[0])[0], drawn[1])


@mutation("case names that differ by letter case", REFUSE, layouts=NNUNET, last=True)
def _(raw: Raw, index: int) -> None:
    names = sorted(raw.cases)
    first, second = names[index % len(names)], names[(index + 1) % len(names)]
    rename_case(raw, first, "Twin")
    rename_case(raw, second, "twin")


@mutation("a case name with a leading dot", EITHER, layouts=NNUNET, last=True)
def _(raw: Raw, index: int) -> None:
    name = raw.pick(index)[0]
    rename_case(raw, name, f".{name}")
    raw.hidden.add(f".{name}")
    raw.say.append(f".{name}")


@mutation("labels called CASE_0000", EITHER, st.booleans(), layouts=NNUNET, last=True)
def _(raw: Raw, every: bool) -> None:
    for name in sorted(raw.cases)[: None if every else 1]:
        case = raw.cases[name]
        target = case.label.with_name(case.label.name.replace(name, f"{name}_0000", 1))
        case.label = case.label.rename(target)
        raw.hidden.add(name)
        raw.say.append(name)


@mutation("a file that is missing", EITHER, st.tuples(INDEX, st.sampled_from(["image", "label"])), last=True)
def _(raw: Raw, drawn: Any) -> None:
    name, case = raw.pick(drawn[0])
    (case.images[-1] if drawn[1] == "image" else case.label).unlink()
    _hide(raw, name)


@mutation("a dangling link", EITHER, st.tuples(INDEX, st.sampled_from(["image", "label"])), last=True)
def _(raw: Raw, drawn: Any) -> None:
    name, case = raw.pick(drawn[0])
    path = case.images[-1] if drawn[1] == "image" else case.label
    path.unlink()
    path.symlink_to("../.git/annex/objects/not-there")
    _hide(raw, name)


def _hide(raw: Raw, name: str) -> None:
    """A case may be left out, with those that share its files, if its name or its subject's is said."""
    case = raw.cases[name]
    raw.hidden |= {other for other, its in raw.cases.items() if its.label == case.label}
    raw.say.append(name if raw.layout == "nnunet" else case.subject)


@mutation("links that lead somewhere", SAME, last=True)
def _(raw: Raw, _index: int) -> None:
    store = raw.folder.parent.parent / "store"
    store.mkdir(exist_ok=True)
    for number, path in enumerate(raw.files()):
        shutil.move(path, store / str(number))
        path.symlink_to(store / str(number))


@mutation("plain .nii files", SAME, layouts=NNUNET, last=True)
def _(raw: Raw, _index: int) -> None:
    _other_ending(raw, ".nii")


@mutation(".mha or .nrrd files", SAME, st.sampled_from([".mha", ".nrrd"]), layouts=NNUNET, last=True)
def _(raw: Raw, ending: str) -> None:
    _other_ending(raw, ending)


def _other_ending(raw: Raw, ending: str) -> None:
    raw.measure()
    for case in raw.cases.values():
        moved = []
        for path in (*case.images, case.label):
            target = path.with_name(path.name.removesuffix(raw.ending) + ending)
            image = SimpleITK.ReadImage(str(path))
            for key in image.GetMetaDataKeys():  # NIfTI's own, of which the writers warn
                image.EraseMetaData(key)
            SimpleITK.WriteImage(image, str(target))
            path.unlink()
            moved.append(target)
        case.images, case.label = moved[:-1], moved[-1]
    raw.ending = ending
    edit_description(raw, lambda about: about.update(file_ending=ending))


@mutation(
    "one scan under two subjects", SAME, st.tuples(INDEX, st.sampled_from(["int32", "float32"])), whole=False
)
def _(raw: Raw, drawn: Any) -> None:
    subjects = sorted({case.subject for case in raw.cases.values()})
    first = subjects[drawn[0] % len(subjects)]
    second = subjects[(drawn[0] + 1) % len(subjects)]
    mine = [case for _, case in sorted(raw.cases.items()) if case.subject == first]
    others = [case for _, case in sorted(raw.cases.items()) if case.subject == second]
    done = set()
    for one, other in zip(mine, others, strict=False):
        for source, target in zip((*one.images, one.label), (*other.images, other.label), strict=True):
            if target not in done:
                shutil.copyfile(source, target)
                if target != other.label:
                    change_voxels(target, lambda voxels: voxels.astype(drawn[1]))
                done.add(target)
        other.frame = one.frame
    if raw.layout == "mnms":
        _same_frames(raw, first, second)
    raw.same_fold.append({first, second})
    raw.say += [first, second]


def _same_frames(raw: Raw, first: str, second: str) -> None:
    table = table_of(raw)
    assert table is not None
    rows = rows_of(table)
    frames = next((row["ED"], row["ES"]) for row in rows if row["External code"] == first)
    for row in rows:
        if row["External code"] == second:
            row["ED"], row["ES"] = frames
    write_table(table, rows)
    for phase, frame in zip(("ED", "ES"), frames, strict=True):
        raw.cases[f"{second}_{phase}"].frame = int(float(frame))


@mutation("one subject alone", EITHER, last=True)
def _(raw: Raw, index: int) -> None:
    kept = raw.pick(index)[1].subject
    for name, case in list(raw.cases.items()):
        if case.subject != kept:
            for path in (*case.images, case.label):
                path.unlink(missing_ok=True)
            if raw.layout != "nnunet":
                shutil.rmtree(case.label.parent, ignore_errors=True)
            del raw.cases[name]


@mutation(
    "files that do not belong there",
    SAME,
    st.sampled_from([".DS_Store", "Thumbs.db", "._a_0000.nii.gz", "notes.txt", "x.json"]),
)
def _(raw: Raw, name: str) -> None:
    for place in {path.parent for path in raw.files()} | {raw.folder}:
        (place / name).write_bytes(b"\0\5\x16\7 something")
