"""Reports that several test files look at."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from made_measures import make_measures
from made_scores import make_cohort
from made_study import make_pictured_study

from utseg.compute.pool import InlineExecutor
from utseg.home import Home
from utseg.measure.record import MeasuresRecord
from utseg.report import write_report, write_study_report
from utseg.report.measures.write import MeasuresPages, write_measures_page
from utseg.report.page import Report


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good/scores` and `poor/scores`: two models on six cases with images, with hostile names. Never write there."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def compared(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of both models of the cohort."""
    folder = tmp_path_factory.mktemp("report")
    scores = [cohort / "good" / "scores", cohort / "poor" / "scores"]
    home = Home.locate(folder / "home")
    return write_report(scores, folder / "report.html", home=home, executor=InlineExecutor())


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a small study with pictures and hostile names."""
    study = make_pictured_study(tmp_path_factory.mktemp("pictured"))
    home = Home.locate(study / "home")
    return write_study_report(study, study / "report.html", home=home, executor=InlineExecutor())


@dataclass(frozen=True)
class Measured:
    """Pages of measures with the record that they show, and the folder of its masks."""

    record: MeasuresRecord
    masks: Path
    pages: MeasuresPages


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The pages of four cines, with hostile names. Never write there."""
    folder = tmp_path_factory.mktemp("measured")
    record, masks = make_measures(folder, 4), folder / "masks"
    pages = write_measures_page(record, masks, folder / "measures.html", executor=InlineExecutor())
    return Measured(record, masks, pages)
