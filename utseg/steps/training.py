"""`train`: a network on a fold, on all folds one after the other, on everything, or on a selection of cases."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from utseg.home import FilePath, Home, check_configuration, choose_plan_folder, selection_folder_name
from utseg.preprocess.splits import read_splits
from utseg.trainer import find_trainer
from utseg.training.record import RUN_FILE, is_finished
from utseg.training.request import TrainRequest

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
    max_time_s, seed, device, resume. Raises UsageError for names that do not exist, InputError or ArtefactError where the run cannot be.
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
    if selection != ALL_FOLDS:
        trainer(request)
        return [request.output]
    folders = []
    for index in range(len(read_splits(preprocessed))):
        fold = f"fold{index}"
        output = request.output.with_name(fold)
        folders.append(output)
        if is_finished(output) and not (request.overwrite or request.validate or request.save_probabilities):
            logger.info("%s: has finished, left as it is", output)
            continue
        resume = (output / RUN_FILE).is_file() and not request.overwrite
        trainer(replace(request, selection=fold, output=output, resume=resume))
    return folders
