"""Run the commands of one tree on small data and write what came out: `record.json`. Started by `unmoved.py`.

A part is a group of entries that a change may move on purpose. Nothing of the tree is imported but the console scripts of its
`pyproject.toml`, so that code may move between two records.
"""

import contextlib
import importlib
import json
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from unmoved_digest import Digest, digest_file
from unmoved_trainings import KINDS, NETWORKS, SMALL, TRAINED, VARIANTS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rawfiles import make_nnunet

PHANTOM, HEARTS = "Phantom", "Hearts"
PLANNERS = ("auto", "cpu", "published")
INTERRUPTED = 75
QUIET = "--device cpu --quiet"
LONGER = (
    "patch_size=32,32 batch_size=8 iterations_per_epoch=20 amp=off optimizer.name=adamw optimizer.learning_rate=0.005 "
    'augmentation.mirror_axes=["x"]'
)
FOLDS = ("fold0", "fold1", "fold2", "fold3")  # eight subjects: with fewer no view is tried
STUDY = """name = "small"
question = "What is lost on the other vendor?"
networks = ["UNet"]
epochs = 2

[settings]
patch_size = [32, 32]
batch_size = 2
iterations_per_epoch = 2
"network.base_channels" = 4
amp = "off"

[train]
each = "vendor"

[test]
by = "vendor"
"""


class Walk:
    """Runs commands of the tree in this process, and keeps digests of what they write."""

    def __init__(self, tree: Path, work: Path) -> None:
        self.work, self.home, self.part = work, work / "home", ""
        self.scripts = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["scripts"]
        self.entries: dict[str, Any] = {}
        self.texts: dict[str, str] = {}
        self.log = (work / "log.txt").open("w")

    def run(self, line: str, *words: object, keep: str = "") -> None:
        """Runs a command with `--home` to its end. `words`: what is not to be split at blanks. `keep`: an entry for what it prints."""
        command, *first = line.split()
        module, _, function = self.scripts[command].partition(":")
        place = () if command == "utseg_make_phantom" else ("--home", self.home)
        argv = list(map(str, (*first, *words, *place)))
        output, errors = self.work / "stdout.txt", self.work / "stderr.txt"
        with (
            output.open("w") as out,
            errors.open("w") as wrong,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(wrong),
        ):
            try:
                code = getattr(importlib.import_module(module), function)(argv)
            except SystemExit as stop:  # argparse, on wrong usage
                code = stop.code
        said = errors.read_text()
        self.log.write(f"$ {command} {' '.join(argv)}\n{output.read_text()}{said}exit code {code}\n")
        self.log.flush()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            problems = "\n".join(text for text in said.splitlines() if "error" in text)
            self.keep(
                f"{self.part}/failed: {' '.join(map(str, (line, *words)))}",
                Digest(f"exit code {code}", problems),
            )
        if keep:
            self.keep(keep, digest_file(output, self.work))

    def keep(self, name: str, digest: Digest) -> None:
        """Keeps a digest, and its text for a difference to be shown."""
        name = name.replace(str(self.work), "WORK")
        self.entries[name] = digest.value
        if digest.text:
            self.texts[name] = digest.text

    def keep_files(self, name: str, folder: Path, *patterns: str) -> None:
        """Keeps every file of a folder that fits a pattern; a pattern without any is an entry too."""
        for pattern in patterns:
            found = sorted(path for path in folder.glob(pattern) if path.is_file())
            paths = [path for path in found if not path.name.startswith(".")]  # locks name a process
            if not paths:
                self.keep(f"{name}/{pattern}", Digest("absent"))
            for path in paths:
                self.keep(f"{name}/{path.relative_to(folder).as_posix()}", digest_file(path, self.work))

    def train(
        self, name: str, model: str, settings: str, words: str = "", *, files: Sequence[str] = ()
    ) -> None:
        """A short training on the phantom: its losses, weights, recipe, and other files of the run by pattern."""
        selection = "all" if not words or words.startswith("-") else words
        more = words.split() if words.startswith("-") else []
        pinned = [f"network.{setting}" for setting in NETWORKS[model].split()]
        pinned = [one for one in pinned if one.partition("=")[0] + "=" not in settings]
        seed = "" if "--seed" in more else "--seed 1"
        line = f"utseg_train 2d {selection} -d {PHANTOM} -pl auto -m {model} --epochs 3 {seed} -np 0 --overwrite {QUIET}"
        self.run(line, *more, "--set", *SMALL, *pinned, *settings.split())
        run = self.run_folder(PHANTOM, model, selection)
        self.keep(f"{name}/losses", losses(run / "training.jsonl"))
        self.keep_files(name, run, "model.safetensors", *files)

    def run_folder(self, dataset: str, model: str, selection: str) -> Path:
        """The folder of a run from the plan of `auto`."""
        return self.home / "results" / dataset / "auto_2d" / model / selection


def losses(path: Path) -> Digest:
    """Every loss, gradient norm, rate and Dice of the epochs, exactly."""
    if not path.is_file():
        return Digest("absent")
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    return Digest([line for epoch in epochs for line in exact(epoch) if "seconds" not in line])


def exact(value: Any, key: str = "") -> list[str]:
    """The leaves of nested dictionaries, each with its dotted key; floats as hexadecimal."""
    if isinstance(value, dict):
        return [line for name, item in value.items() for line in exact(item, f"{key}.{name}".lstrip("."))]
    return [f"{key} {value.hex() if isinstance(value, float) else value}"]


def raw(walk: Walk) -> None:
    size = "--subjects 8 --frames 2 --matrix 56 --slices 6"
    walk.run(f"utseg_make_phantom {size} -np 1", walk.home / "raw" / PHANTOM)
    make_nnunet(walk.home / "raw" / HEARTS, subjects=10, size_zyx=(5, 40, 36))
    walk.keep_files("raw", walk.home / "raw", "**/*")


def planning(walk: Walk) -> None:
    for dataset in (PHANTOM, HEARTS):
        folder, line = walk.home / "preprocessed" / dataset, f"utseg_plan_and_preprocess -d {dataset} -np 1"
        limits = "--memory-gb 0.5 --set network.block_list=2 batch_size=3"
        walk.run(f"{line} --dry-run {limits}", keep=f"plan/{dataset}/as_printed")
        for planner in PLANNERS:
            walk.run(f"{line} -pl {planner} --quiet")
            made = folder / f"{planner}_2d"
            walk.keep_files(f"plan/{dataset}/{planner}", made, "plan.json")
            walk.keep_files(f"slices/{dataset}/{planner}", made / "slices", "**/*")
        walk.keep_files(f"fingerprint/{dataset}", folder, "fingerprint.json", "splits.json")


def networks(walk: Walk) -> None:
    for name in NETWORKS:
        walk.train(f"networks/{name}", name, "")
        run = walk.run_folder(PHANTOM, name, "all") / "run.json"
        record = json.loads(run.read_text()) if run.is_file() else {}
        recipe = json.dumps(record.get("recipe"), indent=1)
        walk.keep(f"recipes/{name}", Digest(recipe, recipe))


def variants(walk: Walk) -> None:
    start, copy = walk.run_folder(PHANTOM, "UNet", "all"), walk.work / "start"
    if start.is_dir():
        shutil.copytree(start, copy)
    for name, (model, settings, words) in VARIANTS.items():
        walk.train(f"variants/{name}", model, settings, words.format(run=copy))


def augmentation(walk: Walk) -> None:
    off = " ".join(f"augmentation.{kind}_probability=0" for kind in KINDS)
    for kind in KINDS:
        key = f"augmentation.{kind}_probability"
        walk.train(f"augmentation/{kind}", "UNet", off.replace(f"{key}=0", f"{key}=1"))
    walk.train("augmentation/none", "UNet", off)
    walk.train("augmentation/mirror", "UNet", f'{off} augmentation.mirror_axes=["y","x"]')
    walk.train("augmentation/foreground", "UNet", f"{off} augmentation.foreground_fraction=1")


def training(walk: Walk) -> None:
    for model, settings in TRAINED.items():
        for fold in FOLDS:
            line = f"utseg_train 2d {fold} -d {HEARTS} -pl auto -m {model} --epochs 2 --seed 1 -np 0 --save-probabilities"
            walk.run(f"{line} {QUIET} --set {settings} {LONGER}")
        run = walk.run_folder(HEARTS, model, "fold0")
        files = ("run.json", "training.jsonl", "model.safetensors", "progress.png", "validation/*")
        walk.keep_files(f"training/{model}", run, *files)
        walk.keep(f"training/{model}/tensorboard", scalars(run))


def scalars(run: Path) -> Digest:
    """What TensorBoard shows as curves, speeds and times aside."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/") and "hours" not in tag]
    lines = [f"{tag} {one.step} {one.value!r}" for tag in sorted(tags) for one in events.Scalars(tag)]
    return Digest("\n".join(lines), "\n".join(lines))


def prediction(walk: Walk) -> None:
    masks, dataset = walk.work / "masks", walk.home / "raw" / HEARTS
    images = dataset / "imagesTr"
    line = f"utseg_predict -d {HEARTS} -np 1 {QUIET}"
    outputs = "--save-probabilities --save-entropy --overlays"
    walk.run(f"{line} -m UNet {outputs}", "-i", dataset, "-o", masks / "dataset")
    walk.run(f"{line} -m UTNet --save-probabilities", "-i", images, "-o", masks / "folder")
    both = f"{line} -m UTNet UNet -f fold0 --no-tta"
    walk.run(both, "-i", images / "s00_ED_0000.nii.gz", "-o", masks / "file")
    cine = min((walk.home / "raw" / PHANTOM).glob("**/*_sa.nii.gz"), default=images)
    line = f"utseg_predict -d {PHANTOM} -np 1 {QUIET} -m SwinUNet -f all"
    walk.run(line, "-i", cine, "-o", masks / "cine")
    walk.keep_files("prediction", masks, "**/*")
    line = "utseg_ensemble -w 2 1 --save-probabilities -np 1 --quiet"
    walk.run(line, "-i", masks / "dataset", masks / "folder", "-o", walk.work / "joined")
    walk.keep_files("ensemble", walk.work / "joined", "*")


def evaluation(walk: Walk) -> None:
    references = walk.home / "raw" / HEARTS
    other = "--surface area --percentile directed --tolerance-mm 1 --as-official-utnet"
    for shift, (name, words) in enumerate((("good", ""), ("poor", other)), 1):
        masks, scores = walk.work / "shifted" / name, walk.work / "scores" / name
        masks.mkdir(parents=True)
        for number, path in enumerate(sorted((references / "labelsTr").glob("*.nii.gz"))):
            image = nibabel.load(path)
            voxels = np.roll(np.asarray(image.dataobj), (shift * (number % 3), shift), (0, 1))
            voxels[voxels == 1 + number % 9] = 0  # now and then a structure is missing
            nibabel.save(nibabel.Nifti1Image(voxels, image.affine, image.header), masks / path.name)
        line = f"utseg_evaluate -d {HEARTS} -np 1 {words}"
        walk.run(line, "-p", masks, "-g", references, "-o", scores, keep=f"evaluation/{name}/as_printed")
        walk.keep_files(f"evaluation/{name}", scores, "*")


def reports(walk: Walk) -> None:
    scores, pages = walk.work / "scores", walk.work / "reports"
    sources = {
        "one": [scores / "good"],
        "two": [scores / "good", scores / "poor"],
        "runs": [walk.home / "results" / HEARTS],
    }
    for name, paths in sources.items():
        walk.run("utseg_report -np 1 --quiet", *paths, "-o", pages / f"{name}.html")
    walk.keep_files("report", pages, "*.html", "*/*")


def selection(walk: Walk) -> None:
    line = f"utseg_find_best_configuration -d {HEARTS} -np 1 --device cpu"
    walk.run(line, keep="selection/as_printed")
    walk.keep_files("selection", walk.home / "results" / HEARTS, "best.json")


def study(walk: Walk) -> None:
    definition, output = walk.work / "small.toml", walk.work / "study"
    definition.write_text(STUDY)
    walk.run(f"utseg_study -d {PHANTOM} {QUIET}", definition, "-o", output)
    walk.keep_files("study", output, "*", "report_tables/*")


def archive(walk: Walk) -> None:
    path = walk.work / "model.zip"
    walk.run(f"utseg_export_model -d {HEARTS} -m UNet --quiet", "-o", path, "--licence", "CC BY 4.0")
    walk.run("utseg_import_model --as Imported --quiet", path)
    walk.keep_files("archive", walk.work, path.name)
    imported = walk.home / "results" / "Imported"
    walk.keep_files("archive/imported", imported, "**/*.safetensors", "**/*.json")


def table(walk: Walk) -> None:
    walk.run(f"utseg_networks -d {HEARTS} -pl auto", keep="table/as_printed")


STEPS: dict[Callable[[Walk], None], tuple[tuple[str, ...], tuple[str, ...]]] = {
    # step: the parts that it records, and those that it needs
    raw: (("raw",), ()),
    planning: (("fingerprint", "plan", "slices"), ("raw",)),
    networks: (("networks", "recipes"), ("plan",)),
    variants: (("variants",), ("networks",)),
    augmentation: (("augmentation",), ("plan",)),
    training: (("training",), ("plan",)),
    prediction: (("prediction", "ensemble"), ("training", "networks")),
    evaluation: (("evaluation",), ("raw",)),
    reports: (("report",), ("evaluation", "training")),
    selection: (("selection",), ("training",)),
    study: (("study",), ("raw",)),
    archive: (("archive",), ("training",)),
    table: (("table",), ("plan",)),
}
PARTS = tuple(part for parts, _ in STEPS.values() for part in parts)


def with_needs(parts: Sequence[str]) -> set[str]:
    """The parts and all that they need, in turn."""
    found = set(parts)
    for made, needs in reversed(STEPS.values()):
        if found & set(made):
            found |= set(needs)
    return found


def main(tree: Path, work: Path, only: Sequence[str]) -> None:
    """Walks through the steps; the record has the parts that were asked for."""
    wanted = list(only) or list(PARTS)
    needed = with_needs(wanted)
    walk = Walk(tree, work)
    for step, (parts, _) in STEPS.items():
        if not needed & set(parts):
            continue
        started, cpu = time.monotonic(), time.process_time()
        walk.part = parts[0]
        step(walk)
        took = f"{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} s of computing"
        print(f"{work.name}: {', '.join(parts)}: {took}", flush=True)
    entries = {name: value for name, value in walk.entries.items() if name.partition("/")[0] in wanted}
    texts = {name: text for name, text in walk.texts.items() if name in entries}
    record = {"parts": [part for part in PARTS if part in wanted], "entries": entries, "texts": texts}
    (work / "record.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
