"""Intensities of labelled voxels over many cases, against numpy on all of the voxels together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.fingerprint.foreground import (
    group_sizes,
    labelled_intensities,
    pooled_mean_sd,
    pooled_percentiles,
)

LEVELS = (0.5, 50.0, 99.5)


def pooled(cases: list[np.ndarray]) -> tuple[list[float], tuple[float, float]]:
    kept = [labelled_intensities(np.sort(values.astype(np.float32))) for values in cases]
    assert all(len(each.means) <= 256 for each in kept)
    again = [type(each).model_validate_json(each.model_dump_json()) for each in reversed(kept)]
    assert pooled_mean_sd(again) == pytest.approx(pooled_mean_sd(kept), rel=1e-5)
    assert pooled_percentiles(again, LEVELS) == pooled_percentiles(kept, LEVELS)
    return pooled_percentiles(kept, LEVELS), pooled_mean_sd(kept)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_few_voxels_give_what_numpy_gives(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [rng.normal(rng.uniform(-900, 300), 50, size).round() for size in sizes]
    together = np.concatenate(cases)
    percentiles, (mean, sd) = pooled(cases)
    if all(len(group_sizes(size)) == size for size in sizes):
        assert percentiles == pytest.approx(np.percentile(together, LEVELS), rel=1e-5, abs=1e-3)
    assert mean == pytest.approx(together.mean(), rel=1e-4, abs=1e-3)
    assert sd == pytest.approx(together.std(), rel=1e-4, abs=1e-3)


def test_percentiles_of_many_voxels_are_off_by_a_fiftieth_of_their_share_at_most() -> None:
    rng = np.random.default_rng(0)
    cases = [
        rng.normal(mean, sd, size).round()
        for mean, sd, size in ((40, 90, 300_000), (-700, 30, 4_000), (100, 300, 90_000))
    ]
    together = np.sort(np.concatenate(cases))
    for level, value in zip(LEVELS, pooled(cases)[0], strict=True):
        share = min(level, 100 - level) / 100
        below, upto = (np.searchsorted(together, value, side) / together.size for side in ("left", "right"))
        assert below - share / 50 <= level / 100 <= upto + share / 50
