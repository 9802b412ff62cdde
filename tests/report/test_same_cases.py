"""Models are compared over the same cases: misses flatter nobody, tables of means agree with tables of differences, ties are ties."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import write_hearts
from made_study import MadeStudy, write_study_folder

from utseg.commands.report import main
from utseg.evaluate.compare import LEAST_SUBJECTS, compare_models
from utseg.evaluate.records import to_csv
from utseg.evaluate.summary import summarise
from utseg.files import write_text

NAN = math.nan
MISSED, EXTRA, NEITHER, OK = "prediction_empty", "reference_empty", "both_empty", "ok"


def hearts(count, score, phases=("ED", "ES")):
    """Scores of so many subjects: `score` says (Dice, HD95, status) by subject's number and phase."""
    return {(f"s{n:02d}", phase): score(n, phase) for n in range(count) for phase in phases}


def len_of(path):
    return len(path.name)


def report(tmp_path, **models):
    """The tables of means and pairs that the command writes, as rows."""
    paths = [write_hearts(tmp_path / name, scores) for name, scores in models.items()]
    assert main([*map(str, paths), "-o", str(tmp_path / "r.html"), "--quiet"]) in (0, None)
    return {
        name: list(
            csv.DictReader(min((tmp_path / "r_tables").glob(f"[0-9][0-9]_{name}*.csv"), key=len_of).open())
        )
        for name in ("hd95_mm_by_model_and_group", "dice_by_model_and_group", "pairs_of_models", "all_cases")
    }


def row_of(rows, **wanted):
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def noise(n, phase, model=0):
    return float(np.random.default_rng([n, phase == "ES", model]).normal(0, 0.2))


def test_who_misses_half_is_not_starred_for_the_other_half(tmp_path):
    """A is nearer where it finds the structure at all; B finds it everywhere."""
    misses = hearts(20, lambda n, p: (0.0, NAN, MISSED) if n % 2 else (0.95, 3 + noise(n, p), OK))
    finds = hearts(20, lambda n, p: (0.9, (9 if n % 2 else 5) + noise(n, p, 1), OK))
    tables = report(tmp_path, misses=misses, finds=finds)
    means = tables["hd95_mm_by_model_and_group"][0]
    pair = row_of(tables["pairs_of_models"], metric="HD95 mm")
    assert (means["subjects"], means["cases"]) == ("10", "20")  # where both have a distance
    assert "40 cases of 20 subjects" in (tmp_path / "r.html").read_text()
    assert means["finds"].startswith(("4.9", "5.0", "5.1"))  # not the 7 of all its cases
    assert (means["misses: empties"], means["finds: empties"]) == ("20/0/0", "0/0/0")
    assert "†" not in means["misses"] + means["finds"] + pair["A − B"]
    assert (pair["better"], pair["wrong A/B"], pair["subjects tested"]) == ("tie", "20/0", "20")
    # The more it misses, the clearer is the test; the mean over the rest still says the opposite, so nobody is starred.
    most = hearts(20, lambda n, p: (0.0, NAN, MISSED) if n % 3 else (0.95, 3 + noise(n, p), OK))
    tables = report(tmp_path / "most", misses=most, finds=finds)
    pair = row_of(tables["pairs_of_models"], metric="HD95 mm")
    assert pair["better"] == "misses and mean disagree" and float(pair["p (Holm)"]) < 0.05
    assert "†" not in "".join(tables["hd95_mm_by_model_and_group"][0].values()) + pair["A − B"]
    # With all else alike, who misses is worse.
    alike = hearts(20, lambda n, p: (0.0, NAN, MISSED) if n % 2 else (0.9, 5.2 + noise(n, p), OK))
    tables = report(tmp_path / "alike", misses=alike, finds=finds)
    pair = row_of(tables["pairs_of_models"], metric="HD95 mm")
    assert pair["better"] == "finds" and float(pair["rank-biserial"]) > 0.5
    assert tables["hd95_mm_by_model_and_group"][0]["finds"].endswith("†")


def test_distances_of_different_definitions_are_not_compared(tmp_path):
    near = write_hearts(tmp_path / "near", hearts(8, lambda n, p: (0.9, 5 + noise(n, p), OK)))
    far = write_hearts(tmp_path / "far", hearts(8, lambda n, p: (0.9, 9 + noise(n, p, 1), OK)))
    for alike in (True, False):
        for folder, surface in ((near, "voxels"), (far, "voxels" if alike else "area")):
            definitions = {"surface": surface, "percentile": "pooled", "tolerance_mm": 2.0}
            write_text(folder / "summary.json", json.dumps({"definitions": definitions}))
        page = tmp_path / f"{alike}.html"
        assert main([str(near), str(far), "-o", str(page), "--quiet"]) in (0, None)
        names = [path.name for path in (tmp_path / f"{alike}_tables").iterdir()]
        assert any("dice_by_model" in name for name in names)
        assert any("hd95_mm_by_model" in name for name in names) is alike
        assert ("scored by different definitions" in page.read_text()) is not alike


def test_no_clinical_measures_of_references_that_are_ignored_in_part(tmp_path):
    for partly in (False, True):
        folder = write_hearts(tmp_path / f"{partly}", hearts(3, lambda n, p: (0.9, 5.0, OK)))
        labels = {"background": 0, "LV": 1} | ({"ignore": 2} if partly else {})
        sources = {"labels": {"LV": 1}, "reference_labels": labels, "mask_labels": labels, "cases": {}}
        write_text(folder / "sources.json", json.dumps(sources))
        assert main([str(folder), "-o", str(tmp_path / f"{partly}.html"), "--quiet"]) in (0, None)
        names = [path.name for path in (tmp_path / f"{partly}_tables").iterdir()]
        assert any("clinical" in name for name in names) is not partly


def test_a_false_structure_counts_against_who_painted_it(tmp_path):
    """Ten hearts have no such structure: one model leaves them empty, the other paints it; elsewhere they are nearly the same."""
    paints = hearts(20, lambda n, p: (0.0, NAN, EXTRA) if n % 2 else (0.91, 4.9, OK))
    leaves = hearts(20, lambda n, p: (NAN, NAN, NEITHER) if n % 2 else (0.9, 5.0, OK))
    tables = report(tmp_path, paints=paints, leaves=leaves)
    for metric in ("Dice", "HD95 mm"):
        pair = row_of(tables["pairs_of_models"], metric=metric)
        assert pair["wrong A/B"] == "20/0" and pair["better"] != "paints" and "†" not in pair["A − B"]
    assert "†" not in "".join(tables["dice_by_model_and_group"][0].values())


def test_the_star_follows_the_paired_difference_and_not_the_means_of_other_cases(tmp_path):
    """`few` was scored on the easy subjects only: its own mean is higher, and it is worse on each of them."""
    easy = lambda n: 0.95 if n < 10 else 0.5  # noqa: E731
    every = hearts(20, lambda n, p: (easy(n) + noise(n, p) / 100, 5.0, OK))
    few = hearts(10, lambda n, p: (easy(n) - 0.05 + noise(n, p, 1) / 100, 5.0, OK))
    tables = report(tmp_path, every=every, few=few)
    means = tables["dice_by_model_and_group"][0]
    assert means["every"].startswith("0.95") and means["every"].endswith("†") and "†" not in means["few"]
    assert row_of(tables["pairs_of_models"], metric="Dice")["better"] == "every"


@pytest.mark.parametrize(("subjects", "better"), [(5, "too few subjects to tell"), (6, "good")])
def test_below_six_subjects_nobody_is_better(tmp_path, subjects, better):
    good, poor = (hearts(subjects, lambda n, p, dice=dice: (dice + n / 1000, 5.0, OK)) for dice in (0.9, 0.8))
    tables = report(tmp_path, good=good, poor=poor)
    starred = tables["dice_by_model_and_group"][0]["good"].endswith("†")
    assert row_of(tables["pairs_of_models"], metric="Dice")["better"] == better
    assert starred is (subjects >= LEAST_SUBJECTS)


def test_a_missed_structure_is_among_the_worst_cases(tmp_path):
    scores = hearts(8, lambda n, p: (0.3 + n / 100, 30.0, OK))
    scores["s07", "ES"] = (0.0, NAN, MISSED)
    other = hearts(8, lambda n, p: (0.9, 3.0, OK))
    assert report(tmp_path, one=scores, two=other)["all_cases"][0]["case"] == "s07_ES"


def test_numbers_that_differ_look_different(tmp_path):
    near, nearer = (hearts(8, lambda n, p, dice=dice: (dice, 5.0, OK)) for dice in (0.99996, 0.99997))
    tables = report(tmp_path, near=near, nearer=nearer)
    means = tables["dice_by_model_and_group"][0]
    assert means["near"].startswith("0.99996 (0.99996–") and means["nearer"].startswith("0.99997")
    pair = row_of(tables["pairs_of_models"], metric="Dice")
    assert pair["A − B"].startswith("-0.00001") and (pair["mean A"], pair["mean B"]) == ("0.99996", "0.99997")


def test_study_tables_of_means_agree_with_their_differences_and_misses_rank_last(tmp_path):
    """UTNet misses LV where the scan is of vendor C and is nearer everywhere else; parts of one study through the command."""
    folder = write_study_folder(tmp_path / "study", MadeStudy(networks={"UTNet": 0.02, "UNet": 0.05}))
    with (folder / "cases.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        if (row["network"], row["vendor"], row["label_name"]) == ("UTNet", "C", "LV"):
            row |= {"dice": "0", "hd95_mm": "", "assd_mm": "", "status": MISSED}
    write_text(folder / "cases.csv", to_csv(rows, list(rows[0])))
    assert main([str(folder), "-o", str(tmp_path / "r.html"), "--no-pictures", "--quiet"]) == 0
    tables = {
        name: list(csv.DictReader((next(iter((tmp_path / "r_tables").glob(f"*_{name}.csv")))).open()))
        for name in ("models_compared_hd95", "models_compared_dice", "loss_of_hd95_on_unseen_vendors")
    }
    number = lambda text: float(text.split(" ")[0].replace("−", "-"))  # noqa: E731
    compared = tables["models_compared_hd95"] + tables["models_compared_dice"]
    for row in compared:
        assert number(row["mean A"]) - number(row["mean B"]) == pytest.approx(number(row["A − B"]), abs=0.011)
    for row in tables["loss_of_hd95_on_unseen_vendors"]:
        assert number(row["unseen"]) - number(row["seen"]) == pytest.approx(number(row["loss"]), abs=0.011)
    unseen = row_of(tables["models_compared_hd95"], what="score on unseen vendors")
    assert (
        number(unseen["A − B"]) < 0 and unseen["verdict"] == "tie"
    )  # nearer where it finds the structure, and misses 8 of 32


STATUS = st.sampled_from([OK] * 6 + [MISSED, EXTRA, NEITHER])


@st.composite
def three_models(draw):
    """Rows of three models over the same cases: unequal numbers of cases, two labels, misses, false structures, empty ones."""
    cases = [(s, c) for s in range(draw(st.integers(1, 8))) for c in range(draw(st.integers(1, 3)))]
    models = {}
    for model in "abc":
        models[model] = [
            {"case": f"{s}_{c}", "subject": f"s{s}", "label_name": label, "status": status}
            | {"dice": draw(dice) if status == OK else NAN if status == NEITHER else 0.0}
            | {"hd95_mm": draw(hd95) if status == OK else NAN}
            for s, c in cases
            for label in ("LV", "RV")
            for status in [draw(STATUS)]
        ]
    return models


dice, hd95 = st.floats(0, 1), st.integers(0, 100).map(float)


@settings(max_examples=20, deadline=None)
@given(three_models(), st.sampled_from(["dice", "hd95_mm"]))
def test_the_difference_of_two_means_is_the_mean_difference(models, metric):
    labels = compare_models(models, metric=metric)["all"]["labels"]
    for label in labels.values():
        means = {name: found["mean"] for name, found in label["models"].items()}
        ns = {(found["n"], found["cases"]) for found in label["models"].values() if found["n"]}
        assert len(ns) <= 1  # the same cases for all
        for pair in label["pairs"]:
            a, b = means[pair["a"]], means[pair["b"]]
            if pair["difference"] is not None:
                assert a - b == pytest.approx(pair["difference"], abs=1e-9) and pair["means"] == [a, b]
            if pair["significant"]:
                ahead = a > b if metric == "dice" else a < b
                assert pair["better"] == (pair["a"] if ahead else pair["b"]) and ns.pop()[0] >= LEAST_SUBJECTS


@settings(max_examples=15, deadline=None)
@given(three_models())
def test_a_summary_is_over_subjects(models):
    rows = [row | {"difference_ml": 0.0} for row in models["a"]]
    for name, label in summarise(rows, ())["all"]["labels"].items():
        of_subject = {}
        for row in rows:
            if row["label_name"] == name and not math.isnan(row["dice"]):
                of_subject.setdefault(row["subject"], []).append(row["dice"])
        means = [sum(own) / len(own) for own in of_subject.values()]
        assert label["dice"]["n"] == len(means)
        if means:
            assert label["dice"]["mean"] == pytest.approx(sum(means) / len(means))
            assert label["dice"]["median"] == pytest.approx(float(np.median(means)))


@settings(max_examples=15, deadline=None)
@given(three_models())
def test_a_miss_in_the_place_of_a_score_makes_no_distance_better(models):
    """Turning one of a's found structures into a miss moves no test in its favour."""
    found = [place for place, row in enumerate(models["a"]) if row["status"] == OK]
    if not found:
        return
    worse = [dict(row) for row in models["a"]]
    worse[found[0]] |= {"status": MISSED, "hd95_mm": NAN, "dice": 0.0}
    name = worse[found[0]]["label_name"]
    before, after = (
        compare_models({"a": rows, "b": models["b"]}, metric="hd95_mm")["all"]["labels"][name]["pairs"][0]
        for rows in (models["a"], worse)
    )
    if before["rank_biserial"] is not None and after["rank_biserial"] is not None:
        assert after["rank_biserial"] >= before["rank_biserial"] - 1e-9  # of a − b: more is worse for a
