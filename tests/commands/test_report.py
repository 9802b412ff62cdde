"""`utseg_report` as a user types it."""

import shutil

import pytest
from commandline import assert_refused, run_command, run_here
from made_scores import make_cohort


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("scored"))


def test_writes_a_page_and_its_tables(scored, tmp_path):
    output = tmp_path / "report.html"
    result = run_command(
        "utseg_report", scored / "good" / "scores", scored / "poor" / "scores", "-o", output, "-np", 1
    )
    assert result.returncode == 0, result.stderr
    assert (
        "6 cases, 6 with pictures" in result.stdout and (tmp_path / "report_tables" / "tables.tex").is_file()
    )
    page = output.read_text()
    assert f"utseg_report {scored / 'good' / 'scores'}" in page and page.count('id="stack-') == 6


def test_missing_images_are_a_warning(scored, tmp_path):
    shutil.copytree(scored, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "raw")
    result = run_here("utseg_report", tmp_path / "moved" / "good" / "scores", "-o", tmp_path / "r.html")
    assert result.returncode == 0 and (tmp_path / "r.html").is_file()
    assert "warning: 6 cases without pictures: the reference is not where it was scored" in result.stderr


def test_wrong_inputs_have_a_line_each(tmp_path):
    (tmp_path / "empty").mkdir()
    words = tmp_path / "none", tmp_path / "empty", "-o", tmp_path / "r.html"
    assert_refused(run_here("utseg_report", *words), "none: not found", "empty: nothing to report", lines=2)
    assert not (tmp_path / "r.html").exists()


def test_an_unknown_dataset_and_a_wrong_output_are_refused(scored, tmp_path):
    scores = scored / "good" / "scores"
    (tmp_path / "raw" / "Other").mkdir(parents=True)
    wrong = run_here("utseg_report", scores, "-d", "MnM", "-o", tmp_path / "r.html", home=tmp_path)
    assert_refused(wrong, "no raw dataset called 'MnM'", "Other")
    assert_refused(run_here("utseg_report", scores, "-o", tmp_path / "r.pdf"), "ends in .html")
    (tmp_path / "file").touch()
    assert_refused(run_here("utseg_report", scores, "-o", tmp_path / "file" / "r.html"), "not writable")
