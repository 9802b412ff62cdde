"""From a raw dataset to slices: what is kept and what is made again, what a person edited, what fails and what then goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rawfiles import change_voxels, corrupt, make_nnunet

import utseg.preprocess.dataset as dataset_module
import utseg.preprocess.run as run_module
from preprocess.made import make_plan
from utseg.compute.pool import InlineExecutor
from utseg.errors import ArtefactError, CaseErrors, InputError, SettingError, UsageError, UtsegError
from utseg.fingerprint import make_fingerprint
from utseg.planning.plan import read_plan
from utseg.preprocess.dataset import PlanRequest, prepare_dataset, preview_plan
from utseg.preprocess.run import Counts, preprocess_dataset
from utseg.preprocess.slices import SliceStore
from utseg.rawdata import open_dataset


def tiny_planner(fingerprint, target):
    return make_plan(
        fingerprint_sha256=fingerprint.sha256, epochs=round(target.memory_gb), memory_gb=target.memory_gb
    )


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """No processes, no torch: what is tested here is what is kept and what is made."""
    from contextlib import contextmanager

    @contextmanager
    def pool(workers=None):
        yield InlineExecutor()

    monkeypatch.setattr(dataset_module, "process_pool", pool)
    monkeypatch.setattr(dataset_module, "find", lambda kind, name: tiny_planner)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_nnunet(tmp_path_factory.mktemp("raw") / "Heart", subjects=5, size_zyx=(3, 30, 28))


@pytest.fixture
def raw(tmp_path, pristine):
    return shutil.copytree(pristine, tmp_path / "raw" / "Heart")


@pytest.fixture
def prepare(tmp_path, raw):
    def call(**request):
        return prepare_dataset(open_dataset(raw), tmp_path / "Heart", PlanRequest(**request))

    return call


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_everything_is_made_once_and_then_kept(prepare, tmp_path):
    first = prepare()
    assert first.counts == Counts(kept=0, made=10, removed=0) and len(first.splits) == 5
    made = files(tmp_path / "Heart")
    stamps = {path: (tmp_path / "Heart" / path).stat().st_mtime_ns for path in made}
    second = prepare()
    assert second.counts == Counts(kept=10, made=0, removed=0)
    assert files(tmp_path / "Heart") == made
    assert {path: (tmp_path / "Heart" / path).stat().st_mtime_ns for path in made} == stamps
    assert (second.plan, second.fingerprint, second.splits) == (first.plan, first.fingerprint, first.splits)


def test_what_changed_is_made_again_and_nothing_else(prepare, tmp_path, raw):
    prepare()
    slices = tmp_path / "Heart" / "auto_2d" / "slices"
    data = bytearray((slices / "s01_ES" / "001.npz").read_bytes())
    data[500] ^= 1
    (slices / "s01_ES" / "001.npz").write_bytes(data)
    assert prepare().counts == Counts(kept=9, made=1, removed=0)
    change_voxels(raw / "imagesTr" / "s03_ED_0000.nii.gz", lambda voxels: voxels + 7)
    assert prepare().counts == Counts(kept=9, made=1, removed=0)
    assert prepare(settings={"patch_size": [16, 16]}).counts.made == 0
    assert prepare(settings={"preprocessing.spacing_yx_mm": [2, 2]}).counts.made == 10


def test_a_case_that_left_takes_its_slices_along(prepare, tmp_path, raw):
    prepare()
    for file in raw.rglob("s02_ES*"):
        file.unlink()
    table = (raw / "cases.csv").read_text().splitlines(keepends=True)
    (raw / "cases.csv").write_text("".join(line for line in table if "s02_ES" not in line))
    assert prepare().counts == Counts(kept=9, made=0, removed=1)
    slices = tmp_path / "Heart" / "auto_2d" / "slices"
    assert sorted(path.name for path in slices.iterdir()) == list(SliceStore(slices.parent).case_ids())
    assert "s02_ES" not in SliceStore(slices.parent).case_ids()


def test_a_plan_that_a_person_edited_is_kept_until_replanned(prepare, tmp_path):
    prepare()
    plan_file = tmp_path / "Heart" / "auto_2d" / "plan.json"
    plan_file.write_text(json.dumps(json.loads(plan_file.read_text()) | {"batch_size": 7}))
    edited = plan_file.read_bytes()
    assert prepare(memory_gb=3).plan.batch_size == 7
    assert plan_file.read_bytes() == edited
    changed = prepare(settings={"epochs": 9}).plan
    assert (changed.batch_size, changed.epochs) == (7, 9)
    assert changed.reasons["epochs"].startswith("set by the user")
    assert prepare(settings={"epochs": 9}).plan == changed
    assert plan_file.with_name("plan_previous_1.json").read_bytes() == edited
    anew = prepare(replan=True, memory_gb=3).plan
    assert (anew.batch_size, anew.epochs) == (4, 3)
    assert json.loads(plan_file.with_name("plan_previous_2.json").read_text())["epochs"] == 9
    assert plan_file.with_name("plan_previous_1.json").read_bytes() == edited


def test_a_memory_that_a_kept_plan_does_not_heed_is_warned_of(prepare, caplog):
    with caplog.at_level("WARNING", logger="utseg"):
        assert prepare(memory_gb=3).plan.epochs == 3
        assert prepare().plan.epochs == 3
        assert "--memory-gb" not in caplog.text
        assert prepare(memory_gb=5).plan.epochs == 3
        assert "--memory-gb 5 has no effect" in caplog.text and "--replan" in caplog.text
        caplog.clear()
        assert prepare(memory_gb=5, replan=True).plan.epochs == 5
        assert "--memory-gb" not in caplog.text


def test_the_estimated_memory_is_that_of_what_was_set(prepare):
    planned = prepare().plan
    other = prepare(settings={"epochs": 9}).plan
    assert other.estimated_memory_gb == planned.estimated_memory_gb
    small = prepare(settings={"batch_size": 2}).plan
    wide = prepare(settings={"network.base_channels": 8}).plan
    assert small.estimated_memory_gb < wide.estimated_memory_gb
    assert wide.reasons["estimated_memory_gb"].startswith(f"{wide.estimated_memory_gb:g} GB, counted")
    assert prepare(settings={"network.base_channels": 8}).plan == wide
    said = prepare(settings={"batch_size": 2, "estimated_memory_gb": 1.5}).plan
    assert said.estimated_memory_gb == 1.5


def test_a_planner_that_does_not_exist_leaves_no_folder(prepare, tmp_path, monkeypatch):
    def missing(kind, name):
        raise UsageError(f"no planner is called {name!r}")

    monkeypatch.setattr(dataset_module, "find", missing)
    with pytest.raises(UsageError):
        prepare(planner="best")
    assert not (tmp_path / "Heart").exists()


def test_other_data_gets_another_plan_and_the_old_one_stays_beside_it(prepare, tmp_path, raw):
    before = prepare(settings={"epochs": 9}).plan
    shutil.copy(raw / "imagesTr" / "s03_ES_0000.nii.gz", raw / "imagesTr" / "s03_ED_0000.nii.gz")
    after = prepare().plan
    assert after.epochs == 8 and after.fingerprint_sha256 != before.fingerprint_sha256
    assert json.loads((tmp_path / "Heart" / "auto_2d" / "plan_previous_1.json").read_text())["epochs"] == 9


def test_a_dataset_that_moved_keeps_its_plan(tmp_path, raw):
    """Warnings name files by their paths, which are others now."""
    folder = tmp_path / "Heart"
    for file in raw.rglob("s0[23]_E?.nii.gz"):  # cases without a label: the dataset warns of them
        file.unlink()
    first = prepare_dataset(open_dataset(raw), folder, PlanRequest(settings={"epochs": 9}))
    moved = shutil.move(raw, tmp_path / "moved" / "Heart")
    second = prepare_dataset(open_dataset(Path(moved)), folder, PlanRequest())
    assert second.fingerprint.warnings != first.fingerprint.warnings
    assert second.plan == first.plan and second.counts.made == 0
    assert not list((folder / "auto_2d").glob("plan_previous*"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"patchsize": [1, 1]}, "patchsize"),
        ({"batch_size": 0}, "batch_size"),
        ({"labels": {"background": 0, "heart": 1}}, "labels"),
        ({"dataset": "Liver"}, "dataset is Liver, the dataset has Heart"),
    ],
)
def test_a_wrong_plan_is_refused_and_named_before_any_slice(prepare, tmp_path, change, expected):
    prepare()
    folder = tmp_path / "Heart" / "auto_2d"
    (folder / "plan.json").write_text(json.dumps(json.loads((folder / "plan.json").read_text()) | change))
    before = files(tmp_path / "Heart")
    with pytest.raises(InputError) as raised:
        prepare()
    assert expected in str(raised.value) and "plan.json" in str(raised.value)
    assert files(tmp_path / "Heart") == before
    prepare(replan=True)


def test_a_wrong_setting_is_refused_before_anything_is_written(prepare, tmp_path):
    for settings in ({"patchsize": 3}, {"labels": {}}, {"epochs": "many"}):
        with pytest.raises(SettingError):
            prepare(settings=settings)
    assert not files(tmp_path / "Heart")


def test_splits_are_kept_and_a_person_may_edit_them(prepare, tmp_path, raw, caplog):
    prepare()
    file = tmp_path / "Heart" / "splits.json"
    mine = [{"training": ["s00", "s01", "s02"], "validation": ["s03"]}]
    file.write_text(json.dumps(mine))
    edited = file.read_bytes()
    with caplog.at_level("WARNING", logger="utseg"):
        assert prepare().splits == mine
    assert file.read_bytes() == edited and "1 subjects neither train nor validate: s04" in caplog.text
    file.write_text(json.dumps([{"training": ["s00", "s09"], "validation": ["s03"]}]))
    with pytest.raises(InputError, match="s09"):
        prepare()


def test_subjects_that_come_to_a_single_one_are_split(prepare, tmp_path, raw):
    table = raw / "cases.csv"
    text = table.read_text().splitlines(keepends=True)
    for file in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        if not file.name.startswith(text[1].split(",")[0].rpartition("_")[0]):
            file.rename(tmp_path / file.name)
    assert prepare().splits == []
    for file in tmp_path.glob("*.nii.gz"):
        file.rename(raw / ("imagesTr" if "_0000" in file.name else "labelsTr") / file.name)
    assert len(prepare().splits) == 5


def test_bad_cases_are_all_named_before_anything_is_written(prepare, tmp_path, raw):
    corrupt(raw / "imagesTr" / "s01_ED_0000.nii.gz", "truncated")
    corrupt(raw / "labelsTr" / "s04_ES.nii.gz", "unknown label")
    with pytest.raises(CaseErrors) as raised:
        prepare()
    assert [line.split(":")[0] for line in raised.value.lines()] == ["case s01_ED", "case s04_ES"]
    assert not files(tmp_path / "Heart")


def test_a_case_that_turns_bad_later_does_not_stop_the_others(tmp_path, raw):
    dataset = open_dataset(raw)
    fingerprint = make_fingerprint(dataset, InlineExecutor())
    corrupt(raw / "imagesTr" / "s01_ED_0000.nii.gz", "NaN")
    folder = tmp_path / "Heart" / "auto_2d"
    with pytest.raises(CaseErrors, match=r"s01_ED.*NaN"):
        preprocess_dataset(dataset, make_plan(), folder, fingerprint, InlineExecutor())
    assert len(SliceStore(folder).case_ids()) == 9


@pytest.mark.parametrize("nth", [0, 3, 4, 10])
def test_a_full_disk_stops_at_once_and_the_same_call_finishes(prepare, tmp_path, monkeypatch, nth):
    original, count = Path.write_bytes, 0

    def failing(self, data):
        nonlocal count
        if self.suffix == ".npz":
            count += 1
            if count > nth:
                raise OSError(28, "No space left on device", str(self))
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(UtsegError, match="No space left"):
        prepare()
    monkeypatch.undo()
    assert count <= nth + 2  # a second case was under way; none was begun after
    store = SliceStore(tmp_path / "Heart" / "auto_2d")
    assert len(store.case_ids()) == nth // 3
    assert not list((tmp_path / "Heart").rglob(".tmp-*"))
    assert prepare().counts == Counts(kept=nth // 3, made=10 - nth // 3, removed=0)


def test_leftovers_of_a_killed_run_are_cleared_away(prepare, tmp_path):
    prepare()
    whole = files(tmp_path / "Heart")
    left = tmp_path / "Heart" / "auto_2d" / "slices" / ".tmp-0123456789ab-s00_ED"
    left.mkdir()
    (left / "000.npz").write_bytes(b"half")
    (tmp_path / "Heart" / ".tmp-0123456789ab-fingerprint.json").write_bytes(b"{")
    assert prepare().counts.kept == 10
    assert files(tmp_path / "Heart") == whole


def test_a_damaged_fingerprint_is_measured_again(prepare, tmp_path, caplog):
    prepare()
    file = tmp_path / "Heart" / "fingerprint.json"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level("WARNING", logger="utseg"):
        assert prepare().counts.kept == 10
    assert file.read_bytes() == whole and "fingerprint.json" in caplog.text


def test_a_preview_writes_nothing(tmp_path, raw):
    fingerprint, plan = preview_plan(
        open_dataset(raw), tmp_path / "Heart", PlanRequest(settings={"epochs": 3})
    )
    assert plan.epochs == 3 and len(fingerprint.cases) == 10
    assert not (tmp_path / "Heart").exists()


def test_slices_are_those_of_the_case_alone(prepare, tmp_path, raw):
    """Each case's slices equal what preprocessing it by itself gives: no case leaks into another."""
    from utseg.preprocess.case import preprocess_case
    from utseg.rawdata.gate import read_case

    prepared = prepare()
    dataset = open_dataset(raw)
    store = SliceStore(prepared.plan_folder)
    assert read_plan(prepared.plan_folder) == prepared.plan
    for case in dataset.training_cases():
        alone = preprocess_case(read_case(case, dataset.labels), prepared.plan.preprocessing)
        record = store.case_record(case.case_id)
        image, label = store.read_case(record)
        assert np.array_equal(image, alone.image_CZYX) and np.array_equal(label, alone.label_ZYX)
        assert (record.subject, record.phase, record.groups) == (case.subject, case.phase, case.groups)


def test_an_error_that_no_case_caused_is_not_taken_for_one(tmp_path, raw, monkeypatch):
    dataset = open_dataset(raw)
    fingerprint = make_fingerprint(dataset, InlineExecutor())

    def broken(*task):
        raise ArtefactError("the store is gone")

    monkeypatch.setattr(run_module, "_preprocess", broken)
    with pytest.raises(ArtefactError, match="gone"):
        preprocess_dataset(dataset, make_plan(), tmp_path / "x", fingerprint, InlineExecutor())
