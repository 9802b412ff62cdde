"""The study file: what is read is what is written, and a wrong key is named."""

import pytest

from utseg.errors import InputError, SettingError, UsageError
from utseg.extensions import names
from utseg.networks import network_settings
from utseg.planning.plan import Plan
from utseg.settings import setting_keys
from utseg.study.definition import (
    builtin_names,
    definition_text,
    parse_definition,
    read_definition,
    to_toml,
    with_values,
)

PUBLISHED = {"vendors", "leave-one-out", "ablation", "networks", "data-size", "seeds"}


def test_the_studies_of_the_publication_are_built_in():
    assert set(builtin_names()) >= PUBLISHED
    assert set(read_definition("networks").networks) == set(names("networks")) - {"tiny_network"}
    assert read_definition("ablation").parts() == (
        "where attention is placed",
        "reduced size",
        "modules",
        "augmentation",
    )


@pytest.mark.parametrize("name", builtin_names())
def test_a_study_written_and_read_again_is_the_same(name):
    definition = read_definition(name)
    assert parse_definition(to_toml(definition), "again") == definition
    assert definition.name == name


def test_every_setting_of_the_ablation_is_one_of_the_plan_or_the_network():
    definition = read_definition("ablation")
    known = {f"network.{key}" for key in network_settings("UTNet")} | set(setting_keys(Plan))
    for variant in definition.variants:
        assert set(variant.settings) <= known


def test_settings_may_be_dotted_keys_or_tables():
    flat = 'name = "x"\n[settings]\n"network.base_channels" = 8\n'
    dotted = 'name = "x"\n[settings]\nnetwork.base_channels = 8\n'
    table = 'name = "x"\n[settings.network]\nbase_channels = 8\n'
    assert (
        parse_definition(flat, "a") == parse_definition(dotted, "a") == parse_definition(table, "a")
    )  # one meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'name = "x"\n[train]\nleave_outt = "vendor"',
            ("train.leave_outt", "did you mean 'train.leave_out'"),
        ),
        ('name = "x"\nsedes = [1]', ("'sedes'", "did you mean 'seeds'")),
        ('name = "x"\n[[variants]]\nname = "a"\n[[variants]]\nnmae = "b"', ("number 2", "'nmae'", "name")),
        ('name = "x"\nseeds = [1, 1]', ("seeds", "1 is there twice")),
        ('name = "x"\nseeds = []', ("seeds",)),
        ('name = "x"\nepochs = 0', ("epochs", "found 0")),
        ('name = "x"\n[test]\nshare = 1.5', ("test.share", "1.5")),
        ('name = "x"\n[train]\ntogether = true', ("train", "each")),
        ('name = "x"\n[train]\nsubjects = [1]', ("train.subjects.0", "found 1")),
        (
            'name = "x"\n[[variants]]\nname = "a"\n[[variants]]\nname = "a"',
            ("variants", "'a' is there twice"),
        ),
        ('question = "?"', ("'name' is missing",)),
        ('name = "x', ("not valid TOML",)),
        ('name = "x"\nvariants = 3', ("variants",)),
    ],
)
def test_a_wrong_file_is_one_line_with_the_path_of_the_key(text, words):
    with pytest.raises(SettingError) as error:
        parse_definition(text, "my.toml")
    message = str(error.value)
    assert message.startswith("my.toml: ") and "\n" not in message
    for word in words:
        assert word in message


def test_neither_a_study_nor_a_file(tmp_path):
    with pytest.raises(UsageError, match="vendors"):
        definition_text("vendor")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match=r"latin\.toml"):
        definition_text(str(tmp_path / "latin.toml"))


def test_values_of_the_command_line_are_checked_like_those_of_the_file():
    definition = read_definition("vendors")
    changed = with_values(definition, {"networks": ["FCN"], "test.datasets": ["B"], "epochs": 3}, "x")
    assert (changed.networks, changed.test.datasets, changed.epochs) == (("FCN",), ("B",), 3)
    assert changed.train == definition.train
    with pytest.raises(SettingError, match="seeds"):
        with_values(definition, {"seeds": [2, 2]}, "x")
