"""raw_data_template/ is a dataset in each layout, and its images are what its maker makes."""

from pathlib import Path

import pytest

from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case

from .make_template import TEMPLATE, make_template


@pytest.mark.parametrize(
    "layout, cases, training", [("mnms_layout", 6, 4), ("acdc_layout", 6, 4), ("nnunet_layout", 5, 4)]
)
def test_the_template_opens_and_every_case_passes_the_gate(layout: str, cases: int, training: int) -> None:
    dataset = open_dataset(TEMPLATE / layout)
    assert (len(dataset.cases), len(dataset.training_cases()), dataset.warnings) == (cases, training, ())
    assert {"pathology", "phase"} <= set(dataset.group_columns)
    for case in dataset.cases:
        loaded = read_case(case, dataset.labels)
        assert loaded.warnings == () and (loaded.label_ZYX is None or loaded.label_ZYX.max() == 3)


def test_the_template_is_small_and_what_its_maker_makes(tmp_path: Path) -> None:
    make_template(tmp_path)
    made = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(TEMPLATE): path for path in TEMPLATE.rglob("*") if path.is_file()}
    assert set(kept) - set(made) == {Path("README.md")} and set(made) < set(kept)
    assert sum(path.stat().st_size for path in kept.values()) < 50_000
    tables = [name for name in made if name.suffix != ".gz"]
    assert all(made[name].read_text() == kept[name].read_text() for name in tables)
