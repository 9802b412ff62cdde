"""The report's statistics: equal to recomputation by hand, a known loss is found, none is a tie, pairs are of subjects."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_study import MadeStudy, write_study_folder

from utseg.errors import CaseErrors
from utseg.evaluate.compare import TIE, TOO_FEW
from utseg.evaluate.subjects import subject_means
from utseg.report.study.differences import ablation_finding, chance_finding, learning_finding
from utseg.study.findings.data import read_study_data
from utseg.study.findings.difference import correct, exchange_p, paired, unpaired
from utseg.study.findings.images import clouds, distances, read_image_table, spearman, spearman_interval
from utseg.study.findings.matrix import matrices
from utseg.study.findings.runs import check_subjects
from utseg.study.findings.unseen import LOSS, ON_ALL, ON_UNSEEN, losses, model_pairs
from utseg.study.findings.variants import ablations, learning_curve, pooled_sd, seed_spreads
from utseg.study.record import read_study, write_study

LABELS = ("LV", "MYO", "RV")


def made(folder, **settings):
    images = settings.pop("images", False)
    return read_study_data(write_study_folder(folder, MadeStudy(**settings), images=images))


def rows_of(data):
    with (data.folder / "cases.csv").open(newline="") as handle:
        return [row | {"dice": float(row["dice"] or "nan")} for row in csv.DictReader(handle)]


@pytest.fixture(scope="module")
def vendors(tmp_path_factory):
    """UTNet loses .06 on unseen vendors, UNet .02; one structure is in neither reference nor prediction."""
    folder = tmp_path_factory.mktemp("vendors")
    networks, neither = {"UTNet": 0.06, "UNet": 0.02}, frozenset({("A01", "ED", "RV")})
    return made(folder, networks=networks, neither=neither, harder={"D": 0.05}, images=True)


def mean_over_labels(rows):
    """By (case): the mean of the defined labels, by hand."""
    found = {}
    for row in rows:
        if not math.isnan(row["dice"]):
            found.setdefault(row["case"], []).append(row["dice"])
    return {case: sum(own) / len(own) for case, own in found.items()}


def mean_over_subjects(by_case):
    """Of values by case, called SUBJECT_PHASE: the mean over subjects of the mean over their cases, by hand."""
    subjects = {}
    for case, value in by_case.items():
        subjects.setdefault(case.partition("_")[0], []).append(value)
    return sum(sum(own) / len(own) for own in subjects.values()) / len(subjects)


def test_the_matrix_equals_recomputation_by_hand(vendors):
    rows = rows_of(vendors)
    by_label = {matrix.label: matrix for matrix in matrices(vendors) if matrix.metric == "dice"}
    assert list(by_label) == ["mean", *LABELS]
    for label, matrix in by_label.items():
        assert list(matrix.columns) == [*(f"vendor={v}" for v in "ABCD"), "all unseen", "all seen", "all"]
        for line in matrix.rows:
            for column, cell in zip(matrix.columns, line.cells, strict=True):
                own = [
                    row
                    for row in rows
                    if (row["network"], row["trained_on"]) == (line.model, line.trained_on)
                    and column in ("all", f"all {row['seen']}", row["tested_on"])
                ]
                values = mean_over_labels([r for r in own if label in ("mean", r["label_name"])])
                assert cell.mean == pytest.approx(mean_over_subjects(values), abs=1e-6)
                assert cell.cases == len(values)
                assert cell.subjects == len({row["subject"] for row in own})
                empty = sum(r["status"] == "both_empty" for r in own if label in ("mean", r["label_name"]))
                assert cell.empties == (0, 0, empty)
                if column.startswith("vendor"):
                    assert (cell.seen == "seen") is (column[-1] in line.trained_on.removeprefix("vendor="))


def test_a_known_loss_is_found_and_pairs_are_of_the_same_subjects(vendors):
    found = {(one.model, one.never, one.difference.label): one.difference for one in losses(vendors)}
    for model, loss in (("UTNet", 0.06), ("UNet", 0.02)):
        for label in ("mean", *LABELS):
            own = found[model, False, label]
            assert own.difference == pytest.approx(loss, abs=0.006)
            assert own.interval95[0] < loss + 0.004 and own.interval95[1] > loss - 0.004
            assert own.subjects == (16,) and own.verdict("loses", "gains") == "loses"
        never = found[model, True, "mean"]
        assert not never.paired and never.subjects == (16, 16)
        assert never.difference == pytest.approx(loss + 0.025, abs=0.03)  # half of these scans are harder
    assert len(found) == 2 * 2 * 4


def test_the_loss_equals_recomputation_by_hand(vendors):
    rows = [row for row in rows_of(vendors) if row["network"] == "UTNet"]
    by_run = {run: mean_over_labels([r for r in rows if r["run"] == run]) for run in {r["run"] for r in rows}}
    differences = []
    for subject in [f"{vendor}{number:02d}" for vendor in "AB" for number in range(8)]:
        own = []
        for phase in ("ED", "ES"):
            case = f"{subject}_{phase}"
            seen = {row["run"]: row["seen"] for row in rows if row["case"] == case}
            sides = [[by_run[run][case] for run in seen if seen[run] == side] for side in ("seen", "unseen")]
            own.append(np.mean(sides[0]) - np.mean(sides[1]))
        differences.append(np.mean(own))
    loss = next(one for one in losses(vendors) if one.model == "UTNet" and not one.never)
    assert loss.difference.label == "mean" and loss.difference.difference == pytest.approx(
        np.mean(differences), abs=1e-6
    )


def test_distances_lose_where_they_grow(vendors):
    found = [one.difference for one in losses(vendors, "hd95_mm")]
    assert found and all(one.difference > 0 and one.verdict("loses", "gains") == "loses" for one in found)


def test_the_model_that_loses_less_is_found_and_the_same_is_a_tie(vendors, tmp_path):
    pairs = model_pairs(vendors)
    verdicts = {pair.what: pair.verdict for pair in pairs}
    assert verdicts == {ON_UNSEEN: "UNet better", LOSS: "UNet loses less"}
    assert next(p for p in pairs if p.what == LOSS).difference.difference == pytest.approx(0.04, abs=0.006)
    pairs = model_pairs(vendors, "hd95_mm")
    assert {pair.verdict for pair in pairs} == {"UNet better", "UNet loses less"}
    pairs = model_pairs(made(tmp_path, networks={"UTNet": 0.05, "UNet": 0.05}, noise=0.02))
    assert {pair.verdict for pair in pairs} == {TIE}


def test_no_loss_is_a_tie(tmp_path):
    data = made(tmp_path, networks={"UTNet": 0.0}, noise=0.03)
    assert {one.difference.verdict("loses", "gains") for one in losses(data) if not one.never} == {TIE}


def test_few_subjects_are_said_to_be_few(tmp_path):
    found = losses(made(tmp_path, networks={"UTNet": 0.1}, per_vendor=2))
    paired_ones = [one.difference for one in found if not one.never]
    assert paired_ones and all(loss.verdict("loses", "gains") == TOO_FEW for loss in paired_ones)


def test_vendors_never_seen_only_are_compared_unpaired(tmp_path):
    data = made(tmp_path, sets={"all": "A"}, vendors="AB", networks={"UTNet": 0.1}, spread=0.01)
    found = losses(data)
    assert {(one.never, one.difference.paired) for one in found} == {(True, False)}
    mean = found[0].difference
    assert mean.label == "mean" and mean.difference == pytest.approx(0.1, abs=0.02) and mean.p < 0.01


def test_models_that_saw_nothing_that_was_tested_are_compared_on_the_unseen_only(tmp_path):
    data = made(tmp_path, sets={"all": "Z"}, vendors="AB", networks={"UTNet": 0.1, "UNet": 0.05})
    assert losses(data) == []
    pairs = model_pairs(data)
    assert [(pair.what, pair.verdict) for pair in pairs] == [(ON_UNSEEN, "UNet better")]


def test_without_a_column_there_is_no_loss_and_all_cases_are_compared(tmp_path):
    data = made(tmp_path, by="", ahead={"UTNet": 0.03})
    assert losses(data) == []
    pairs = model_pairs(data)
    assert [(pair.what, pair.verdict) for pair in pairs] == [(ON_ALL, "UTNet better")]


def test_a_failed_run_leaves_its_counterpart_out_of_the_comparison(tmp_path):
    whole = made(tmp_path / "whole")
    less = made(tmp_path / "less", failed=("UNet · vendor=B · seed 0",))
    assert len(less.runs) == 5
    one = next(pair for pair in model_pairs(less) if pair.what == ON_UNSEEN).difference
    runs = [[run for run in less.runs_of(name) if run.trained_on != "vendor=B"] for name in ("UTNet", "UNet")]
    both = [less.side(own, saw=False) for own in runs]
    by_hand = paired(less, *both)
    assert one.difference == by_hand.difference and one.subjects == by_hand.subjects == (24,)
    assert {run.trained_on for run in less.shared_runs} == {"vendor=A", "vendor=A,B"}
    assert len(whole.shared_runs) == 6


def test_a_structure_undefined_in_one_run_is_left_out_in_all(vendors):
    side = vendors.side(vendors.runs_of("UTNet"))
    case = next(place for place, own in enumerate(vendors.cases) if own.case == "A01_ED")
    found = vendors.averaged([side])
    of_runs = [place for place, run in enumerate(vendors.runs) if run.network == "UTNet"]
    labels = [vendors.values["dice"][of_runs, case, place].mean() for place in (0, 1)]
    assert found.values[0, case] == pytest.approx(np.mean(labels))
    assert np.isnan(vendors.averaged([side], "dice", "RV").values[0, case])


def test_a_structure_undefined_in_one_of_several_runs_counts_in_none(tmp_path):
    data = made(tmp_path, networks={"UTNet": 0.05})
    case = next(place for place, own in enumerate(data.cases) if own.case == "B02_ES")
    data.values["dice"][0, case, data.labels.index("MYO")] = np.nan
    values = data.values["dice"][:, case]
    kept = [data.labels.index(name) for name in ("LV", "RV")]
    assert data.averaged([data.side()]).values[0, case] == pytest.approx(values[:, kept].mean())
    sides = [data.side(data.runs[:1]), data.side(data.runs[1:])]
    both = data.averaged(sides)
    assert both.values[:, case] == pytest.approx([values[:1, kept].mean(), values[1:, kept].mean()])
    assert np.isnan(data.averaged(sides, "dice", "MYO").values[:, case]).all()


def test_holm_counts_every_row(vendors):
    found = [one.difference for one in losses(vendors)]
    raw = sorted(one.p for one in found)
    assert min(one.p_holm for one in found) == pytest.approx(min(1, raw[0] * len(raw)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.lists(st.floats(-1, 1), min_size=2, max_size=12)
)
def test_exchanging_sides_changes_nothing_but_the_sign(a, b):
    one, other = exchange_p(np.array(a), np.array(b)), exchange_p(np.array(b), np.array(a))
    assert 0 < one <= 1 and one == pytest.approx(other, abs=0.03)


def test_subject_means_weigh_subjects_alike():
    values = np.array([0.2, 0.4, 0.9, np.nan])
    assert subject_means(values, np.array(["a", "a", "b", "c"])).tolist() == pytest.approx([0.3, 0.9])


def test_unpaired_without_subjects_says_nothing(vendors):
    nobody = np.zeros_like(vendors.tested)
    found = unpaired(vendors, vendors.side(), nobody)
    correct([found])
    assert found.difference is None and found.p_holm is None


VARIANTS = (
    {
        "part": "reduced size",
        "name": "4",
        "settings": {"network.reduce_size": 4},
        "gain": 0.02,
        "parameters": 3e6,
    },
    {"part": "reduced size", "name": "8"},
    {"part": "reduced size", "name": "16", "settings": {"network.reduce_size": 16}},
    {"part": "augmentation", "name": "all kinds"},
    {"part": "augmentation", "name": "none", "settings": {"augmentation": 0}, "gain": -0.03},
)


def test_variants_are_compared_with_the_default_of_their_part(tmp_path):
    data = made(tmp_path, networks={"UTNet": 0.0}, sets={"all": "ABCD"}, variants=VARIANTS, noise=0.015)
    assert len(data.runs) == 4  # the default is one run in two parts
    first, second = (ablation_finding(data, one) for one in ablations(data))
    cells = {row[0]: dict(zip(first.table.columns, row, strict=True)) for row in first.table.rows}
    assert cells["8"]["difference"] == "reference" and cells["4"]["parameters M"] == "3.00"
    assert (cells["4"]["verdict"], cells["16"]["verdict"]) == ("better", "tie")
    assert "“4” is 0.0" in first.sentences[0] and "“16”: tie, 0.0" in first.sentences[0]
    rows = {row[0]: row for row in second.table.rows}
    assert set(rows) == {"all kinds", "none"} and "reference" in rows["all kinds"] and "worse" in rows["none"]


def test_the_spread_over_seeds_is_found(tmp_path):
    data = made(
        tmp_path,
        networks={"UTNet": 0.0},
        sets={"all": "ABCD"},
        seeds=tuple(range(8)),
        seed_sd=0.02,
        noise=0.001,
    )
    found = chance_finding(seed_spreads(data))
    sd = float(found.table.rows[0][found.table.columns.index("sd over seeds")])
    assert 0.009 < sd < 0.04 and f"{sd:.4f}" in found.sentences[0]
    assert f"{pooled_sd(seed_spreads(data))[0]:.4f}" in found.sentences[0]
    assert not seed_spreads(made(tmp_path / "one"))


def test_the_learning_curve_counts_who_trains_and_who_validates(tmp_path):
    sets = {"all · 8 subjects": "A", "all · 16 subjects": "AB", "all": "ABCD"}
    sizes = {"all · 8 subjects": 6, "all · 16 subjects": 14, "all": 38}
    data = made(tmp_path, networks={"UTNet": 0.05}, sets=sets, sizes=sizes)
    found = learning_finding(data, learning_curve(data))
    assert [row[2] for row in found.table.rows] == ["8", "16", "40"]
    assert [row[-1] for row in found.table.rows] == ["more is better", "more is better", "all of them"]
    assert not learning_curve(made(tmp_path / "none"))


def test_a_planted_overlap_is_refused(tmp_path):
    folder = write_study_folder(tmp_path, MadeStudy())
    record = read_study(folder)
    run = record.runs[0]
    subjects = run.subjects.model_copy(update={"training": (*run.subjects.training, "A03")})
    runs = (run.model_copy(update={"subjects": subjects}), *record.runs[1:])
    write_study(record.model_copy(update={"runs": runs}), folder)
    with pytest.raises(CaseErrors, match="A03 is in two of training, validation and testing"):
        check_subjects(read_study_data(folder))
    subjects = run.subjects.model_copy(update={"testing": {"MnM": ("A00",)}})
    runs = (run.model_copy(update={"subjects": subjects}), *record.runs[1:])
    write_study(record.model_copy(update={"runs": runs}), folder)
    with pytest.raises(CaseErrors, match="does not name this subject for testing") as caught:
        check_subjects(read_study_data(folder))
    assert len(caught.value.lines()) == 1


def test_dice_falls_with_the_distance_that_matters(vendors):
    images = read_image_table(vendors.folder)
    found = {cloud.model: cloud for cloud in clouds(vendors, images)}
    cloud = found["UTNet"]
    assert len(cloud.points) == 3 * 32  # training sets times subjects
    assert spearman(*cloud.of_kind("contrast")[:2]) < -0.5
    low, high = spearman_interval(*cloud.of_kind("texture"))
    assert low < 0 < high


def test_the_distance_is_what_the_page_says(vendors):
    images = read_image_table(vendors.folder)
    run = next(run for run in vendors.runs if run.trained_on == "vendor=A")
    found = distances(images, run)
    trained = [f"{run.dataset}/{subject}" in images.subjects and subject for subject in run.subjects.training]
    own = np.isin(images.subjects, [f"{run.dataset}/{subject}" for subject in trained])
    x = images.values[:, images.features.index("contrast_LV_MYO")]
    s = np.sqrt((x[own].var() + x.var()) / 2)
    assert found["contrast"] == pytest.approx(np.abs(x - x[own].mean()) / s)
    kinds = [found[kind] for kind in ("spacing", "intensity", "contrast", "texture")]
    assert set(found) == {
        "spacing",
        "intensity",
        "contrast",
        "texture",
        "all kinds",
    }  # raw intensities are left out
    assert found["all kinds"] == pytest.approx(np.sqrt(np.mean(np.square(kinds), axis=0)))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=6, max_size=20))
def test_rank_correlation_and_its_interval_equal_those_of_drawn_points(points):
    from scipy.stats import spearmanr

    from utseg.evaluate.subjects import SEED, times_drawn

    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    subjects = np.array([f"{place // 2:02d}" for place in range(len(x))])
    _, owner = np.unique(subjects, return_inverse=True)
    drawn = []
    for times in times_drawn(int(owner.max()) + 1, SEED)[:60]:
        members = np.repeat(np.arange(len(x)), times[owner].astype(int))
        drawn.append(spearman(x[members], y[members]))
    bounds = spearman_interval(x, y, subjects)
    assert bounds is not None
    defined = [value for value in drawn if not np.isnan(value)]
    assert np.percentile(defined, 10) >= bounds[0] - 0.2 and np.percentile(defined, 90) <= bounds[1] + 0.2
