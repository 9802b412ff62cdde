"""What a run is known by: the checksum of all that determines it, and of nothing else. And how time is shared out."""

import importlib
import math
import os
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_studies import cohort
from plans import make_plan
from rawfiles import change_voxels, make_nifti

import utseg.study.resolve as resolve_module
from utseg.errors import InputError, UtsegError
from utseg.home import Home
from utseg.study import checksums
from utseg.study.checksums import code_sha256
from utseg.study.definition import parse_definition
from utseg.study.expand import expand
from utseg.study.resolve import SHARED_OUT, StudyRequest, resolve, slot_seconds
from utseg.training.recipe import find_recipe

TEXT = 'name = "x"\n'


def write_files(dataset):
    for case in dataset.cases:
        for path in case.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = zlib.crc32(path.name.encode())
            make_nifti(path, np.random.default_rng(seed).integers(0, 999, (2, 4, 3)).astype(np.int16))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Cases of noise, which no planner would take: all are planned alike."""
    monkeypatch.setattr(resolve_module, "planned", lambda data, known: make_plan())
    write_files(cohort("ABABABAB", "ABC", folder=tmp_path / "raw"))
    return tmp_path


def resolved(place, text=TEXT, max_time_s=None, parallel=1, folder="raw", **changes):
    dataset = replace(cohort("ABABABAB", "ABC", folder=place / folder), **changes)
    plan = expand(parse_definition(text, "x"), {"MnM": dataset}, "MnM", "x")
    home = Home(place / folder, place / "preprocessed", place / "results")
    return resolve(plan, StudyRequest(place / "out", home, max_time_s=max_time_s, parallel=parallel))


def ids(*args, **kwargs):
    return [run.checksum for run in resolved(*args, **kwargs).runs]


def test_the_same_study_has_the_same_checksums_wherever_its_files_lie(place):
    first = ids(place)
    shutil.copytree(place / "raw", place / "moved")
    (place / "preprocessed" / "study_data" / "checksums.json").unlink()
    assert ids(place) == first == ids(place, folder="moved")
    renamed = TEXT.replace('"x"', '"y"') + 'question = "why?"\n[[variants]]\nname = "a"\npart = "b"\n'
    assert ids(place, renamed) == first  # words change nothing


def test_numbers_of_equal_value_are_equal(place):
    one, same = (
        TEXT + f'settings = {{ "augmentation.rotation_probability" = {value} }}\n' for value in ("1", "1.0")
    )
    assert ids(place, one) == ids(place, same) != ids(place)


@pytest.mark.parametrize(
    "text",
    [
        'networks = ["UNet"]',
        'plans = ["cpu"]',
        "seeds = [1]",
        "epochs = 3",
        'settings = { "batch_size" = 3 }',
        "[train]\nfolds = [1]",
        '[train]\nselections = ["vendor=A"]',
    ],
)
def test_whatever_determines_a_run_changes_its_checksum(place, text):
    assert set(ids(place, TEXT + text)).isdisjoint(ids(place))


def test_where_what_was_measured_cannot_be_written_no_run_is_made_of_that(place, monkeypatch):
    def full(*_, **__):
        raise UtsegError("disk full")

    monkeypatch.setattr(resolve_module, "planned", lambda data, known: known())
    monkeypatch.setattr(resolve_module, "measured", full)
    with pytest.raises(UtsegError, match="disk full"):
        resolved(place)


@pytest.mark.parametrize("which", ["MnM000_ED.nii.gz", "MnM007_ES_gt.nii.gz", "MnM008_ED.nii.gz"])
def test_another_scan_or_label_to_train_or_test_on_is_another_run(place, which):
    before = ids(place)
    path = place / "raw" / "MnM" / which
    change_voxels(path, lambda voxels: voxels + 1)
    assert set(ids(place)).isdisjoint(before)


def test_a_file_that_looks_unchanged_is_not_read_again(place):
    before = ids(place)
    path = place / "raw" / "MnM" / "MnM000_ED.nii.gz"
    stamp = path.stat()
    path.write_text("changed!".ljust(stamp.st_size))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert ids(place) == before


def test_equal_runs_of_two_parts_are_one(place):
    variants = '[[variants]]\npart = "a"\nname = "1"\n[[variants]]\npart = "b"\nname = "2"\n'
    variants += 'settings = { "batch_size" = 3 }\n[[variants]]\npart = "b"\nname = "1"\n'
    study = resolved(place, TEXT + variants)
    assert len(study.runs) == 3 and study.distinct == [*study.runs[:2]]
    assert study.runs[0].folder == study.runs[2].folder
    assert study.runs[0].data.plan_folder == study.runs[1].data.plan_folder  # trained from the same slices


def test_each_list_of_subjects_has_its_own_plan(place):
    text = TEXT + 'networks = ["UTNet", "UNet"]\n[train]\neach = "vendor"\ntogether = true\n'
    study = resolved(place, text)
    assert len({run.data.plan_folder for run in study.runs}) == 3
    for run in study.runs:
        subjects = run.planned.subjects
        assert {case.subject for case in run.data.own.cases} == {*subjects.training, *subjects.validation}


def test_a_set_is_planned_alike_however_it_was_made(place):
    together = resolved(place, TEXT + '[train]\neach = "vendor"\ntogether = true\n').runs[-1]
    whole = resolved(place).runs[0]
    assert together.planned.trained_on.name != whole.planned.trained_on.name
    assert together.data.own == whole.data.own and together.data.folder == whole.data.folder
    assert together.checksum == whole.checksum


def test_settings_that_shape_slices_are_planned_with(place):
    text = (
        TEXT
        + '[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nsettings = { "preprocessing.spacing_yx_mm" = [2, 2] }\n'
    )
    a, b = resolved(place, text).runs
    assert a.data.folder != b.data.folder
    assert dict(b.data.request.settings) == {"preprocessing.spacing_yx_mm": [2, 2]}


def test_the_same_image_under_two_names_is_refused(place):
    folder = place / "raw" / "MnM"
    shutil.copy(folder / "MnM000_ED.nii.gz", folder / "MnM009_ES.nii.gz")
    with pytest.raises(InputError, match=r"MnM009_ES \(testing\) is the same scan as case MnM000_ED \(\w+\)"):
        resolved(place)


@given(st.integers(1, 100), st.integers(1, 16), st.floats(200, 1e6))
def test_shared_out_time_is_kept_to_and_used(runs, parallel, budget):
    slot = slot_seconds(budget, runs, parallel)
    rounds = math.ceil(runs / parallel)
    assert slot * rounds <= SHARED_OUT * budget < (slot + 1) * rounds


def test_every_run_gets_the_same_time_and_it_belongs_to_the_run(place):
    text = TEXT + "seeds = [0, 1, 2]\nepochs = 5\n"
    study = resolved(place, text, max_time_s=1000)
    assert study.slot_s == 300
    assert set(ids(place, text, max_time_s=1000)).isdisjoint(ids(place, text, max_time_s=2000))
    assert ids(place, text, max_time_s=1000) == ids(place, TEXT + "seeds = [0, 1, 2]\n", max_time_s=1000)
    with pytest.raises(InputError, match="--max-time: 3 s are less than a second for each of 3 runs"):
        resolved(place, text, max_time_s=3)


def test_an_edited_plan_is_another_run(place, monkeypatch):
    before = ids(place)
    for changes, same in (({"reasons": {}, "memory_gb": 9.0}, True), ({"batch_size": 3}, False)):
        edited = make_plan().model_copy(update=changes)
        monkeypatch.setattr(resolve_module, "planned", lambda data, known, edited=edited: edited)
        assert (ids(place) == before) is same


def test_edited_code_and_other_versions_are_another_run(place, monkeypatch):
    before = ids(place, TEXT + 'plans = ["cpu"]')
    monkeypatch.setattr(resolve_module, "version", {"utseg": "0.0.9", "torch": "9.9"}.get)
    assert set(ids(place, TEXT + 'plans = ["cpu"]')).isdisjoint(before)


def test_the_code_of_a_plugin_is_its_module_and_what_it_imports_of_its_package(tmp_path, monkeypatch):
    package = tmp_path / "plugin_of_hearts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "network.py").write_text("import json\nfrom .parts import size\nclass Net: pass\n")
    (package / "parts.py").write_text("size = 3\n")
    (package / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    network = importlib.import_module("plugin_of_hearts.network").Net

    def sha256():
        checksums._code_sha256.cache_clear()
        return code_sha256(network)

    before = sha256()
    (package / "other.py").write_text("unused = 1\n")
    assert sha256() == before
    (package / "parts.py").write_text("size = 4\n")
    assert sha256() != before


def test_with_a_time_the_device_belongs_to_a_run(place, monkeypatch):
    before, timed = ids(place), ids(place, max_time_s=900)
    monkeypatch.setattr(resolve_module, "device_name", lambda device: "another")
    assert ids(place) == before
    assert set(ids(place, max_time_s=900)).isdisjoint(timed)


def test_a_recipe_trains_its_network_otherwise_than_the_networks_own(place):
    text = 'name = "x"\nnetworks = ["nnUNet", "nnUNetTrainer"]\n'
    own, theirs = resolved(place, text).runs
    assert [run.setup[1].network_name for run in (own, theirs)] == ["nnUNet", "nnUNet"]
    assert theirs.setup[0] == find_recipe("nnUNetTrainer") != own.setup[0]
    assert own.checksum != theirs.checksum
