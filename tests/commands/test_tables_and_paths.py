"""Tables as spreadsheets save them, paths as people type them, and warnings that explain an error: through the commands."""

import shutil
from contextlib import nullcontext

import pytest
from rawfiles import MNMS_CSV, make_mnms, make_nnunet

from utseg.commands import evaluate, plan_and_preprocess, report, study, train
from utseg.compute.pool import InlineExecutor

PLAN = ("-pl", "cpu", "-m", "UNet", "-np", "1", "--dry-run")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    home = tmp_path_factory.mktemp("pristine")
    make_mnms(home / "raw" / "MnM", subjects=2, size_zyx=(3, 24, 24))
    make_nnunet(home / "raw" / "Heart", subjects=2, size_zyx=(3, 24, 24))
    return home


@pytest.fixture
def home(tmp_path, pristine):
    return shutil.copytree(pristine, tmp_path / "home")


@pytest.fixture
def plan(capfd, monkeypatch):
    """Runs the command in this process alone; returns exit code and what it wrote."""
    monkeypatch.setattr(
        "utseg.preprocess.dataset.process_pool", lambda workers: nullcontext(InlineExecutor())
    )

    def call(*words: object, home: object, dataset: str = "MnM") -> tuple[int, str]:
        words = ("-d", dataset, *PLAN, "--home", home, *words)
        code = plan_and_preprocess.main([str(word) for word in words])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out + captured.err

    return call


def with_trailing_columns(text: str) -> str:
    return "\n".join(line + ",,," for line in text.splitlines())


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: ("sep=;\n" + text.replace(",", ";")).encode("utf-8-sig"),
        lambda text: ("sep=,,,,\n" + with_trailing_columns(text)).encode(),
    ],
)
def test_spreadsheets_are_read_however_they_are_saved(home, plan, encode):
    table = home / "raw" / "MnM" / MNMS_CSV
    table.write_bytes(encode(table.read_text().replace("\r\n", "\n").replace("NOR", "Köln")))
    code, said = plan(home=home)
    assert code == 0 and "warning" not in said, said
    assert "4 cases of 2 subjects" in said and "pathology HCM 1, Köln 1" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04\x14\0", "a spreadsheet or zip archive called .csv; save it as CSV"),
        (b"External code\0,ED,ES\n", "not a text file (it holds zero bytes)"),
        (b"\xff\xfeE", "begins like UTF-16 but is not"),
        (
            b"sep=,\nExternal code,ED,ES\nA,0,1\nB,0,1,7\n",
            "line 4: 4 cells, but the first line has 3 columns",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_file_and_line(home, plan, content, words):
    (home / "raw" / "MnM" / MNMS_CSV).write_bytes(content)
    code, said = plan(home=home)
    assert code == 1 and f"error: {home / 'raw' / 'MnM' / MNMS_CSV}: {words}" in said


def test_a_home_in_quotes_or_with_a_tilde_is_the_folder_that_is_meant(
    home, plan, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("~/home", '"~/home"', f"'{home}'", f" {home} "):
        found = f"{home / 'raw' / 'Absent'}: no raw dataset called 'Absent' (found there: Heart, MnM)"
        code, said = plan(home=written, dataset="Absent")
        assert code == 1 and found in said
        with monkeypatch.context() as changed:
            changed.setenv("UTSEG_HOME", written)
            assert plan_and_preprocess.main(["-d", "Absent", *PLAN]) == 1
            assert found in capfd.readouterr().err
            changed.setenv("UTSEG_HOME", "/nowhere")
            changed.setenv("UTSEG_RAW", written)
            assert plan_and_preprocess.main(["-d", "Absent", *PLAN]) == 1
            assert f"{home / 'Absent'}: no raw dataset" in capfd.readouterr().err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("written", ["", " ", '""', "~nobody-of-this-name/x"])
def test_a_path_that_names_nothing_is_wrong_usage(home, capfd, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        plan_and_preprocess.main(["-d", "MnM", *PLAN, "--home", written])
    said = capfd.readouterr().err
    assert ended.value.code == 2 and ("is empty" in said or "no home folder is known for ~nobody" in said)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_every_option_that_names_a_file_takes_a_tilde(home, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    wanted = str(tmp_path / "mine" / "absent")
    for main, words in (
        (
            evaluate.main,
            ("-p", "~/absent", "-g", str(home / "raw" / "Heart"), "-o", "~/scores", "-d", "Heart"),
        ),
        (evaluate.main, ("-p", str(home), "-g", "~/absent", "-o", "~/scores", "-d", "Heart")),
        (report.main, ("~/absent", "-o", "~/x.html")),
        (study.main, ("~/absent.toml", "-d", "MnM", "-o", "~/study")),
    ):
        assert main([*words, "--home", str(home)]) != 0
        said = capfd.readouterr().err
        assert wanted in said or "~/absent.toml: no study is called so" in said, said
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("name", ["MnM ", '"MnM"', "~MnM", "raw/MnM"])
def test_a_dataset_in_quotes_is_wrong_usage_in_one_line(home, plan, name):
    code, said = plan(home=home, dataset=name)
    assert code == 2 and f"raw dataset {name!r} is not a plain name" in said
    assert train.main(["2d", "fold0", "-d", name, "--home", str(home)]) == 2
