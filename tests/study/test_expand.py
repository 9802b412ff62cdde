"""From a file to runs: how many, with whom, and what is refused before anything is read."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_studies import LABELS, cohort, cohorts

from utseg.errors import InputError, SettingError, UsageError, UtsegError
from utseg.study.data import RunData
from utseg.study.definition import parse_definition, read_definition, with_values
from utseg.study.expand import dataset_names, expand

DATASET = cohort("AAAAABBBBB", "ABCD")


def expanded(text, dataset=DATASET, **others):
    definition = parse_definition(f'name = "x"\n{text}', "x.toml")
    return expand(definition, {dataset.name: dataset, **others}, dataset.name, "x.toml")


@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 3),
    st.integers(1, 3),
)
@settings(max_examples=15, deadline=None)
def test_runs_are_the_product_of_all_that_varies(networks, plans, seeds, folds, variants, sets):
    text = f"networks = {['UTNet', 'UNet', 'FCN'][:networks]}\nplans = {['auto', 'cpu'][:plans]}\n"
    text += f"seeds = {list(range(seeds))}\n[train]\nfolds = {list(range(folds))}\n"
    text += f"selections = {['all', 'vendor=A', 'vendor=B'][:sets]}\n"
    text += "".join(f'[[variants]]\nname = "v{number}"\n' for number in range(variants))
    runs = expanded(text).runs
    assert len(runs) == networks * plans * seeds * folds * max(variants, 1) * sets
    assert len({run.name for run in runs}) == len(runs)


@given(
    cohorts(least_training=10),
    st.sampled_from(["vendors", "leave-one-out", "data-size", "seeds", "networks"]),
)
@settings(max_examples=20, deadline=None)
def test_nobody_is_on_two_sides_of_any_run_of_any_study(dataset, name):
    definition = read_definition(name)
    try:
        plan = expand(definition, {dataset.name: dataset}, dataset.name, name)
    except InputError:
        assert len({case.groups["vendor"] for case in dataset.training_cases()}) == 1  # nobody to leave out
        return
    tested = {case.subject for case in dataset.cases if case.partition == "testing"}
    for run in plan.runs:
        subjects = run.subjects
        sides = [set(subjects.training), set(subjects.validation), set(subjects.testing[dataset.name])]
        assert sum(map(len, sides)) == len(set().union(*sides))
        assert all(sides) and tested <= sides[2]


def test_the_built_in_ablation_shares_its_equal_runs():
    dataset = cohort("AAAAABBBBB", "ABCD")
    runs = expand(read_definition("ablation"), {"MnM": dataset}, "MnM", "ablation").runs
    distinct = {str(sorted(run.settings.items())) for run in runs}
    assert len(runs) == 25 and len(distinct) == 22  # the published variant is in four parts
    assert {run.part for run in runs if run.settings == dict(read_definition("ablation").settings)} == {
        "where attention is placed",
        "reduced size",
        "modules",
        "augmentation",
    }


def test_a_variant_may_name_its_network_and_adds_to_the_settings():
    text = 'networks = ["UNet", "FCN"]\nsettings = { "batch_size" = 4, "epochs" = 2 }\n'
    text += '[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nnetwork = "UTNet"\nsettings = { "batch_size" = 8 }\n'
    runs = expanded(text).runs
    assert [(run.network, run.variant, run.settings["batch_size"]) for run in runs] == [
        ("UNet", "a", 4),
        ("FCN", "a", 4),
        ("UTNet", "b", 8),
    ]
    assert runs[-1].settings["epochs"] == 2


def test_another_dataset_is_tested_whole_and_the_left_out_too():
    other = cohort("CC", "D", name="Other", labels={"RV": 1, "LV": 2, "MYO": 3, "background": 0})
    plan = expanded('[train]\nleave_out = "vendor"\n[test]\ndatasets = ["MnM", "Other"]', Other=other)
    for run in plan.runs:
        assert len(run.subjects.testing["Other"]) == 3
        left = run.trained_on.name.removeprefix("vendor!=")
        own = {case.groups["vendor"] for case in run.testing["MnM"] if case.partition == "training"}
        assert own == {left}


def test_plans_of_2_5d_stand_beside_those_of_2d():
    flat, deep = expanded('plans = ["cpu", "cpu_2.5d"]').runs
    assert (flat.planner, deep.planner) == ("cpu", "cpu") and "cpu_2.5d" in deep.name
    data = [
        RunData(Path("data"), run.plan, DATASET, {"training": [], "validation": []}, {})
        for run in (flat, deep)
    ]
    assert [each.plan_folder.name for each in data] == ["cpu_2d", "cpu_2.5d"]
    assert [(each.request.planner, each.request.configuration) for each in data] == [
        ("cpu", "2d"),
        ("cpu", "2.5d"),
    ]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (
            'networks = ["UTNett"]',
            UsageError,
            "networks.0: no network is called 'UTNett'; there are: .*UTNet",
        ),
        ('plans = ["nice"]', UsageError, "plans.0: no planner is called 'nice'; there are: auto"),
        ('plans = ["like"]', UsageError, "plans.0: no planner is called 'like'; .*no plan of --like"),
        ('networks = ["hybrid"]', UsageError, "networks.0: .*there are: .*nnUNetTrainer"),
        (
            'networks = ["nnUNetTrainer"]\nsettings = { "network.reduce_size" = 4 }',
            SettingError,
            "settings for nnUNetTrainer: unknown key 'network.reduce_size'",
        ),
        ('plans = ["auto", "auto_2d"]', UsageError, "plans.1: 'auto_2d' is called 'auto'"),
        ('[[variants]]\nname = "a"\nnetwork = "X"', UsageError, "variants, number 1: network"),
        (
            'settings = { "network.reduce_sizes" = 4 }',
            SettingError,
            "settings for UTNet: .*network.reduce_size",
        ),
        (
            '[[variants]]\nname = "a"\nnetwork = "FCN"\nsettings = { "network.reduce_size" = 4 }',
            SettingError,
            "variants, number 1: settings for FCN: unknown key 'network.reduce_size'",
        ),
        ('settings = { "augmentation.rotation" = 4 }', SettingError, "augmentation.rotation_deg"),
        (
            '[test]\nby = "scanner"',
            InputError,
            "test.by: no labelled case has a 'scanner'; columns there are: .*vendor",
        ),
        ('[train]\nselections = ["vendor=Z"]', InputError, "train.selections.0"),
    ],
)
def test_what_does_not_exist_is_named_by_its_key(text, error, words):
    with pytest.raises(error, match=words) as found:
        expanded(text)
    assert str(found.value).startswith("x.toml: ")


def test_two_training_sets_of_one_name_are_refused():
    text = '[train]\nselections = ["vendor!=A"]\nleave_out = "vendor"'
    with pytest.raises(InputError, match=r"x\.toml: 2 runs are called 'UTNet · vendor!=A · seed 0'"):
        expanded(text)


def test_datasets_that_do_not_go_together_are_refused():
    text = '[test]\ndatasets = ["MnM", "Other"]'
    with pytest.raises(InputError, match=r"test.datasets: Other has the labels LV, MYO, MnM has LV, MYO, RV"):
        expanded(text, Other=cohort("AA", "B", "Other", labels={"background": 0, "LV": 1, "MYO": 2}))
    with pytest.raises(InputError, match="Other has 2 channels, MnM has 1"):
        expanded(text, Other=cohort("AA", "B", "Other", channels=("a", "b")))
    with pytest.raises(InputError, match="no case of Other has a label"):
        subjects = cohort("", "", "Other")
        expanded(text, Other=subjects)
    with pytest.raises(InputError, match="MnM has to be in it"):
        expanded(
            '[train]\nleave_out = "vendor"\n[test]\ndatasets = ["Other"]', Other=cohort("AA", "B", "Other")
        )


def test_values_of_labels_may_differ_between_datasets():
    values = dict(zip(LABELS, (0, 3, 2, 1), strict=True))
    plan = expanded('[test]\ndatasets = ["Other"]', Other=cohort("AA", "", "Other", labels=values))
    assert set(plan.runs[0].subjects.testing) == {"Other"}


def test_which_datasets_a_study_names():
    definition = read_definition("vendors")
    assert dataset_names(definition, "MnM") == ("MnM",)
    several = with_values(definition, {"train.dataset": "ACDC", "test.datasets": ["MnM", "ACDC"]}, "x")
    assert dataset_names(several, None) == ("ACDC", "MnM")
    with pytest.raises(UtsegError, match="-d NAME"):
        dataset_names(definition, None)
