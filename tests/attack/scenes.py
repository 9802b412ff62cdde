"""A tiny piece of work for every command that writes: what it is given, its words, and what may differ from one run to the next.

What imports torch is imported where it is needed, so that scenes without it start quickly.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
from commandline import run_here
from hearts import SPACING, beating_heart, heart_beat
from rawfiles import make_affine, make_nifti, make_nnunet

SMALL = (3, 20, 18)
EVENTS = (r"events\.out", r"training\.(csv|jsonl|log)$", r"progress\.png$", r"checkpoint_\w+\.pt$")
"""What training writes of times, or in parts."""
MEASURED = (r"out/report\.html$", r"out/report_tables/", r"out/results\.csv$", r"run\.log$")
"""What a study says of times and memory, and what its runs say, which is appended as it comes."""
STUDY = """
name = "tiny"
plans = ["cpu"]
epochs = 1

[settings]
network = { base_channels = 4, levels = 2, block_list = [1, 2], reduce_size = 2 }
iterations_per_epoch = 1
batch_size = 2
"""
LEAST_FOR_A_POOL = (
    *("predict.pipeline.WITHOUT_POOL", "report.measures.write.WITHOUT_POOL", "evaluate.score.INLINE"),
    *("predict.ensemble.INLINE", "selection.find.INLINE", "dicom.importing.FILES_FOR_A_POOL"),
)
ONE_CORE = ("utseg.study.run.available_cores", lambda: 1)  # a run's share of them stands in its job.json
Words = tuple[object, ...]


@dataclass(frozen=True)
class Scene:
    """`make` fills a folder; `words` are typed after the command's name; files whose names match `loose` are not compared.

    workers: whether the command has `-np`; resume: whether it has `--resume` beside `words`.
    """

    command: str
    make: Callable[[Path], object]
    words: Callable[[Path], Words]
    loose: tuple[str, ...] = ()
    workers: bool = True
    resume: bool = False


def run_scene(scene: Scene, folder: Path, *more: str) -> tuple[int, str]:
    """Exit code and stderr of the command, in this process alone. more: words after the scene's own."""
    if scene.command == "utseg_study":
        import pytest
        from study.made_studies import run_study_here

        with pytest.MonkeyPatch.context() as monkeypatch, patch(*ONE_CORE):
            result = run_study_here(monkeypatch, *scene.words(folder), *more, home=folder)
    else:
        result = run_here(scene.command, *scene.words(folder), *more)
    return result.returncode, result.stderr


def run_with_workers(scene: Scene, folder: Path, *, forked: bool) -> int:
    """Exit code of the command with two worker processes at a time, which says what it says. forked: pools fork this process."""
    more = ("--home", folder) if scene.command == "utseg_study" else ()
    main = import_module(f"utseg.commands.{scene.command.removeprefix('utseg_')}").main
    with ExitStack() as stack:
        stack.enter_context(patch(*ONE_CORE))
        for least in LEAST_FOR_A_POOL:
            stack.enter_context(patch(f"utseg.{least}", 0))
        if forked:  # a fresh process imports for seconds, but has none of this one's handlers
            os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL) and None)
            context = multiprocessing.get_context("fork")
            stack.enter_context(patch("utseg.compute.pool.fresh_process_context", lambda: context))
        return main([*map(str, (*scene.words(folder), *more, "-np", 2))])


def _masks(folder: Path) -> None:
    make_nnunet(folder / "raw" / "Heart", subjects=2, size_zyx=SMALL)
    shutil.copytree(folder / "raw" / "Heart" / "labelsTr", folder / "masks")


def _scored(folder: Path) -> None:
    _masks(folder)
    _do("utseg_evaluate", "-p", folder / "masks", "-g", folder / "raw" / "Heart", "-o", folder / "scores")


def _model(folder: Path) -> None:
    from tiny_models import make_run_folder

    run = make_run_folder(folder / "results" / "Tiny", patch_size=(16, 16))
    (run / "validation").mkdir()
    (run / "validation" / "summary.json").write_text("{}")
    for number in range(2):
        voxels = np.random.default_rng(number).integers(0, 900, (2, 16, 16)).astype(np.int16)
        make_nifti(folder / "in" / f"p{number}.nii.gz", voxels)


def _archive(folder: Path) -> None:
    _model(folder)
    _do("utseg_export_model", "-o", folder / "m.zip", "--home", folder)


def _predict_words(folder: Path) -> Words:
    more = ("--save-probabilities", "--no-tta", "-np", 1, "--device", "cpu")
    return "-i", folder / "in", "-o", folder / "out", "--home", folder, *more


def _two_predictions(folder: Path) -> None:
    _model(folder)
    _do("utseg_predict", *_predict_words(folder))
    shutil.copytree(folder / "out", folder / "out2")


def _cines(folder: Path) -> None:
    for name, ed in (("A_sa", 2), ("B_sa", 4)):
        mask = beating_heart(heart_beat(6, ed, 0.5))
        make_nifti(folder / "masks" / f"{name}.nii.gz", mask, make_affine(SPACING))
        make_nifti(folder / "scans" / f"{name}.nii.gz", mask.astype(np.int16) * 100, make_affine(SPACING))


def _home(folder: Path) -> None:
    from tiny_runs import make_home

    make_home(folder)


def _folds(folder: Path) -> None:
    from selection.made_folds import make_folds

    make_folds(folder, folds=2, subjects=4)


def _examination(folder: Path) -> None:
    from dicom_studies import cine, short_axis

    from utseg.phantom.dicom import write_dicom_study

    write_dicom_study(folder / "cd", cine(3, 3), short_axis(), extras=False)


def _train_words(folder: Path) -> Words:
    run = folder / "results" / "Tiny" / "tiny_2d" / "UTNet" / "fold0"
    resume = ("--resume",) if [*run.glob("checkpoint_*.pt"), *run.glob("model.safetensors")] else ()
    short = ("--epochs", 1, "--set", "iterations_per_epoch=1", "save_minutes=0.00001")
    return "2d", "fold0", "-d", "Tiny", "--device", "cpu", "--home", folder, *short, *resume


def _study_home(folder: Path) -> None:
    make_nnunet(folder / "raw" / "Tiny", subjects=5, size_zyx=(3, 34, 32))
    (folder / "tiny.toml").write_text(STUDY)


def _do(name: str, *words: object) -> None:
    result = run_here(name, *words)
    assert result.returncode == 0, result.stderr


def _phantom_words(*more: object) -> Callable[[Path], Words]:
    size = ("--subjects", 4, "--matrix", 40, "--frames", 2, "--slices", 4)
    return lambda folder: (folder / "out", *size, *more)


SCENES = {
    "plan_and_preprocess": Scene(
        "utseg_plan_and_preprocess",
        lambda folder: make_nnunet(folder / "raw" / "Heart", subjects=2, size_zyx=SMALL),
        lambda folder: ("-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1, "--home", folder),
    ),
    "train": Scene("utseg_train", _home, _train_words, EVENTS),
    "predict": Scene("utseg_predict", _model, _predict_words, resume=True),
    "evaluate": Scene(
        "utseg_evaluate",
        _masks,
        lambda folder: ("-p", folder / "masks", "-g", folder / "raw" / "Heart", "-o", folder / "scores"),
    ),
    "ensemble": Scene(
        "utseg_ensemble",
        _two_predictions,
        lambda folder: ("-i", folder / "out", folder / "out2", "-o", folder / "both"),
    ),
    "find_best_configuration": Scene(
        "utseg_find_best_configuration",
        _folds,
        lambda folder: ("-d", "Tiny", "--home", folder, "--device", "cpu", "-np", 1),
    ),
    "report": Scene(
        "utseg_report", _scored, lambda folder: (folder / "scores", "-o", folder / "page" / "r.html")
    ),
    "study": Scene(
        "utseg_study",
        _study_home,
        lambda folder: (folder / "tiny.toml", "-d", "Tiny", "-o", folder / "out", "--device", "cpu"),
        (*EVENTS, *MEASURED),
    ),
    "export_model": Scene(
        "utseg_export_model",
        _model,
        lambda folder: ("-o", folder / "out" / "m.zip", "--home", folder),
        workers=False,
    ),
    "import_model": Scene(
        "utseg_import_model",
        _archive,
        lambda folder: (folder / "m.zip", "--home", folder / "home", "--force"),
        workers=False,
    ),
    "make_phantom": Scene("utseg_make_phantom", Path.mkdir, _phantom_words()),
    "make_phantom_dicom": Scene("utseg_make_phantom", Path.mkdir, _phantom_words("--dicom")),
    "import_dicom": Scene(
        "utseg_import_dicom",
        _examination,
        lambda folder: (folder / "cd", "-o", folder / "out", "--codes", folder / "codes.csv", "-np", 1),
    ),
    "measure": Scene(
        "utseg_measure",
        _cines,
        lambda folder: (
            *("-i", folder / "masks", "-o", folder / "out", "--images", folder / "scans"),
            *("--labels", "LV=1", "MYO=2", "RV=3"),
        ),
    ),
}
os.environ.setdefault("UTSEG_HOME", os.devnull)
