"""The report of a study as a page: its sections, its tables, hostile names, what is refused."""

import csv
import re

import pytest
from made_scores import HOSTILE_CASE, HOSTILE_SCRIPT, HOSTILE_VENDOR
from made_study import MadeStudy, write_study_folder
from test_write_report import Elements

from utseg.commands.report import main
from utseg.compute.pool import InlineExecutor
from utseg.errors import ArtefactError, CaseErrors, InputError
from utseg.home import Home
from utseg.report import write_study_report
from utseg.study.record import read_study, write_study


def report(folder, output, **settings):
    home = Home.locate(output.parent / "home")
    return write_study_report(folder, output, home=home, executor=InlineExecutor(), **settings)


@pytest.fixture(scope="module")
def vendors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vendors")
    made = MadeStudy(networks={"UTNet": 0.06, "UNet": 0.02}, failed=("UNet · vendor=B · seed 0",))
    write_study_folder(folder, made, images=True)
    return report(folder, folder / "report.html")


def sections(found) -> list[str]:
    return [a["id"] for tag, a in Elements(found.path.read_text()).elements if tag == "section"]


def tables(found, name) -> list[dict[str, str]]:
    path = min(found.tables.glob(f"*_{name}*.csv"))
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_answer_stands_first_and_says_who_loses_how_much(vendors):
    assert sections(vendors)[:4] == ["answer", "matrix", "loss", "models"]
    text = re.sub(r"\s+", " ", " ".join(Elements(vendors.path.read_text()).texts))
    assert re.search(
        r"On unseen vendors, UNet loses 0\.0[12]\d Dice \(95 % 0\.0\d\d … 0\.0\d\d; 8 subjects, paired", text
    )
    assert re.search(r"UTNet loses 0\.0[56]\d Dice \(95 % 0\.0\d\d … 0\.0\d\d; 16 subjects, paired", text)
    assert "From seen to unseen, UNet loses 0.0" in text and "Spearman's rho" in text
    assert "Failed: UNet · vendor=B · seed 0: the loss is not finite" in vendors.notices


def test_every_table_is_there_in_three_forms_and_n_beside_every_mean(vendors):
    names = {path.stem for path in vendors.tables.glob("[0-9]*")}
    assert len(names) >= 9
    for name in names:
        assert {path.suffix for path in vendors.tables.glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    matrix = tables(vendors, "trained_on_tested_on")
    assert len(matrix) == 5  # one of six failed
    for row in matrix:
        cells = list(row.values())[3:]
        assert all(re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}; n \d+\)\*?", cell) for cell in cells), cells
    runs = {row["run"]: row for row in tables(vendors, "runs")}
    assert runs["UNet · vendor=B · seed 0"]["state"] == "failed"
    assert {(row["train on"], row["validate on"], row["test on MnM"]) for row in runs.values()} == {
        ("10", "2", "32"),
        ("20", "2", "32"),
    }
    assert {row["subjects"] for row in runs.values()} == {"disjoint, checked"}


def test_the_matrix_can_be_chosen_by_score_and_label(vendors):
    page = Elements(vendors.path.read_text())
    blocks = [a for tag, a in page.elements if tag == "div" and a.get("class") == "choice"]
    assert len(blocks) == 4 * 4 and [("hidden" in a) for a in blocks] == [False] + [True] * 15
    assert len({(a["data-metric"], a["data-label"]) for a in blocks}) == 16
    seen = [a for tag, a in page.elements if tag == "td" and "seen" in (a.get("class") or "").split()]
    assert len(seen) == 16 * (1 + 1 + 2 + 1 + 2)


def test_sections_without_content_do_not_appear(vendors, tmp_path):
    assert {"ablation", "learning", "chance", "pictures"}.isdisjoint(sections(vendors))
    made = MadeStudy(networks={"UTNet": 0.0}, sets={"all": "ABCD"}, seeds=(0, 1))
    found = report(write_study_folder(tmp_path, made), tmp_path / "r.html")
    assert {"answer", "loss", "models", "images"} & set(sections(found)) == {"answer"}
    assert "chance" in sections(found)


def test_a_study_without_a_finished_run_has_a_page(tmp_path):
    folder = write_study_folder(tmp_path, MadeStudy())
    record = read_study(folder)
    runs = tuple(run.model_copy(update={"state": "waiting"}) for run in record.runs)
    write_study(record.model_copy(update={"runs": runs}), folder)
    (folder / "cases.csv").unlink()
    found = report(folder, tmp_path / "r.html")
    assert sections(found) == ["runs", "provenance"]
    assert any("6 of 6 runs have not finished yet" in notice for notice in found.notices)


def test_pictures_show_a_case_of_every_vendor_with_and_without_having_seen_it(pictured):
    assert (pictured.cases, pictured.pictured) == (6, 6)
    page = Elements(pictured.path.read_text())
    assert page.data["viewer-data"]["models"] == ["UTNet, seen", "UTNet, unseen"]
    stacks = {value["case"]: value for key, value in page.data.items() if key.startswith("stack-")}
    assert set(stacks) == {"a_ED", "a_ES", "b_ED", HOSTILE_SCRIPT, HOSTILE_CASE, "c_ES"}
    assert [model is None for model in stacks["c_ES"]["models"]] == [True, False]  # nobody saw that vendor
    assert not any(model is None for model in stacks["a_ED"]["models"])
    figures = [
        a["aria-label"] for t, a in page.elements if t == "svg" and "scale bar" in (a.get("aria-label") or "")
    ]
    assert len(figures) == 3


def test_nothing_of_a_hostile_name_becomes_an_element_and_nothing_is_fetched(pictured):
    html = pictured.path.read_text()
    assert not any(name in html for name in (HOSTILE_CASE, HOSTILE_SCRIPT, HOSTILE_VENDOR))
    page = Elements(html)
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    for _, attributes in page.elements:
        for key in ("src", "href", "data", "action", "srcset"):
            value = attributes.get(key)
            assert (
                value is None or value == "study.json" or value.startswith(("#", "data:image/webp;base64,"))
            )
        assert "style" not in attributes
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_command_knows_a_study_by_its_file(vendors, tmp_path, capsys):
    words = [
        str(vendors.path.parent),
        "-o",
        str(tmp_path / "r.html"),
        "--home",
        str(tmp_path),
        "--no-pictures",
    ]
    assert main(words) == 0
    assert "Study report" in (tmp_path / "r.html").read_text()
    assert "utseg_report" in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    assert main([*words, "-d", "MnM"]) == 2
    assert main([str(vendors.path.parent), *words]) == 2
    assert capsys.readouterr().err.count("a study has a report of its own") == 2


def test_runs_that_were_moved_cost_the_pictures_only(vendors):
    assert vendors.pictured == 0
    assert any("not in their folders any more" in notice for notice in vendors.notices)


def test_what_is_no_study_is_refused_in_one_line(tmp_path):
    with pytest.raises(ArtefactError, match="no study is there"):
        report(tmp_path, tmp_path / "r.html")
    folder = write_study_folder(tmp_path / "s", MadeStudy())
    with pytest.raises(InputError, match=r"ends in \.html"):
        report(folder, tmp_path / "r.pdf")
    text = (folder / "cases.csv").read_text()
    (folder / "cases.csv").write_text(text.replace("UTNet · vendor=A · seed 0", "another", 1))
    with pytest.raises(InputError, match=r"line 2: run .another. is not in study\.json"):
        report(folder, tmp_path / "r.html")
    (folder / "cases.csv").write_text("case,dice\n")
    with pytest.raises(InputError, match=r"not a cases\.csv"):
        report(folder, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_subject_that_was_trained_on_is_refused_before_anything_is_written(tmp_path):
    folder = write_study_folder(tmp_path, MadeStudy())
    record = read_study(folder)
    run = record.runs[0]
    subjects = run.subjects.model_copy(update={"validation": ("A03",)})
    runs = (run.model_copy(update={"subjects": subjects}), *record.runs[1:])
    write_study(record.model_copy(update={"runs": runs}), folder)
    with pytest.raises(CaseErrors, match="A03"):
        report(folder, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_many_models_are_summed_up(tmp_path):
    networks = {f"Net{number}": 0.02 + 0.01 * number for number in range(5)}
    found = report(
        write_study_folder(tmp_path, MadeStudy(networks=networks, per_vendor=6)), tmp_path / "r.html"
    )
    text = re.sub(r"\s+", " ", " ".join(Elements(found.path.read_text()).texts))
    assert re.search(
        r"On unseen vendors, of 5 the least and the most, Net0 loses 0\.02\d Dice .*; Net4 loses 0\.0[56]",
        text,
    )
    assert re.search(
        r"From seen to unseen, of 4 the least and the most, Net0 loses 0\.0\d+ Dice less than Net4", text
    )
    short, every = (
        tables(found, "loss_of_dice_on_unseen_vendors"),
        tables(found, "loss_of_dice_on_unseen_vendors_by_label"),
    )
    assert {row["label"] for row in short} == {"mean"} and len(every) == 4 * len(short) == 4 * 2 * 5
