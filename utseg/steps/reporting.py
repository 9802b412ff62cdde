"""`report`: scores, runs or a study as one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utseg.case import Dataset
from utseg.errors import UsageError, explained_by
from utseg.home import FilePath, Home
from utseg.rawdata import require_outside_datasets
from utseg.report import write_report, write_study_report
from utseg.report.page import Report
from utseg.steps.datasets import named_dataset
from utseg.study.record import STUDY_FILE


def report(
    paths: Sequence[FilePath],
    output: FilePath,
    *,
    dataset: Dataset | str | None = None,
    home: FilePath | None = None,
    pictures: bool = True,
    command: str | None = None,
    workers: int | None = None,
) -> Report:
    """Writes one page about scores folders, runs, folders above some, or one study's folder, into `output` (`….html`).

    dataset: the raw dataset that has the images, where the scores do not say so; opened, or its name below `home`.
    pictures: False for no images of patients.
    command: shown in the report as what wrote it. Raises UsageError where a study is named with anything else, and what `write_report`
    and `write_study_report` raise.
    """
    if isinstance(paths, str | Path):
        raise UsageError(f"paths: expected a list, as ['scores'], found {paths!r}")
    require_outside_datasets(Path(output))
    named = [Path(path) for path in paths]
    studies = _studies_among(named, with_others=dataset is not None)
    dataset = named_dataset(dataset, home)
    settings: dict[str, Any] = {"home": Home.locate(home), "pictures": pictures, "workers": workers}
    settings |= {} if command is None else {"command": command}
    with explained_by(dataset.warnings if dataset else ()):
        if studies:
            return write_study_report(named[0], Path(output), **settings)
        return write_report(named, Path(output), dataset=dataset, **settings)


def _studies_among(paths: Sequence[Path], *, with_others: bool) -> list[Path]:
    """The study's folder, none where there is none. Raises UsageError where it is not named alone (`with_others`: -d is given too)."""
    studies = [path for path in paths if (path / STUDY_FILE).is_file()]
    if studies and (len(paths) > 1 or with_others):
        raise UsageError(
            f"{studies[0]}: a study has a report of its own: name its folder alone, without other paths and without -d"
        )
    return studies
