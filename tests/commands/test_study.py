"""`utseg_study`: words, refusals before anything is read, and what is listed before anything is run."""

import re

import pytest
from rawfiles import make_nnunet

from utseg.commands import study
from utseg.study.definition import builtin_names, definition_text, parse_definition, read_definition


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    make_nnunet(folder / "raw" / "Tiny", subjects=6, size_zyx=(4, 36, 32))
    return folder


def call(capsys, home, *words):
    """Exit code, standard output, error lines."""
    code = study.main([*map(str, words), "--home", str(home)])
    captured = capsys.readouterr()
    return code, captured.out, [line for line in captured.err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("name", builtin_names())
def test_a_built_in_study_is_printed_to_be_copied(name, capsys, tmp_path):
    code, out, errors = call(capsys, tmp_path, name, "--print")
    assert (code, out, errors) == (0, definition_text(name)[1], [])
    assert parse_definition(out, "copy") == read_definition(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'name = "x"\n[train]\nleave_outt = "vendor"',
            "my.toml: unknown key 'train.leave_outt'; did you mean",
        ),
        ('name = "x"\nnetworks = ["UTNett"]', "my.toml: networks.0: no network is called 'UTNett'"),
        (
            'name = "x"\n[train]\nselections = ["vendor=Z"]',
            "my.toml: train.selections.0: vendor: no case has Z",
        ),
        (
            'name = "x"\n[train]\nselections = ["subject=s00"]',
            "train.selections.0: .*only subject s00|no case has s00",
        ),
        ('name = "x"\nsettings = { "network.width" = 4 }', "my.toml: settings for UTNet: unknown key"),
        ('name = "x', "not valid TOML"),
        ("networks = " + "[" * 3000, "not valid TOML"),
        ("epochs = " + "9" * 5000, "not valid TOML"),
    ],
)
def test_a_wrong_file_is_wrong_usage_in_one_line_and_writes_nothing(home, tmp_path, capsys, text, words):
    file = tmp_path / "my.toml"
    file.write_text(text)
    code, _, errors = call(capsys, home, file, "-d", "Tiny", "-o", tmp_path / "out")
    assert code == 2 and len(errors) == 1
    assert re.search(words, errors[0]), errors
    assert not (tmp_path / "out").exists()
    assert not (home / "preprocessed").exists() and not (home / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vendor",), "no study is called so"),
        (("vendors", "-m", "FCN", "FCN"), "networks: 'FCN' is there twice"),
        (("vendors", "--part", "modules"), "no such part; there are: none"),
        (
            ("ablation", "--part", "sizes"),
            "there are: where attention is placed, reduced size, modules, augmentation",
        ),
        (("vendors", "--by", "scanner"), "test.by: no labelled case has a 'scanner'"),
        (("vendors", "--set", "patch_size"), "expected KEY=VALUE"),
    ],
)
def test_wrong_words_are_wrong_usage(home, tmp_path, capsys, words, said):
    code, _, errors = call(capsys, home, *words, "-d", "Tiny", "-o", tmp_path / "out")
    assert code == 2 and len(errors) == 1 and said in errors[0], errors


def test_a_folder_to_write_to_is_needed(home, capsys):
    code, _, errors = call(capsys, home, "vendors", "-d", "Tiny")
    assert code == 2 and "-o DIR is missing" in errors[0]


def test_missing_datasets_are_named(home, capsys, tmp_path):
    code, _, errors = call(capsys, home, "vendors", "-d", "Huge", "-o", tmp_path / "out")
    assert code != 0
    assert "Huge" in errors[0] and "Tiny" in errors[0]


def changed(*words):
    arguments = study.make_study_parser().parse_args(words)
    return study.with_arguments(read_definition(arguments.study), arguments, arguments.study)


def test_words_change_the_study():
    one = changed(
        *("vendors", "-m", "FCN", "-pl", "cpu", "--seeds", "1", "2", "--test", "A", "B", "--by", "centre")
    )
    assert (one.networks, one.plans, one.seeds) == (("FCN",), ("cpu",), (1, 2))
    assert (one.train.each, one.test.by, one.test.datasets) == ("centre", "centre", ("A", "B"))
    assert changed("leave-one-out", "--by", "centre").train.leave_out == "centre"
    assert changed("vendors", "--epochs", "4").epochs == 4
    part = changed(
        *("ablation", "--part", "reduced size", "--set", "batch_size=4", "--set", "network.levels=3")
    )
    assert {variant.part for variant in part.variants} == {"reduced size"}
    assert part.settings["batch_size"] == 4 and part.settings["network.levels"] == 3
    assert part.settings["network.reduce_size"] == 8


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_writes_nothing(home, typed):
    small = ("network.base_channels=4", "network.levels=2", "network.block_list=1,2", "network.reduce_size=2")
    words = ("-m", "UTNet", "-pl", "cpu", "--set", *small, "--dry-run", "--device", "cpu")
    result = typed("utseg_study", "vendors", *words, home=home)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for name in ("vendor=A", "vendor=B", "vendor=A,B"):
        (line,) = [line for line in lines if line.startswith(f"UTNet · {name} · seed 0")]
        assert "to do" in line and "Tiny 2" in line
    assert "nothing was written" in lines[-1] and " in all" in lines[-2]
    assert sorted(path.name for path in home.iterdir()) == ["raw"]
