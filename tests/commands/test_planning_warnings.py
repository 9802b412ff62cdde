"""What planning warns of in a whole dataset, through the command: figures that contradict its tables or its other scans."""

import pytest
from commandline import run_here
from rawfiles import make_acdc, make_nnunet


def warnings_of(home, word):
    """The warnings that hold a word, of planning that succeeds."""
    result = run_here("utseg_plan_and_preprocess", "-d", "Heart", "-pl", "cpu", "--dry-run", home=home)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ") and word in line]


@pytest.mark.parametrize("patients", [("patient001",), ("patient001", "patient002", "patient003")])
def test_ed_and_es_exchanged_in_info_cfg_are_named(tmp_path, patients):
    folder = make_acdc(tmp_path / "raw" / "Heart", subjects=3)
    assert not warnings_of(tmp_path, "exchanged")
    for patient in patients:
        (info,) = folder.rglob(f"{patient}/Info.cfg")
        info.write_text(info.read_text().replace("ED: 1\nES: 3", "ED: 3\nES: 1"))
    (line,) = warnings_of(tmp_path, "exchanged")
    named = f"in {len(patients)} of 3 subjects ({', '.join(patients)})"
    assert line == f"warning: LV is larger at ES than at ED {named}: are ED and ES exchanged?"


def test_ed_and_es_exchanged_in_a_table_are_named(tmp_path):
    table = make_nnunet(tmp_path / "raw" / "Heart", subjects=2) / "cases.csv"
    table.write_text(
        table.read_text().replace("s01,ED", "s01,XX").replace("s01,ES", "s01,ED").replace(",XX", ",ES")
    )
    (line,) = warnings_of(tmp_path, "exchanged")
    assert "in 1 of 2 subjects (s01)" in line
