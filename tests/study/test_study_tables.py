"""cases.csv and results.csv against a recomputation from metrics.csv, by csv and sums alone."""

import csv
import math
import random
from collections import defaultdict
from types import MappingProxyType

import numpy as np
import pytest

from utseg.case import Case
from utseg.evaluate.records import METRIC_KEYS, METRICS_FILE, case_columns, to_csv
from utseg.evaluate.subjects import bootstrap_interval
from utseg.study.jobs import test_folder as folder_of_test
from utseg.study.record import RESULTS_COLUMNS, StudyRun, Subjects
from utseg.study.tables import Tables

LABELS = ("LV", "MYO")
NO_CASES = MappingProxyType({})


def made_run(folder, name="UTNet · vendor=A · seed 0", testing=("MnM",), seen=("A",)):
    subjects = Subjects(training=("t",), validation=("v",), testing=dict.fromkeys(testing, ("x",)))
    return StudyRun(
        run=name,
        id="0" * 12,
        folder=str(folder),
        network="UTNet",
        plan="auto",
        seed=0,
        fold=0,
        dataset="MnM",
        trained_on="vendor=A",
        variant="",
        part="",
        settings={},
        seen=seen,
        subjects=subjects,
        state="finished",
        parameters=10,
        gmac=0.5,
        training_seconds=3.0,
    )


def write_metrics(folder, seed=0, vendors="ABC"):
    random.seed(seed)
    rows = []
    for number in range(6):
        for phase in ("ED", "ES"):
            for value, label in enumerate(LABELS, start=1):
                empty = number == 5 and label == "MYO"
                scores = {metric: random.random() for metric in METRIC_KEYS}
                scores |= {"dice": 0.0, "hd95_mm": math.nan, "assd_mm": math.nan} if empty else {}
                own = {"case": f"s{number}_{phase}", "subject": f"s{number}", "phase": phase}
                own |= {
                    "vendor": vendors[number % 3],
                    "age": str(number),
                    "label": value,
                    "label_name": label,
                }
                rows.append(own | scores | {"status": "prediction_empty" if empty else "ok"})
    folder.mkdir(parents=True)
    columns = case_columns(("phase", "vendor", "age"))
    (folder / METRICS_FILE).write_text(to_csv(rows, columns))


@pytest.fixture
def read(tmp_path):
    def both(run, by="vendor", cases=NO_CASES):
        tables = Tables(tmp_path, by, cases)
        tables.write([run])
        with (tmp_path / "cases.csv").open() as cases, (tmp_path / "results.csv").open() as results:
            return list(csv.DictReader(cases)), list(csv.DictReader(results))

    return both


def recomputed(folder, chosen):
    """(label → cases' Dice and subjects) of metrics.csv, and of the mean over labels."""
    by_label, by_case = defaultdict(list), defaultdict(list)
    with (folder / METRICS_FILE).open() as file:
        for row in filter(chosen, csv.DictReader(file)):
            by_label[row["label_name"]].append((float(row["dice"]), row["subject"]))
            by_case[row["case"], row["subject"]].append(float(row["dice"]))
    by_label["mean"] = [(sum(values) / len(values), subject) for (_, subject), values in by_case.items()]
    return by_label


def test_results_equal_a_recomputation_from_metrics(tmp_path, read):
    run = made_run(tmp_path / "run")
    folder = folder_of_test(tmp_path / "run", "MnM")
    write_metrics(folder)
    _, results = read(run)
    chosen = {
        "vendor=A": lambda row: row["vendor"] == "A",
        "vendor=B": lambda row: row["vendor"] == "B",
        "vendor=C": lambda row: row["vendor"] == "C",
        "seen": lambda row: row["vendor"] == "A",
        "unseen": lambda row: row["vendor"] != "A",
        "all": lambda row: True,
    }
    assert list(dict.fromkeys(row["tested_on"] for row in results)) == list(chosen)
    checked = 0
    for row in results:
        in_group = (lambda one: True) if row["group"] == "all" else None
        if in_group is None:
            column, value = row["group"].split("=")
            in_group = lambda one, column=column, value=value: one[column] == value  # noqa: E731
        tested = chosen[row["tested_on"]]
        values = recomputed(folder, lambda one, a=tested, b=in_group: a(one) and b(one))[row["label"]]
        numbers = [value for value, _ in values]
        of_subject = {subject: [own for own, one in values if one == subject] for _, subject in values}
        means = [sum(own) / len(own) for own in of_subject.values()]
        assert (int(row["n"]), int(row["cases"])) == (len(means), len(numbers))
        assert float(row["dice"]) == pytest.approx(sum(means) / len(means), rel=1e-5)
        interval = bootstrap_interval(*map(np.array, zip(*values, strict=True)))
        if interval is None:
            assert row["dice_low"] == ""
        else:
            assert float(row["dice_low"]) == pytest.approx(interval[0], rel=1e-5, abs=1e-9)
        checked += 1
    assert checked == len(results) > 50
    assert list(results[0]) == list(RESULTS_COLUMNS)


def test_groups_are_those_that_the_dataset_has_now(tmp_path, read):
    run = made_run(tmp_path / "run", seen=("A",))
    write_metrics(folder_of_test(tmp_path / "run", "MnM"))
    names = [f"s{number}_{phase}" for number in range(6) for phase in ("ED", "ES")]
    groups = {name: {"vendor": "C" if name.startswith("s0") else "A", "phase": name[-2:]} for name in names}
    cases = {("MnM", name): Case(name, name[:2], (), phase=name[-2:], groups=groups[name]) for name in names}
    rows, results = read(run, cases=cases)
    assert {(row["subject"], row["tested_on"], row["seen"]) for row in rows} == {
        ("s0", "vendor=C", "unseen"),
        *((f"s{number}", "vendor=A", "seen") for number in range(1, 6)),
    }
    assert "age" not in rows[0] and {row["phase"] for row in rows} == {"ED", "ES"}
    assert {row["tested_on"] for row in results} == {"vendor=A", "vendor=C", "seen", "unseen", "all"}


def test_rows_of_cases_are_those_of_metrics_with_the_run_before_them(tmp_path, read):
    run = made_run(tmp_path / "run")
    folder = folder_of_test(tmp_path / "run", "MnM")
    write_metrics(folder)
    cases, _ = read(run)
    with (folder / METRICS_FILE).open() as file:
        metrics = list(csv.DictReader(file))
    assert [{key: row[key] for key in metrics[0]} for row in cases] == metrics
    for row in cases:
        assert (row["run"], row["dataset"], row["trained_on"]) == (run.run, "MnM", "vendor=A")
        assert row["tested_on"] == f"vendor={row['vendor']}"
        assert row["seen"] == ("seen" if row["vendor"] == "A" else "unseen")


def test_empty_structures_are_counted_and_never_averaged_in(tmp_path, read):
    write_metrics(folder_of_test(tmp_path / "run", "MnM"))
    _, results = read(made_run(tmp_path / "run"))
    row = next(
        row for row in results if (row["tested_on"], row["group"], row["label"]) == ("all", "all", "MYO")
    )
    assert (row["missed"], row["extra"], row["neither"]) == ("2", "0", "0")
    assert (row["n"], row["cases"]) == ("6", "12") and float(row["hd95_mm"]) > 0


def test_a_column_with_many_values_and_the_tested_one_make_no_groups(tmp_path, read):
    write_metrics(folder_of_test(tmp_path / "run", "MnM"))
    _, results = read(made_run(tmp_path / "run"))
    assert {row["group"].split("=")[0] for row in results} == {"all", "phase", "age"}  # six ages are few


def test_several_datasets_are_named_and_seen_by_value(tmp_path, read):
    run = made_run(tmp_path / "run", testing=("MnM", "Other"), seen=("A", "B"))
    for seed, name in enumerate(("MnM", "Other")):
        write_metrics(folder_of_test(tmp_path / "run", name), seed)
    cases, results = read(run)
    assert {row["tested_on"] for row in cases} == {f"{n} vendor={v}" for n in ("MnM", "Other") for v in "ABC"}
    assert {row["seen"] for row in cases if row["vendor"] == "B"} == {"seen"}
    total = next(
        row for row in results if (row["tested_on"], row["group"], row["label"]) == ("all", "all", "mean")
    )
    assert (total["n"], total["cases"]) == ("12", "24")  # cases of the same name in two datasets are two


def test_without_the_column_the_own_dataset_is_seen(tmp_path, read):
    run = made_run(tmp_path / "run", testing=("MnM", "Other"), seen=())
    for name in ("MnM", "Other"):
        write_metrics(folder_of_test(tmp_path / "run", name))
    cases, _ = read(run, by="")
    assert {(row["tested_on"], row["seen"]) for row in cases} == {("MnM", "seen"), ("Other", "unseen")}
