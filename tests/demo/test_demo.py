"""The demo's table and choice of pictures; and, slow, the whole walk on a tiny cohort."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from utseg.case import Case
from utseg.demo.demo import DemoSettings, VendorScore, run_demo, score_table
from utseg.demo.pictures import median_case, read_dice
from utseg.home import Home
from utseg.phantom.examination import PhantomSettings


def test_the_table_has_a_line_for_each_vendor_and_the_means_of_seen_and_unseen():
    scores = [
        VendorScore("A", "Siemens", True, 4, {"LV": 0.9, "RV": 0.7}, 0.8),
        VendorScore("C", "GE", False, 4, {"LV": 0.8, "RV": None}, 0.8),
        VendorScore("D", "Canon", False, 2, {"LV": 0.6, "RV": 0.6}, 0.6),
    ]
    lines = score_table(scores).splitlines()
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
def test_the_whole_walk_on_a_tiny_cohort_and_again(tmp_path: Path):
    home = Home(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    settings = DemoSettings(
        home,
        epochs=2,
        train_settings={"network.base_channels": 4, "iterations_per_epoch": 8, "batch_size": 4},
        cohort=PhantomSettings(subjects=8, frames=2, matrix=48, slices=5),
        workers=1,
    )
    result = run_demo(settings)
    assert [score.vendor for score in result.scores] == ["A", "B", "C", "D"]
    assert [score.seen for score in result.scores] == [True, True, False, False]
    with (settings.testing / "scores" / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert (
        len(rows) == 3 * sum(score.cases for score in result.scores) == 3 * 8
    )  # four vendors, one test subject each, ED and ES
    for path in result.pictures:
        with Image.open(path) as picture:
            assert "prediction · Dice LV" in picture.text["Title"]
    report = result.report.read_text()
    assert (
        report.count('id="stack-') == 8
        and "Training loss" in report
        and "The plan, with its reasons" in report
    )
    weights = (settings.run / "model.safetensors").read_bytes()
    again = run_demo(settings)
    assert again.scores == result.scores
    assert (settings.run / "model.safetensors").read_bytes() == weights
