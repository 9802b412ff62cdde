"""Fixtures for reports."""

from pathlib import Path

import pytest
from made_scores import make_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good/scores` and `poor/scores`: two models on six cases with images, with hostile names. Never write there."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))
