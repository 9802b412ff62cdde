"""A sample of the walk over random datasets; `benchmarks/random_walk.py` goes further. None may be wrong, crash or hang."""

import pytest

from walk.bases import MADE
from walk.walk import ACCEPTED, REFUSED, draw_walk, run_walk

SEED = 12
SAMPLE = range(0, 90, 10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("walk")


@pytest.mark.slow
@pytest.mark.parametrize("number", SAMPLE)
def test_a_random_dataset_is_right_or_refused_in_a_line(number, cache, tmp_path):
    walk = draw_walk(number, SEED, list(MADE))
    verdict = run_walk(walk, tmp_path / "home", cache, None)
    assert verdict.what in (ACCEPTED, REFUSED), (walk, verdict)
    assert verdict.what == REFUSED or walk.expect != "refuse", walk
