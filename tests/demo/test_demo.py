"""The demo's table and choice of pictures; and, slow, the whole walk on a tiny cohort."""

import csv
from contextlib import nullcontext
from pathlib import Path

import pytest
from commandline import POOLS
from PIL import Image

from utseg.case import Case
from utseg.commands import demo
from utseg.compute.pool import InlineExecutor
from utseg.demo.results import median_case, read_dice, score_table
from utseg.training.record import read_run


def group(cases, mean, **dice):
    labels = {name: {"dice": {"mean": value}} for name, value in dice.items()}
    return {"cases": cases, "mean_dice": mean, "labels": labels}


def test_the_table_has_a_line_for_each_vendor_and_the_means_of_seen_and_unseen():
    vendors = {
        "C": group(4, 0.8, LV=0.8, RV=None),
        "A": group(4, 0.8, LV=0.9, RV=0.7),
        "D": group(2, 0.6, LV=0.6, RV=0.6),
    }
    lines = score_table(vendors, {"A": "Siemens", "C": "GE", "D": "Canon"}).splitlines()
    assert [line.split() for line in lines] == [
        ["vendor", "in", "training", "cases", "LV", "RV", "mean"],
        ["A", "Siemens", "seen", "4", "0.900", "0.700", "0.800"],
        ["C", "GE", "unseen", "4", "0.800", "–", "0.800"],
        ["D", "Canon", "unseen", "2", "0.600", "0.600", "0.600"],
        ["mean", "of", "seen", "vendors", "0.800"],
        ["mean", "of", "unseen", "vendors", "0.700"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_case_in_the_middle_is_pictured(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = (
        "a,a,LV,0.9,ok",
        "a,a,RV,,both_empty",
        "b,b,LV,0.5,ok",
        "b,b,RV,0.3,ok",
        "c,c,LV,0.7,ok",
        "c,c,RV,0.8,ok",
    )
    path.write_text("\n".join(("case,subject,label_name,dice,status", *rows, "")))
    scores = read_dice(path)
    assert scores["a"] == {"LV": 0.9, "RV": None}
    cases = [Case(name, name, ()) for name in "abc"]
    assert median_case(cases, scores).case_id == "c"
    assert median_case(cases[:2], scores).case_id == "b"


@pytest.mark.slow
def test_the_whole_walk_on_a_tiny_cohort_and_again(tmp_path: Path, monkeypatch, capsys):
    cohort = ("--subjects", "8", "--frames", "2", "--matrix", "48", "--slices", "4")
    network = ("base_channels=4", "levels=2", "block_list=2", "num_blocks=1", "num_heads=1")
    settings = (*(f"network.{each}" for each in network), "iterations_per_epoch=2", "batch_size=4")
    for module in POOLS:
        monkeypatch.setattr(
            f"utseg.{module}.process_pool", lambda workers=None: nullcontext(InlineExecutor())
        )
    monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 1000)
    monkeypatch.setattr(demo, "COHORT", cohort)
    monkeypatch.setattr(demo, "PATCH", ())
    monkeypatch.setattr(demo, "TRAINING", ("--epochs", "1", *(w for s in settings for w in ("--set", s))))
    words = ["--home", str(tmp_path), "-np", "1"]
    assert demo.main(words) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line[1:3] == ". "] == [
        f"{n}." for n in range(1, 7)
    ]
    table = said[said.index("Dice on the test subjects") :]
    assert [line.split()[:3:2] for line in table.splitlines()[2:6]] == [
        ["A", "seen"],
        ["B", "seen"],
        ["C", "unseen"],
        ["D", "unseen"],
    ]
    results = tmp_path / "results" / "Phantom"
    with (results / "testing" / "scores" / "metrics.csv").open(newline="") as handle:
        assert len(list(csv.DictReader(handle))) == 3 * 8  # four vendors, one test subject each, ED and ES
    for path in (results / "testing" / "pictures").iterdir():
        with Image.open(path) as picture:
            assert "prediction · Dice LV" in picture.text["Title"]
    page = (results / "testing" / "report.html").read_text()
    assert page.count('id="stack-') == 8 and "Training loss" in page and "The plan, with its reasons" in page
    weights = next(results.rglob("model.safetensors"))
    assert read_run(weights.parent).plan.augmentation.needs_partners, (
        "histograms of other subjects were mixed in"
    )
    before = weights.read_bytes()
    assert demo.main(words) == 0
    again = capsys.readouterr().out
    assert again[again.index("Dice on") :].split("time:")[0] == table.split("time:")[0]
    assert weights.read_bytes() == before


def test_a_step_that_fails_ends_the_walk(tmp_path, capsys):
    (tmp_path / "raw" / "Phantom").mkdir(parents=True)
    (tmp_path / "raw" / "Phantom" / "scans.txt").touch()
    assert demo.main(["--home", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "not empty, and no phantom" in said.err and "2. " not in said.out
