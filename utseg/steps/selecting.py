"""`find_best_configuration`: which of a dataset's trained models predict best."""

from collections.abc import Sequence

from utseg.errors import UsageError
from utseg.home import FilePath, Home
from utseg.selection import Best, SelectionRequest
from utseg.selection import find_best_configuration as find_best
from utseg.selection.models import DEFAULT_TTA_SUBJECTS


def find_best_configuration(
    dataset: str | None = None,
    *,
    home: FilePath | None = None,
    planners: Sequence[str] = (),
    models: Sequence[str] = (),
    pairs: bool = True,
    tta_subjects: int = DEFAULT_TTA_SUBJECTS,
    device: str = "auto",
    workers: int | None = None,
) -> Best:
    """Compares trained models and their pairs on the subjects that their folds held back; writes `best.json`, which is returned.

    dataset: with results, below `home`; left out: the only one there. The rest as of `SelectionRequest`; errors as of the selection.
    """
    if tta_subjects < 0:
        raise UsageError(f"tta_subjects: expected 0 or more, found {tta_subjects}")
    for key, value in (("planners", planners), ("models", models)):
        if isinstance(value, str):
            raise UsageError(f"{key}: expected a list of names, as ['UTNet'], found {value!r}")
    places = Home.locate(home)
    name, results = places.trained_dataset(dataset)
    return find_best(
        SelectionRequest(
            dataset=name,
            raw=places.raw / name,
            preprocessed=places.preprocessed / name,
            results=results,
            planners=tuple(planners),
            models=tuple(models),
            pairs=pairs,
            tta_subjects=tta_subjects,
            device=device,
            workers=workers,
            options=() if home is None else ("--home", str(home)),
        )
    )
