"""Studies as they run: one failure stops nobody, what is known is not run again, whoever is killed goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commandline import SCRIPTS

from utseg.compute.pool import InlineExecutor
from utseg.errors import ArtefactError, CaseErrors, UtsegError
from utseg.evaluate.records import METRICS_FILE
from utseg.files import read_json
from utseg.home import Home
from utseg.rawdata import open_dataset
from utseg.steps.studies import study
from utseg.study import run, walk
from utseg.study.data import DATA_FOLDER
from utseg.study.definition import read_definition, with_values
from utseg.study.expand import expand
from utseg.study.jobs import OUTCOME_FILE, Job, read_job, read_outcome, write_job, write_outcome
from utseg.study.jobs import test_folder as folder_of_test
from utseg.study.record import read_study
from utseg.study.resolve import StudyRequest, resolve
from utseg.study.run import run_study
from utseg.study.walk import check_trained
from utseg.training.record import EarlyEnd, read_run

pytestmark = pytest.mark.slow
EPOCHS = 16


@pytest.fixture
def executed(monkeypatch):
    """The folders that would be run, which fail."""
    folders: list[str] = []

    def fail(folder):
        folders.append(folder)
        raise UtsegError("it failed")

    monkeypatch.setattr(run, "execute_job", fail)
    monkeypatch.setattr("utseg.study.data.process_pool", lambda workers=None: InlineExecutor())
    return folders


def again(ran, output, **values):
    definition = with_values(read_definition(str(ran.file)), values, "x")
    datasets = {name: open_dataset(ran.home / "raw" / name, name) for name in ("Tiny", "Other")}
    plan = expand(definition, datasets, "Tiny", "x")
    request = StudyRequest(output, Home.locate(ran.home), device="cpu")
    return run_study(resolve(plan, request), request)


def test_a_failing_run_stops_nobody_and_is_one_line(ran):
    assert ran.code == 1, ran.errors
    errors = [line for line in ran.errors.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "b: wrong" in errors[0] and "augmentation.rotation_deg" in errors[0]
    assert "Traceback" not in ran.errors
    states = {one.run: one.state for one in ran.record.runs}
    assert list(states.values()) == ["finished", "failed", "finished"], states
    assert {f"[{number}/2]" for number in (1, 2)} <= {*ran.said.split(), *ran.errors.split()}
    assert "mean Dice seen" in ran.said and "trained on" in ran.said


def test_equal_runs_are_trained_once_and_both_in_the_tables(ran):
    first, wrong, second = ran.record.runs
    assert first.id == second.id != wrong.id and first.folder == second.folder
    with (ran.output / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    parts = {part: [{**row, "run": "", "part": ""} for row in rows if row["part"] == part] for part in "ab"}
    assert parts["a"] == parts["b"] != []
    assert {row["run"] for row in rows} == {first.run, second.run}


def test_the_files_of_a_run_prove_who_took_part(ran):
    one = ran.record.runs[0]
    folder = Path(one.folder)
    assert read_json(folder / "subjects.json") == one.subjects.model_dump(mode="json")
    dataset = open_dataset(ran.home / "raw" / "Tiny", "Tiny")
    owner = {case.case_id: case.subject for case in dataset.cases}
    trained = read_run(folder / "train")
    assert {owner[case] for case in trained.training_cases} == set(one.subjects.training)
    assert {owner[case] for case in trained.validation_cases} == set(one.subjects.validation)
    with (folder_of_test(folder, "Tiny") / METRICS_FILE).open() as file:
        tested = {row["subject"] for row in csv.DictReader(file)}
    assert tested == set(one.subjects.testing["Tiny"])
    planned = {path.parent.name for path in Path(read_job(folder).plan_folder).glob("slices/*/case.json")}
    assert {owner[case] for case in planned} == {*one.subjects.training, *one.subjects.validation}
    assert set(one.subjects.testing) == {"Tiny", "Other"}
    sides = [*one.subjects.training, *one.subjects.validation, *tested]
    assert len(sides) == len(set(sides)) == 6


def test_another_dataset_is_scored_by_the_names_of_its_labels(ran):
    nib = pytest.importorskip("nibabel")
    labels = read_json(ran.home / "raw" / "Other" / "dataset.json")["labels"]
    with (folder_of_test(Path(ran.record.runs[0].folder), "Other") / METRICS_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label_name"] for row in rows} == {"LV", "MYO", "RV"} and len(rows) == 12
    for row in rows:
        image = nib.load(ran.home / "raw" / "Other" / "labelsTr" / f"{row['case']}.nii.gz")
        voxels = (np.asarray(image.dataobj) == labels[row["label_name"]]).sum()
        assert float(row["reference_ml"]) == pytest.approx(
            voxels * np.prod(image.header.get_zooms()) / 1000, rel=1e-4
        )
    with (ran.output / "cases.csv").open() as file:
        tested_on = {row["tested_on"] for row in csv.DictReader(file)}
    assert tested_on == {f"{name} vendor={vendor}" for name in ("Tiny", "Other") for vendor in "AB"}


@pytest.mark.parametrize("side", ["training_cases", "validation_cases"])
def test_a_run_that_saw_a_test_subject_is_refused(ran, side):
    one = ran.record.runs[0]
    job = read_job(Path(one.folder))
    trained = read_run(Path(one.folder) / "train")
    dataset = open_dataset(ran.home / "raw" / "Tiny", "Tiny")
    check_trained(trained, job, dataset, Path("train"))
    planted = next(case.case_id for case in dataset.cases if case.subject in one.subjects.testing["Tiny"])
    leaky = trained.model_copy(update={side: (*getattr(trained, side), planted)})
    with pytest.raises(ArtefactError, match="not in the study"):
        check_trained(leaky, job, dataset, Path("train"))
    shortened = EarlyEnd(why="the file stop", epoch=1, planned_epochs=2)
    with pytest.raises(ArtefactError, match="ended early"):
        check_trained(trained.model_copy(update={"ended_early": shortened}), job, dataset, Path("train"))


def test_what_has_finished_is_not_run_again(ran, executed):
    before = (ran.output / "results.csv").read_bytes()
    record = again(ran, ran.output)
    assert executed == [] and [one.state for one in record.runs] == ["finished", "failed", "finished"]
    assert (ran.output / "results.csv").read_bytes() == before


def test_from_python_it_goes_on_as_by_the_command(ran, executed, monkeypatch):
    monkeypatch.setattr("utseg.study.images.process_pool", lambda workers=None: InlineExecutor())
    before = {name: (ran.output / name).read_bytes() for name in ("results.csv", "cases.csv")}
    (ran.output / "report.html").unlink()
    with pytest.raises(CaseErrors, match="b: wrong"):
        study(str(ran.file), ran.output, dataset="Tiny", home=ran.home, device="cpu")
    assert executed == []
    assert {name: (ran.output / name).read_bytes() for name in before} == before
    assert (ran.output / "report.html").is_file()


def test_a_finished_run_is_known_to_other_studies(ran, executed, tmp_path):
    variants = [{"name": "as the other had it"}]
    record = again(ran, tmp_path / "out", name="other", variants=variants)
    assert executed == [] and record.runs[0].state == "finished"
    assert record.runs[0].id == ran.record.runs[0].id
    assert read_study(tmp_path / "out").name == "other"
    assert len(list((ran.home / "preprocessed" / DATA_FOLDER).glob("*/cpu_2d"))) == 1  # one plan for one list


def test_a_vendor_that_was_corrected_after_the_test_is_that_of_the_scores(ran, executed, tmp_path):
    table = ran.home / "raw" / "Other" / "cases.csv"
    text = table.read_text()
    assert text.count(",B,") == 2  # ED and ES of one subject
    try:
        table.write_text(text.replace(",B,", ",Z,"))
        again(ran, tmp_path / "out")
    finally:
        table.write_text(text)
    with (tmp_path / "out" / "cases.csv").open() as file:
        tested_on = {row["tested_on"] for row in csv.DictReader(file) if row["dataset"] == "Other"}
    assert executed == [] and tested_on == {"Other vendor=A", "Other vendor=Z"}


@pytest.mark.parametrize("lost", ["scores", "outcome"])
def test_scores_that_are_gone_are_made_again_and_what_failed_is_tried_again(ran, executed, lost):
    folder = Path(ran.record.runs[0].folder)
    outcome, metrics = folder / OUTCOME_FILE, folder_of_test(folder, "Tiny") / METRICS_FILE
    texts = {file: file.read_bytes() for file in (outcome, metrics)}
    if lost == "scores":
        metrics.unlink()
    else:
        write_outcome(
            read_outcome(folder, read_job(folder).checksum).model_copy(update={"state": "failed"}), folder
        )
    try:
        again(ran, ran.output)
        assert executed == [str(folder)]
    finally:
        for file, text in texts.items():
            file.write_bytes(text)


@pytest.fixture(scope="module")
def long_job(ran, tmp_path_factory) -> tuple[Path, Job]:
    """A run of many short epochs on the data that are there."""
    job = read_job(Path(ran.record.runs[0].folder))
    settings = {**job.settings, "save_minutes": 1e-5}
    tests = {"Tiny": job.tests["Tiny"]}
    changes = {"epochs": EPOCHS, "checksum": "f" * 64, "settings": settings, "tests": tests}
    job = job.model_copy(update=changes)
    folder = tmp_path_factory.mktemp("runs") / "f"
    write_job(job, folder)
    return folder, job


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def epochs_done(folder):
    log = folder / "train" / "training.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def is_alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_killed_worker_leaves_no_orphan_and_its_run_goes_on(long_job, monkeypatch):
    folder, job = long_job
    words = f"from utseg.study.walk import execute_job; execute_job({str(folder)!r})"
    worker = subprocess.Popen([sys.executable, "-c", words])
    wait_for(lambda: epochs_done(folder) >= 1)
    child = int((folder / ".lock").read_text().split()[-1])
    assert is_alive(child) and child != worker.pid
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not is_alive(child), 60)
    assert epochs_done(folder) < EPOCHS and read_outcome(folder, job.checksum) is None
    with monkeypatch.context() as patch:
        patch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 1000)
        patch.setattr("utseg.evaluate.score.process_pool", lambda workers=None: InlineExecutor())
        walk._run(folder)  # as the process of the next worker does
    epochs = [json.loads(line)["epoch"] for line in (folder / "train" / "training.jsonl").open()]
    assert epochs == list(range(1, EPOCHS + 1))
    outcome = read_outcome(folder, job.checksum)
    assert outcome is not None and outcome.iterations == 2 * EPOCHS
    assert outcome.parameters and outcome.gmac and outcome.peak_memory_gb and outcome.training_seconds


def test_a_study_that_is_stopped_saves_its_runs_and_says_how_to_go_on(ran, tmp_path):
    file = tmp_path / "long.toml"
    text = ran.file.read_text().partition("[[variants]]")[0].replace("epochs = 1", f"epochs = {EPOCHS}")
    file.write_text(text.replace('"tiny"', '"long"'))
    words = [file, "-d", "Tiny", "-o", tmp_path / "out", "--device", "cpu", "--home", ran.home]
    command = [str(SCRIPTS / "utseg_study"), *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "out" / "study.json").is_file)
    folder = Path(read_study(tmp_path / "out").runs[0].folder)
    wait_for(lambda: epochs_done(folder) >= 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 75, errors
    assert errors.count("error: ") == 1 and "run the same command again to go on" in errors
    assert not is_alive(int((folder / ".lock").read_text().split()[-1]))
    assert (folder / "train" / "checkpoint_latest.pt").is_file()
    (run,) = read_study(tmp_path / "out").runs
    assert run.state == "waiting" and run.error is None
