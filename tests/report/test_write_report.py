"""The report as a whole: what stands in it, what is compared, what is missing, what is refused."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_scores import HOSTILE_CASE, HOSTILE_SCRIPT, write_scores

from utseg.compute.pool import InlineExecutor
from utseg.errors import CaseErrors, InputError
from utseg.files import sha256
from utseg.home import Home
from utseg.report import write_report
from utseg.report.entries import find_entries


class Elements(HTMLParser):
    """All elements with their attributes, the texts of table cells, and of data scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, object] = {}
        self._script = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = ""

    def handle_data(self, data):
        if self._script and self._script != "code":
            self.data[self._script] = json.loads(data)
        elif not self._script and data.strip():
            self.texts.append(data.strip())


def report(paths, output: Path, **settings):
    return write_report(
        paths, output, home=Home.locate(output.parent / "home"), executor=InlineExecutor(), **settings
    )


@pytest.fixture(scope="module")
def page(compared):
    return Elements(compared.path.read_text())


def test_nothing_of_a_hostile_name_becomes_an_element(compared, page):
    html = compared.path.read_text()
    assert HOSTILE_CASE not in html and HOSTILE_SCRIPT not in html
    names = {tag for tag, _ in page.elements}
    assert "img" not in names and "iframe" not in names
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert [attributes.get("type", "code") for attributes in scripts].count("code") == 1
    assert len(scripts) == 6 + 2  # the stacks, the viewer's data, the code
    assert {HOSTILE_CASE, HOSTILE_SCRIPT} <= {stack["case"] for stack in stacks(page)}


def test_nothing_is_fetched_from_anywhere(compared, page):
    for tag, attributes in page.elements:
        for key in ("src", "href", "data", "action", "srcset"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:image/webp;base64,")), (tag, value)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    style = re.search("<style>(.*?)</style>", compared.path.read_text(), re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_stacks_have_both_models_and_the_dice_of_the_table(compared, page):
    assert page.data["viewer-data"]["models"] == ["good", "poor"]
    assert [label["name"] for label in page.data["viewer-data"]["labels"]] == ["LV", "MYO", "RV"]
    table = read_csv(compared.tables, "all_cases")
    for row in table:
        stack = next(stack for stack in stacks(page) if stack["case"] == row["case"])
        assert [len(stack["reference"]), len(stack["slices"]), stack["of"]] == [5, 5, 5]
        assert stack["reference"][0] == ["", "", ""] and all(stack["reference"][2])
        for dice, name in zip(stack["dice"], ("good", "poor"), strict=True):
            assert f"{dice[0]:.3f}" == row[f"{name}: LV"]
            assert f"{np.mean(dice):.3f}" == row[f"{name}: mean Dice"]


def test_cases_stand_worst_first(compared):
    table = read_csv(compared.tables, "all_cases")
    means = [float(row["good: mean Dice"]) + float(row["poor: mean Dice"]) for row in table]
    assert len(means) == 6 and means == sorted(means)


def test_every_table_is_there_in_three_forms(compared, page):
    names = {path.stem for path in compared.tables.glob("[0-9]*")}
    assert len(names) >= 8
    for name in names:
        assert {path.suffix for path in compared.tables.glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    whole = (compared.tables / "tables.tex").read_text()
    assert (
        whole.count(r"\begin{table}")
        == len(names)
        == (compared.tables / "tables.md").read_text().count("\n| --- |")
    )


def test_figures_show_best_median_and_worst_of_each_vendor(page):
    figures = [a for t, a in page.elements if t == "svg" and "scale bar" in (a.get("aria-label") or "")]
    assert len(figures) == 3 * 2  # two cases a vendor: best and worst
    assert all(re.search(r"scale bar (50|20|10|5) mm", figure["aria-label"]) for figure in figures)


def test_another_report_leaves_foreign_files_and_removes_its_own_old_tables(cohort, tmp_path):
    output = tmp_path / "report.html"
    tables = report([cohort / "good" / "scores", cohort / "poor" / "scores"], output, pictures=False).tables
    (tables / "mine.csv").write_text("keep")
    before = set(tables.iterdir())
    report([cohort / "good" / "scores"], output, pictures=False)
    after = set(tables.iterdir())
    assert tables / "mine.csv" in after and before - after
    assert not any("pairs" in path.name for path in after)


def many(offset, spread=0.01):
    """Twelve subjects of two vendors, ED and ES, Dice around a level."""
    rng = np.random.default_rng(0)
    return {
        f"{subject}_{phase}": {"LV": 0.8 + offset + rng.normal(0, spread), "RV": 0.7 + rng.normal(0, spread)}
        for subject in "abcdefghijkl"
        for phase in ("ED", "ES")
    }


VENDORS = {subject: "AB"[place % 2] for place, subject in enumerate("abcdefghijkl")}


def test_the_best_is_marked_where_the_test_says_so_and_only_there(tmp_path):
    scores = [
        write_scores(tmp_path / name, many(offset), vendor=VENDORS)
        for name, offset in (("better", 0.1), ("worse", 0.0))
    ]
    found = report(scores, tmp_path / "r.html")
    table = read_csv(found.tables, "dice_by_model_and_group")
    cells = {(row["group"], row["label"]): (row["better"], row["worse"]) for row in table}
    assert cells["all", "LV"][0].endswith("†") and "†" not in cells["all", "LV"][1]
    assert not any("†" in cell for cell in cells["all", "RV"])  # the same values: no difference
    html = found.path.read_text()
    assert html.count("<strong>") == html.count("<sup>†</sup>") > 0


def test_models_that_are_alike_have_no_mark(tmp_path):
    scores = [write_scores(tmp_path / name, many(0.0)) for name in ("one", "two")]
    found = report(scores, tmp_path / "r.html")
    assert "<strong>" not in found.path.read_text()


def test_empties_are_counted_beside_the_means(tmp_path):
    dice = many(0.0)
    for case in ("a_ED", "b_ED", "c_ES"):
        dice[case]["RV"] = np.nan
    found = report([write_scores(tmp_path / "one", dice)], tmp_path / "r.html")
    row = next(r for r in read_csv(found.tables, "by_group") if (r["group"], r["label"]) == ("all", "RV"))
    assert (row["cases"], row["neither"], row["missed"]) == ("24", "3", "0")
    expected = np.mean([own["RV"] for own in dice.values() if not np.isnan(own["RV"])])
    assert row["Dice"].startswith(f"{expected:.3f} (")


def test_models_with_other_cases_are_compared_on_those_in_common(tmp_path):
    fewer = {case: dice for case, dice in many(0.1).items() if case[0] != "a"}
    scores = [write_scores(tmp_path / "all", many(0.0)), write_scores(tmp_path / "fewer", fewer)]
    found = report(scores, tmp_path / "r.html")
    assert any("fewer was not scored on 2 of the cases" in notice for notice in found.notices)
    assert read_csv(found.tables, "dice_by_model_and_group")[0]["cases"] == "22"
    assert found.cases == 24


def test_charts_of_some_models_only_are_said_to_be(tmp_path):
    few = {case: dice for case, dice in many(0.0).items() if case[0] in "ab"}
    scores = [write_scores(tmp_path / f"model{number}", few) for number in range(7)]
    found = report(scores, tmp_path / "r.html")
    assert any("distributions show the first 6 of 7 models" in notice for notice in found.notices)
    assert any("agreement plots show the first 4 of 7 models" in notice for notice in found.notices)


def test_models_without_a_case_in_common_stand_one_after_the_other(tmp_path):
    first = {case: dice for case, dice in many(0.1).items() if case[0] in "abcdef"}
    second = {case: dice for case, dice in many(0.0).items() if case not in first}
    scores = [write_scores(tmp_path / "one", first), write_scores(tmp_path / "two", second)]
    found = report(scores, tmp_path / "r.html")
    assert any("different cases" in notice for notice in found.notices)
    assert "<strong>" not in found.path.read_text()
    one, two = (read_csv(found.tables, f"{name}_by_group")[0] for name in ("one", "two"))
    assert one["Dice"] != two["Dice"] and "–" not in (one["Dice"], two["Dice"])
    assert (one["cases"], two["cases"]) == ("12", "12")


def test_without_images_the_report_says_so_in_one_line(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "moved")
    for image in (tmp_path / "moved" / "raw").glob("*_0000.nii.gz"):
        image.unlink()
    found = report([tmp_path / "moved" / "good" / "scores"], tmp_path / "r.html")
    assert (found.cases, found.pictured) == (6, 0)
    assert [n for n in found.notices if n.startswith("6 cases without pictures: the image is not there")]
    assert 'id="viewer"' not in found.path.read_text()
    images = tmp_path / "elsewhere"
    shutil.copytree(cohort / "raw", images)
    sources = json.loads((tmp_path / "moved" / "good" / "scores" / "sources.json").read_text())["cases"]
    cases = {}
    for name, source in sources.items():
        image = images / Path(source["images"][0]).name
        seen = {"images": [f"../../../elsewhere/{image.name}"], "inputs": {image.name: sha256(image)}}
        cases[name] = {**seen, "frame": None, "frames": 1, "files": {}}
    same = {"labels": {"LV": 1}, "channel_names": ["c"], "versions": {}, "device": "cpu", "cases": cases}
    content = {"models": [], "test_time_augmentation": {}, **same}
    (tmp_path / "moved" / "good" / "masks" / "prediction.json").write_text(json.dumps(content))
    (images / "0_0000.nii.gz").write_bytes(b"another")
    assert report([tmp_path / "moved" / "good" / "scores"], tmp_path / "r.html").pictured == 5


def test_a_prediction_that_changed_since_is_not_shown(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "moved")
    masks = tmp_path / "moved" / "good" / "masks"
    shutil.copy(tmp_path / "moved" / "poor" / "masks" / "a_ED.nii.gz", masks / "a_ED.nii.gz")
    (masks / "c_ES.nii.gz").unlink()
    found = report([tmp_path / "moved" / "good" / "scores"], tmp_path / "r.html")
    assert found.pictured == 4
    assert any("1 case without pictures: the prediction has changed" in notice for notice in found.notices)
    assert any("1 case without pictures: the prediction is not where" in notice for notice in found.notices)


def test_a_damaged_image_costs_its_picture_only(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "moved")
    image = tmp_path / "moved" / "raw" / "0_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:-20])
    found = report([tmp_path / "moved" / "good" / "scores"], tmp_path / "r.html")
    assert found.pictured == 5 and any("0_0000.nii.gz" in notice for notice in found.notices)


def test_no_pictures_on_request(cohort, tmp_path):
    found = report([cohort / "good" / "scores"], tmp_path / "r.html", pictures=False)
    page = Elements(found.path.read_text())
    assert found.pictured == 0 and not page.data
    assert not {"image", "dialog"} & {tag for tag, _ in page.elements}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("case,dice\n", "not a metrics.csv: no column label_name, status, subject"),
        ("case,subject,label_name,dice,status\n", "no case is in it"),
        ("case,subject,label_name,dice,status\na,a,LV,high,ok\n", "line 2"),
    ],
)
def test_a_wrong_metrics_file_is_refused_in_one_line(tmp_path, content, expected):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "metrics.csv").write_text(content)
    with pytest.raises(CaseErrors) as caught:
        report([tmp_path / "scores"], tmp_path / "r.html")
    assert len(caught.value.lines()) == 1 and expected in caught.value.lines()[0]
    assert not (tmp_path / "r.html").exists()


def test_every_wrong_path_has_its_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(CaseErrors) as caught:
        report([tmp_path / "none", tmp_path / "empty", tmp_path / "file"], tmp_path / "r.html")
    assert ["not found" in caught.value.lines()[0], "nothing to report" in caught.value.lines()[1]] == [
        True,
        True,
    ]
    assert "not a folder" in caught.value.lines()[2]


def test_other_labels_are_not_compared(tmp_path):
    one = write_scores(tmp_path / "one", {"a_ED": {"LV": 0.9}, "b_ED": {"LV": 0.8}})
    two = write_scores(tmp_path / "two", {"a_ED": {"RV": 0.9}, "b_ED": {"RV": 0.8}})
    with pytest.raises(InputError, match=r"two: scored on the labels RV, one on LV; report them one by one"):
        report([one, two], tmp_path / "r.html")


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_an_output_that_is_no_html_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"expected a file to write whose name ends in \.html"):
        report([tmp_path], tmp_path / name)


def test_tables_that_cannot_be_written_are_found_out_before_the_work(tmp_path):
    (tmp_path / "r_tables").touch()
    with pytest.raises(InputError, match="r_tables: not writable"):
        report([tmp_path], tmp_path / "r.html")


def stacks(page):
    return [value for key, value in page.data.items() if key.startswith("stack-")]


@pytest.mark.parametrize(
    ("cells", "texts"),
    [(["m", "LV", "0.9", "x"], 2), (["m", "–", "LV"], 1), (["m", "all", ""], 2), (["2", "<0.001"], 1)],
)
def test_columns_are_text_up_to_the_first_of_numbers(cells, texts):
    from utseg.evaluate.tables import Table
    from utseg.report.page import TableBlock

    heads = [str(number) for number in range(len(cells))]
    assert TableBlock(Table("", heads, [cells, ["a", *cells[1:]]])).texts == texts
    assert TableBlock(Table("", heads, [])).texts >= 1


def read_csv(folder: Path, name: str) -> list[dict[str, str]]:
    path = min(folder.glob(f"*_{name}*.csv"), key=lambda path: len(path.name))
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ["worst"]), (2, ["best", "worst"]), (5, ["best", "median", "worst"])]
)
def test_figures_are_chosen_by_their_place_in_the_order(tmp_path, count, expected):
    from utseg.report.cases import choose_figures, show_cases

    write_scores(tmp_path / "s", {f"{n}_ED": {"LV": 0.1 * n} for n in range(count)})
    entries = find_entries([tmp_path / "s"], Home.locate(tmp_path))
    cases = show_cases(entries, ())
    chosen = choose_figures(cases, "", cases.order)
    assert [figure.why.split()[0] for figure in chosen] == expected
    assert [int(figure.case_id[0]) for figure in chosen] == sorted(
        {count - 1, (count - 1) // 2 if count > 2 else 0, 0}
    )[::-1]
