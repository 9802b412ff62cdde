"""Which datasets are there: folders that a refused run left behind do not count."""

import pytest

from utseg.errors import InputError
from utseg.home import Home


@pytest.mark.parametrize(
    ("kind", "file"),
    [("preprocessed", "auto_2d/plan.json"), ("results", "auto_2d/UTNet/fold0/run.json")],
)
def test_only_folders_with_something_in_them_are_datasets(tmp_path, kind, file):
    home = Home(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    choose = home.preprocessed_dataset if kind == "preprocessed" else home.trained_dataset
    (tmp_path / kind / "Refused" / "auto_2d").mkdir(parents=True)
    (tmp_path / kind / "Refused" / ".lock").touch()
    with pytest.raises(InputError, match="is there; run utseg_"):
        choose(None)
    made = tmp_path / kind / "Heart" / file
    made.parent.mkdir(parents=True)
    made.touch()
    assert choose(None) == choose("Heart") == ("Heart", tmp_path / kind / "Heart")
    with pytest.raises(InputError, match=r"no .* called 'Refused' \(found there: Heart\)"):
        choose("Refused")


def test_any_folder_may_be_raw(tmp_path):
    (tmp_path / "raw" / "Heart").mkdir(parents=True)
    assert Home(tmp_path / "raw", tmp_path, tmp_path).raw_dataset(None)[0] == "Heart"
