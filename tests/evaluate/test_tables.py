"""Tables as Markdown and LaTeX, and `metrics.csv` read back."""

import math

import pytest

from utseg.errors import InputError
from utseg.evaluate.records import METRIC_KEYS, case_columns, read_metrics, to_csv
from utseg.evaluate.tables import Table, interval, latex_text, number, to_latex, to_markdown, to_text

TABLE = Table("A_B", ("group", "Dice"), (("x|y", "0.9 … 1.0"), ("50 %_{a}", "–")), "p & q")


def test_markdown_has_one_line_a_row_and_escapes_bars():
    lines = to_markdown([TABLE]).splitlines()
    assert lines[0] == "## A_B" and lines[2] == "| group | Dice |" and lines[3] == "| --- | ---: |"
    assert lines[4] == r"| x\|y | 0.9 … 1.0 |" and lines[-1] == "p & q"


def test_latex_escapes_what_it_would_read_as_commands():
    text = to_latex([TABLE])
    assert r"50 \%\_\{a\} & --" in text and r"\caption{A\_B. p \& q}" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1
    assert latex_text("\\input{x}$") == r"\textbackslash{}input\{x\}\$"


def test_numbers_that_are_not_there_are_a_dash():
    assert number(None, 2) == interval(None, 2) == "–" and interval([1, 2.346], 2) == "1.00 … 2.35"


def test_metrics_come_back_as_they_were(tmp_path):
    row = {"case": "a,b", "subject": "a", "vendor": "A", "label": 1, "label_name": "LV", "status": "ok"}
    row |= dict.fromkeys(METRIC_KEYS, 0.5) | {"hd95_mm": math.nan}
    path = tmp_path / "metrics.csv"
    path.write_text(to_csv([row], case_columns(("vendor",))))
    (read,) = read_metrics(path)
    assert math.isnan(read.pop("hd95_mm")) and math.isnan(row.pop("hd95_mm")) and read == row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case,dice\n", "no column label_name, status, subject"),
        ("case,subject,label_name,dice,status\na,a,LV,good,ok\n", "line 2.*good"),
        ("case,subject,label,label_name,dice,status\na,a,x,LV,1,ok\n", "line 2.*'x'"),
    ],
)
def test_another_file_is_refused(tmp_path, text, expected):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        read_metrics(path)
    with pytest.raises(InputError, match="could not be read"):
        read_metrics(tmp_path / "none.csv")


def test_columns_of_a_terminal_are_as_wide_as_their_longest_cell():
    lines = to_text([["label", "Dice"], ["whole heart with both ventricles", "0.9"], ["LV", "1.000"]])
    assert {len(line) for line in lines} == {len("whole heart with both ventricles  1.000")}
    assert [line.rsplit(maxsplit=1)[1] for line in lines] == ["Dice", "0.9", "1.000"]
