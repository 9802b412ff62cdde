"""Which datasets are there: folders that a refused run left behind do not count."""

import pytest

from utseg.errors import InputError, UsageError
from utseg.home import Home, choose_plan_folder


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


@pytest.mark.parametrize(
    ("planner", "configuration", "chosen"),
    [
        (None, "2d", "auto_2d"),
        (None, "2.5d", "cpu_2.5d"),
        ("cpu", "2.5d", "cpu_2.5d"),
        ("cpu_2.5d", "2.5d", "cpu_2.5d"),
        ("auto_2d", "2d", "auto_2d"),
    ],
)
def test_plans_are_found_by_either_name(tmp_path, planner, configuration, chosen):
    for name in ("auto_2d", "mine_2d", "cpu_2.5d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").touch()
    assert choose_plan_folder(tmp_path, planner, configuration).name == chosen


def test_a_plan_of_the_other_configuration_is_named(tmp_path):
    (tmp_path / "cpu_2.5d").mkdir()
    (tmp_path / "cpu_2.5d" / "plan.json").touch()
    with pytest.raises(UsageError, match=r"cpu_2\.5d: that is a 2\.5d plan: utseg_train 2\.5d -pl cpu$"):
        choose_plan_folder(tmp_path, "cpu_2.5d", "2d")
    with pytest.raises(InputError, match=r"no 2d plan is there \(plans there: cpu_2\.5d\)"):
        choose_plan_folder(tmp_path, None, "2d")
    with pytest.raises(
        InputError, match=r"auto_2\.5d: no plan .*\(plans there: cpu_2\.5d\); .* -pl auto -c 2\.5d"
    ):
        choose_plan_folder(tmp_path, "auto_2.5d", "2.5d")


@pytest.mark.parametrize("name", ["27", "027", "ACDC", "Dataset027_ACDC", "0" * 5000 + "27"])
def test_a_dataset_is_found_by_nnunets_number_and_name(tmp_path, name):
    for folder in ("Dataset027_ACDC", "Dataset127_MnM", "Task09_Spleen"):
        (tmp_path / folder).mkdir()
    home = Home(tmp_path, tmp_path, tmp_path)
    assert home.raw_dataset(name) == ("Dataset027_ACDC", tmp_path / "Dataset027_ACDC")
    assert home.raw_dataset("9")[0] == "Task09_Spleen"
    with pytest.raises(InputError, match="no raw dataset called '7'"):
        home.raw_dataset("7")


def test_a_name_that_means_several_datasets_lists_them(tmp_path):
    for folder in ("Dataset027_ACDC", "Dataset028_ACDC", "Dataset027_Other"):
        (tmp_path / folder).mkdir()
    home = Home(tmp_path, tmp_path, tmp_path)
    with pytest.raises(UsageError, match="Dataset027_ACDC, Dataset027_Other; write the whole name"):
        home.raw_dataset("27")
    with pytest.raises(UsageError, match="Dataset027_ACDC, Dataset028_ACDC"):
        home.raw_dataset("ACDC")
    (tmp_path / "ACDC").mkdir()
    assert home.raw_dataset("ACDC")[0] == "ACDC"
