"""One step of the walk: a dataset is drawn, made, mutated, and put through plan, train, predict and evaluate; what came of it is judged.

Commands run in this process, with a time limit each, or as processes of their own. A dataset is drawn from its number and the seed alone.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import nibabel as nib
import numpy as np
from hypothesis import strategies as st

from walk import (  # noqa: F401 — they register themselves
    description_mutations,
    geometry_mutations,
    name_mutations,
    table_mutations,
    voxel_mutations,
)
from walk.bases import LAYOUTS, MADE, REAL
from walk.commands import Commands, Hang
from walk.mutation import AXES, EITHER, FLIPS, MUTATIONS, REFUSE, SAME
from walk.oracle import (
    check_fingerprint,
    check_folds,
    check_masks,
    check_scores,
    check_slices,
    least_dice,
    own_scores,
)
from walk.raw import Raw, Scan, put_together, read, take_apart, turned, turned_array
from walk.scoring import SCORINGS, Scored

DATASET = "Walk"
TINY = (
    "patch_size=64,64",
    "network.base_channels=4",
    "network.levels=2",
    "network.block_list=2",
    "network.num_blocks=1",
    "network.num_heads=1",
    "network.reduce_size=4",
    "iterations_per_epoch=2",
    "batch_size=2",
)
ACCEPTED, REFUSED, WRONG, CRASH, HANG = "accepted", "refused", "WRONG", "CRASH", "HANG"


@dataclass(frozen=True)
class Walk:
    """What was drawn. `mutations` with their parameters, in the order in which they are applied.

    `test_only`: the untouched base is trained on, and the mutated one predicted and scored.
    """

    base: str
    mutations: tuple[tuple[str, Any], ...]
    copy: tuple[tuple[int, int, int], tuple[bool, bool, bool]]
    scoring: tuple[str, int]
    whole_folder: bool
    test_only: bool

    @property
    def expect(self) -> str:
        """What should come of the raw dataset."""
        expects = {MUTATIONS[name].expect for name, _ in self.mutations}
        return next((each for each in (REFUSE, EITHER) if each in expects), SAME)


@dataclass(frozen=True)
class Verdict:
    """What came of it, at which command, and why."""

    what: str
    command: str
    message: str = ""


def draw_walk(number: int, seed: int, bases: Sequence[str]) -> Walk:
    """The dataset of a number. Every mutation leads in its turn; base, parameters and further mutations are hypothesis's."""
    lead = sorted(MUTATIONS)[number % len(MUTATIONS)]
    drawn: list[Walk] = []

    @hypothesis.seed(seed * 100_003 + number)
    @hypothesis.settings(
        max_examples=4,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_walks(lead, bases))
    def collect(walk: Walk) -> None:
        drawn.append(walk)

    collect()
    return drawn[-1]  # the first one is always the simplest


@st.composite
def _walks(draw: Callable[[Any], Any], lead: str, bases: Sequence[str]) -> Walk:
    base = draw(st.sampled_from([name for name in bases if LAYOUTS[name] in MUTATIONS[lead].layouts]))
    fitting = [
        name
        for name, each in sorted(MUTATIONS.items())
        if LAYOUTS[base] in each.layouts and each.expect == SAME
    ]
    further = draw(st.lists(st.sampled_from(fitting), max_size=2, unique=True))
    names = [name for name in further if not MUTATIONS[name].last and name != lead]
    names.append(lead)  # at most one that comes last
    mutations = tuple((name, draw(MUTATIONS[name].draw)) for name in names)
    return Walk(
        base,
        mutations,
        (draw(AXES), draw(FLIPS)),
        (draw(st.sampled_from(sorted(SCORINGS))), draw(st.integers(0, 99))),
        draw(st.booleans()),
        draw(st.sampled_from((False, False, True))),
    )


def make_base(walk: Walk, folder: Path, cache: Path, shared: Path | None) -> Raw:
    """Makes the base in a new folder, and measures it."""
    folder.parent.mkdir(parents=True)
    if walk.base in REAL:
        assert shared is not None, "real scans are in the shared folder"
        raw = REAL[walk.base](folder, cache, shared)
    else:
        raw = MADE[walk.base](folder, cache)
    raw.measure()
    return raw


def mutate(walk: Walk, raw: Raw) -> None:
    """Applies the mutations, and measures again. Where all of them should keep every volume, that is asserted."""
    before = sorted(round(ml, 3) for case in raw.cases.values() for ml in case.ml.values())
    for name, parameters in walk.mutations:
        MUTATIONS[name].apply(raw, parameters)
    try:
        raw.measure()
    except Exception:  # noqa: BLE001 — a file that is damaged, or not there: refused, or left out
        return
    after = sorted(round(ml, 3) for case in raw.cases.values() for ml in case.ml.values())
    if all(MUTATIONS[name].whole for name, _ in walk.mutations) and len(after) == len(before):
        assert np.allclose(before, after, rtol=2e-3, atol=2e-3), f"not lossless: {walk}"


def run_walk(walk: Walk, home: Path, cache: Path, shared: Path | None, *, separate: bool = False) -> Verdict:
    """Makes the dataset in an empty `home`, puts it through the commands, and judges. Removes `home`."""
    try:
        raw = make_base(walk, home / "raw" / DATASET, cache, shared)
        commands = Commands(home, separate)
        if walk.test_only:
            test = make_base(walk, home / "test" / DATASET, cache, shared)
            mutate(walk, test)
        else:
            mutate(walk, raw)
        try:
            trained = _trained(walk, raw, commands)
            if trained or not walk.test_only:
                return trained or _predicted(walk, raw, commands)
            return _predicted_test(walk, raw, test, commands)
        except (Hang, subprocess.TimeoutExpired):
            return Verdict(HANG, "", "past its time limit")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _trained(walk: Walk, raw: Raw, commands: Commands) -> Verdict | None:
    """Plans and trains. A verdict where it ends there."""
    preprocessed = commands.home / "preprocessed" / DATASET
    commands.run("plan_and_preprocess", "-d", DATASET, "-pl", "cpu", "-np", 1, "--set", *TINY)
    if verdict := _stopped(commands, "plan", [preprocessed / "cpu_2d" / "plan.json"]):
        return verdict
    wrong = [
        *check_fingerprint(raw, preprocessed),
        *check_slices(raw, preprocessed / "cpu_2d"),
        *check_folds(raw, preprocessed),
        *_unsaid(raw.say, commands),
    ]
    if walk.expect == REFUSE and not walk.test_only:
        wrong.append("accepted")
    if wrong:
        return Verdict(WRONG, "plan", "; ".join(wrong[:4]))
    commands.run("train", "2d", "fold0", "-d", DATASET, "-pl", "cpu", "--epochs", 1, "--device", "cpu")
    return _stopped(commands, "train")


def _stopped(commands: Commands, name: str, absent: Sequence[Path] = ()) -> Verdict | None:
    """The verdict where a command did not end well."""
    if broken := commands.broken():
        return Verdict(CRASH, name, broken)
    if commands.code == 0:
        return None
    if left := [str(path) for path in absent if path.exists()]:
        return Verdict(WRONG, name, f"refused, but {left} is there")
    return Verdict(REFUSED, name, " | ".join(commands.error_lines[:3]))


def _unsaid(words: Sequence[str], commands: Commands) -> list[str]:
    said = commands.output + commands.errors
    return [f"accepted without a word of {word!r}" for word in words if word not in said]


CHOICE = ("-d", DATASET, "-m", "UTNet", "-f", "fold0", "--device", "cpu", "--no-tta")


def _predict(walk: Walk, raw: Raw, commands: Commands, masks: Path) -> Verdict | dict[str, int]:
    """Predicts a dataset into `masks`; the labels of the masks, or a verdict where it ends there."""
    source = raw.folder if walk.whole_folder or raw.layout != "nnunet" else raw.folder / "imagesTr"
    commands.run("predict", "-i", source, "-o", masks, *CHOICE)
    if verdict := _stopped(commands, "predict"):
        return verdict
    labels: dict[str, int] = json.loads((masks / "prediction.json").read_text())["labels"]
    wrong = [*check_masks(raw, sorted(set(raw.cases) - raw.hidden), masks, labels)]
    return Verdict(WRONG, "predict", "; ".join(wrong[:4])) if wrong else labels


def _predicted(walk: Walk, raw: Raw, commands: Commands) -> Verdict:
    masks = commands.home / "masks"
    labels = _predict(walk, raw, commands, masks)
    if isinstance(labels, Verdict):
        return labels
    verdict = _evaluated(walk, raw, commands, masks, labels)
    if verdict.what not in (ACCEPTED, REFUSED):
        return verdict
    copied = _turned_copy(walk, raw, commands)
    if copied.what != ACCEPTED:
        return copied
    return Verdict(
        verdict.what, verdict.command, f"{verdict.message} [turned copy: {copied.message}]".strip()
    )


def _predicted_test(walk: Walk, raw: Raw, test: Raw, commands: Commands) -> Verdict:
    """Predicts the untouched dataset and the mutated one: as many voxels of each label, or *orientation* named."""
    found = _predict(walk, raw, commands, commands.home / "untouched")
    masks = commands.home / "masks"
    labels = found if isinstance(found, Verdict) else _predict(walk, test, commands, masks)
    if isinstance(labels, Verdict):
        return labels
    flagged = (masks / "quality.csv").read_text().count("orientation")
    changed = "" if _changes_images(walk) or flagged else _other_counts(commands.home, sorted(test.cases))
    if changed:
        return Verdict(WRONG, "predict the mutated", changed)
    return _evaluated(walk, test, commands, masks, labels)


def _changes_images(walk: Walk) -> bool:
    """Whether a mutation changes what is to be seen, or how large it is."""
    return any(
        not MUTATIONS[name].whole or "spacing" in name or "pixdim" in name for name, _ in walk.mutations
    )


def _other_counts(home: Path, names: Sequence[str]) -> str:
    for name in names:
        paths = [home / folder / f"{name}.nii.gz" for folder in ("untouched", "masks")]
        if all(path.exists() for path in paths):
            # Of a file with frames, the first: each is predicted, and the scores then refuse the mask.
            mine, other = (np.bincount(read(path, 0)[0].ravel(), minlength=8) for path in paths)
            if (np.abs(mine - other) > 0.1 * mine + 40).any():
                return f"{name}: voxels of each label {other.tolist()}, of the untouched scan {mine.tolist()}"
    return ""


def _turned_copy(walk: Walk, raw: Raw, commands: Commands) -> Verdict:
    """Predicts a scan and its turned copy: one anatomy, or *orientation* named."""
    case = raw.cases[sorted(raw.cases)[0]]
    if not case.images[0].name.endswith((".nii", ".nii.gz")):
        return Verdict(ACCEPTED, "", "not NIfTI")
    folder, masks = commands.home / "copies", commands.home / "copied"
    for number, image in enumerate(case.images):
        scan = take_apart(image)
        if scan.voxels.ndim == 4:
            scan = Scan(scan.header, scan.voxels[..., case.frame or 0])
        put_together(folder / f"original_{number:04d}.nii.gz", scan)
        put_together(folder / f"turned_{number:04d}.nii.gz", turned(scan, *walk.copy))
    commands.run("predict", "-i", folder, "-o", masks, *CHOICE)
    if verdict := _stopped(commands, "predict a turned copy"):
        return verdict if verdict.what != REFUSED else Verdict(ACCEPTED, "", "refused")
    original, copy = (
        np.asanyarray(nib.load(masks / f"{name}.nii.gz").dataobj) for name in ("original", "turned")
    )
    dice = least_dice(turned_array(original, *walk.copy), copy)
    rows = (masks / "quality.csv").read_text().splitlines()
    if dice >= 0.99:
        return Verdict(ACCEPTED, "", "the same")
    if any(row.startswith("turned,") and "orientation" in row for row in rows):
        return Verdict(ACCEPTED, "", f"flagged, Dice {dice:.3f}")
    return Verdict(
        WRONG, "predict a turned copy", f"turned by {walk.copy}: Dice {dice:.3f}, orientation not named"
    )


def _evaluated(walk: Walk, raw: Raw, commands: Commands, masks: Path, labels: dict[str, int]) -> Verdict:
    expected = own_scores(raw, sorted(set(raw.cases) - raw.hidden), masks, labels)
    expect, change = SCORINGS[walk.scoring[0]]
    scored = Scored(raw, masks, raw.folder, labels, [], [])
    if not walk.whole_folder and raw.layout == "nnunet":
        scored.references = raw.folder / "labelsTr"
    change(scored, walk.scoring[1])
    scores = commands.home / "scores"
    commands.run(
        "evaluate", "-p", scored.masks, "-g", scored.references, "-o", scores, "-np", 1, *scored.words
    )
    name = f"evaluate, {walk.scoring[0]}"
    if verdict := _stopped(commands, name, [scores / "metrics.csv"]):
        return verdict
    wrong = [*check_scores(expected, scores), *_unsaid(scored.say, commands)]
    if len(expected) < (len(raw.cases) - len(raw.hidden)) * (len(raw.labels) - 1):
        wrong.append("references of another size or with other names than their masks were accepted")
    unread = scored.described and any("dataset.json" in name for name, _ in walk.mutations)
    if expect == REFUSE or (walk.expect == REFUSE and not unread):
        wrong.append("accepted")
    return Verdict(WRONG, name, "; ".join(wrong[:4])) if wrong else Verdict(ACCEPTED, name)
