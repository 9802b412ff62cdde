"""`train`: a network on a fold, on all folds one after the other, on everything, or on a selection of cases."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from utseg.archive import unpacked
from utseg.errors import UsageError, listing
from utseg.home import FilePath, Home, check_configuration, choose_plan_folder, selection_folder_name
from utseg.preprocess.splits import read_splits
from utseg.trainer import Trainer, differences_of_finished, find_trainer
from utseg.training.record import RUN_FILE, is_finished
from utseg.training.request import TrainRequest, check_request

logger = logging.getLogger("utseg")
ALL_FOLDS = "all-folds"


def train(
    configuration: str,
    selection: str,
    *,
    dataset: str | None = None,
    home: FilePath | None = None,
    model: str = "UTNet",
    planner: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Path]:
    """Trains a network on preprocessed slices; returns the runs' folders, `results/NAME/PLAN_2d/MODEL/FOLD`.

    configuration: 2d or 2.5d. selection: fold0 … fold4, all, vendor=A,B, …, or all-folds, which keeps the folds that have finished and
    goes on with others. dataset: preprocessed, below `home`; left out: the only one there. planner: of the plan; left out: as
    `choose_plan_folder`. settings: values of plan and recipe by dotted key. options: the other fields of `TrainRequest`, as epochs,
    max_time_s, seed, device, resume. Raises UsageError for names that do not exist and options that do not go together, InputError
    or ArtefactError where the run cannot be.
    """
    check_configuration(configuration, " (as in utseg_train 2d fold0)")
    trainer = find_trainer(model)
    places = Home.locate(home)
    name, preprocessed = places.preprocessed_dataset(dataset)
    plan_folder = choose_plan_folder(preprocessed, planner, configuration)
    request = TrainRequest(
        model=model,
        selection=selection,
        raw=places.raw / name,
        preprocessed=preprocessed,
        plan_folder=plan_folder,
        output=places.results / name / plan_folder.name / model / selection_folder_name(selection),
        settings=dict(settings or {}),
        **options,
    )
    check_request(request)
    if selection != ALL_FOLDS:
        _train(trainer, request)
        return [request.output]
    folders = []
    for index in range(len(read_splits(preprocessed))):
        fold = f"fold{index}"
        output = request.output.with_name(fold)
        folders.append(output)
        if is_finished(output) and not (request.overwrite or request.validate or request.save_probabilities):
            logger.info("%s: has finished, left as it is", output)
            if unlike := differences_of_finished(replace(request, selection=fold, output=output)):
                text = "%s: was trained otherwise than is asked for now: %s; train all folds again with --overwrite, or they are not alike"
                logger.warning(text, output, listing(unlike))
            continue
        resume = (output / RUN_FILE).is_file() and not request.overwrite
        _train(trainer, replace(request, selection=fold, output=output, resume=resume))
    return folders


def _train(trainer: Trainer, request: TrainRequest) -> None:
    with _weights_of(request) as weights:
        trainer(replace(request, weights=weights))


@contextmanager
def _weights_of(request: TrainRequest) -> Iterator[Path | None]:
    """The file or run to start from. Of an archive, unpacked for as long, or a folder with folds: the run of this network and selection.

    Where that is not there, the only run of this network, else the only one. Raises UsageError where none of these is clear.
    """
    path = None if request.weights is None else Path(request.weights)
    with ExitStack() as stack:
        if path is None or not (runs := _runs_at(path, stack)):
            yield path
            return
        alike = [run for run in runs if run.parent.name == request.model] or runs
        name = selection_folder_name(request.selection)
        found = [run for run in alike if run.name == name] or alike
        if len(found) > 1:
            there = listing(["/".join(run.parts[-2:]) for run in runs])
            raise UsageError(
                f"--weights {path}: several runs are there, none of them {request.model}/{name}: {there}; name the folder of one of them "
                "(of an archive, after utseg_import_model)"
            )
        logger.info("--weights %s: those of %s", path, "/".join(found[0].parts[-2:]))
        yield found[0]


def _runs_at(path: Path, stack: ExitStack) -> list[Path]:
    """The runs in an archive or in a folder with folds; none for any other path."""
    if path.is_dir():
        there = [] if (path / RUN_FILE).is_file() else sorted(path.resolve().glob(f"*/{RUN_FILE}"))
        return [file.parent for file in there]
    return stack.enter_context(unpacked(path))[1] if path.suffix == ".zip" else []
