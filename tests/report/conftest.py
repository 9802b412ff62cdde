"""Reports that several test files look at."""

from pathlib import Path

import pytest
from made_scores import make_cohort
from made_study import make_pictured_study

from utseg.compute.pool import InlineExecutor
from utseg.home import Home
from utseg.report import write_report, write_study_report
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
