"""Which trained models predict: those at a path, those that are named, what `best.json` says, or the only ones there.

Nothing is loaded here; an archive is unpacked into a temporary folder for as long as its models are needed.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utseg.archive import unpacked
from utseg.errors import InputError, UsageError, UtsegError, listing
from utseg.files import require_no_broken_link, sha256
from utseg.home import Home, selection_folder_name
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.labels import changed_labels
from utseg.postprocess import Postprocessing
from utseg.predict.model import choose_folds, choose_runs
from utseg.rawdata.description import DESCRIPTION_FILE, read_description
from utseg.selection.record import (
    BEST_FILE,
    Best,
    best_augmentation,
    best_runs,
    read_best,
    treatment_in_words,
)
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, Checkpoint, read_run

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class ModelChoice:
    """What is said of the models that predict. `paths`: run folders, folders with folds, archives; else they are a dataset's results.

    `planner`, `models`: as of `choose_runs`; `folds` too, also of what is at a path.
    """

    paths: tuple[Path, ...] = ()
    home: Path | None = None
    dataset: str | None = None
    planner: str | None = None
    models: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    checkpoint: Checkpoint = "final"


@dataclass(frozen=True)
class ChosenModels:
    """The folders of the runs that predict, what is done to their masks, and the views that they are shown.

    `best`: the content of the best.json that says so, if one does.
    """

    runs: tuple[Path, ...]
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING
    best: Best | None = None


@contextmanager
def chosen_models(choice: ModelChoice) -> Iterator[ChosenModels]:
    """The models of the choice; what was unpacked for them goes in the end.

    Raises UsageError where the choice contradicts itself or is not clear, InputError or ArtefactError where something is not there or
    not sound.
    """
    if not choice.paths:
        chosen, described = _of_dataset(choice)
        _say_changed_labels(chosen.runs, described)
        yield chosen
        return
    given = {"-d": choice.dataset, "-m": choice.models, "-pl": choice.planner}
    if flags := [flag for flag, value in given.items() if value]:
        raise UsageError(
            f"{', '.join(map(str, choice.paths))}: the models there are the choice; leave out {', '.join(flags)}"
        )
    with ExitStack() as stack:
        found = [_at(path, choice, stack) for path in choice.paths]
        if len(found) > 1:
            for path in (path for path, one in zip(choice.paths, found, strict=True) if one.best):
                logger.info("%s: its %s is not followed: other models predict too", path, BEST_FILE)
            found = [ChosenModels(_each_once(run for one in found for run in one.runs))]
        yield found[0]


def _each_once(runs: Iterable[Path]) -> tuple[Path, ...]:
    """Of runs with the same weights, as one that is named in two ways, or is in an archive too, the first: each counts once."""
    found: dict[str, Path] = {}
    for run in runs:
        weights = run / WEIGHTS_FILE
        found.setdefault(sha256(weights) if weights.is_file() else str(run.resolve()), run)
    return tuple(found.values())


def _at(path: Path, choice: ModelChoice, stack: ExitStack) -> ChosenModels:
    """What is at a path: a run's folder, a folder with folds, or an archive, whose best.json is followed."""
    require_no_broken_link(path)
    if (path / RUN_FILE).is_file():
        if choice.folds:
            raise UsageError(f"{path}: is one run; leave out -f, or name the folder that its folds are in")
        return ChosenModels((path,))
    if path.is_dir():
        if any(path.glob(f"*/{RUN_FILE}")):
            return ChosenModels(tuple(choose_folds(path.resolve(), choice.folds)))
        raise InputError(
            f"{path}: no trained model is there; expected a run's folder (with {RUN_FILE}), a folder with its folds, or an archive of "
            "utseg_export_model"
        )
    if choice.checkpoint != "final":
        raise UsageError(
            f"{path}: an archive has final weights only; leave out --checkpoint {choice.checkpoint}"
        )
    dataset, runs = stack.enter_context(unpacked(path))
    if (dataset / BEST_FILE).is_file():
        if not choice.folds:
            return _as_best_says(dataset, f"{path}: {BEST_FILE}")
        logger.info("%s: its %s is not followed: models are chosen by -f", path, BEST_FILE)
    wanted = [selection_folder_name(fold) for fold in choice.folds] or [run.name for run in runs]
    there = list(dict.fromkeys(run.name for run in runs))
    if missing := [name for name in wanted if name not in there]:
        raise InputError(
            f"{path}: no model in it is trained on {listing(missing)}; there are: {', '.join(there)}"
        )
    return ChosenModels(tuple(run for run in runs if run.name in wanted))


def _as_best_says(dataset: Path, shown: str) -> ChosenModels:
    """What the best.json in the folder says. `shown`: what messages call it."""
    best = read_best(dataset)
    logger.info("as %s says: %s; %s", shown, best.chosen, treatment_in_words(best))
    return ChosenModels(tuple(best_runs(best, dataset)), best.postprocessing, best_augmentation(best), best)


def _of_dataset(choice: ModelChoice) -> tuple[ChosenModels, Path]:
    """As named, else as best.json says, else the only ones there; and the dataset.json of the raw dataset of that name."""
    home = Home.locate(choice.home)
    name, dataset = home.trained_dataset(choice.dataset)
    best_file, described = dataset / BEST_FILE, home.raw / name / DESCRIPTION_FILE
    given = {"-m": choice.models, "-f": choice.folds, "-pl": choice.planner}
    named = [flag for flag, value in given.items() if value]
    if best_file.is_file():
        if not named:
            chosen = _as_best_says(dataset, str(best_file))
            if choice.checkpoint != "final":
                logger.warning(
                    "%s: chosen by the final weights, not by the %s ones", best_file, choice.checkpoint
                )
            return chosen, described
        logger.info("%s is not followed: models are chosen by %s", best_file, ", ".join(named))
    runs = choose_runs(dataset, planner=choice.planner, models=choice.models, folds=choice.folds)
    return ChosenModels(tuple(runs)), described


def _say_changed_labels(runs: Sequence[Path], described: Path) -> None:
    """Warns where the labels of the dataset are others than when a run was trained. In native layouts they cannot change."""
    if not described.is_file():
        return
    try:
        now = read_description(described).labels
    except UtsegError:
        return  # planning says what is wrong with it; models need it not
    for run in runs:
        record = read_run(run)
        if problem := changed_labels(record.plan.preprocessing.labels, now):
            logger.warning(
                "%s: %s when %s/%s was trained, and masks have those; to have today's: utseg_plan_and_preprocess, then utseg_train "
                "--overwrite",
                described,
                problem,
                record.model,
                run.name,
            )
            return  # others that differ too are matched by name, or refused
