"""Slices on disk: what is written comes back, damage is noticed wherever it is, a case appears whole or not at all."""

import hashlib
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from preprocess.made import make_loaded, make_preprocessing
from utseg.errors import ArtefactError, UtsegError
from utseg.preprocess.case import preprocess_case
from utseg.preprocess.slices import SliceStore, data_sha256, preprocessing_sha256

INPUT = {"imagesTr/s00_ED_0000.nii.gz": "a" * 64}


def source(checksums, stamps=None):
    return SimpleNamespace(checksums=checksums, stamps=stamps or {}, voxels_sha256=("c" * 64,))


@pytest.fixture
def store(tmp_path):
    return SliceStore(tmp_path / "Heart" / "auto_2d")


def write(store, case_id="s00_ED", plan=None, **case):
    loaded = make_loaded(case_id=case_id, **case)
    plan = plan or make_preprocessing()
    done = preprocess_case(loaded, plan)
    record = store.write_case(done, loaded.case, source(INPUT), preprocessing_sha256(plan))
    return done, loaded.case, record


def test_what_is_written_comes_back(store):
    done, _, record = write(store, phase="ED", groups={"vendor": "A"}, frame=3)
    assert store.case_ids() == ("s00_ED",)
    assert store.case_record("s00_ED") == record
    assert (record.phase, record.groups, record.frame) == ("ED", {"vendor": "A"}, 3)
    assert record.properties == done.properties and record.input_checksums == INPUT
    image, label = store.read_case(record)
    assert np.array_equal(image, done.image_CZYX) and np.array_equal(label, done.label_ZYX)
    for z, slice_record in enumerate(record.slices):
        image, label = store.read_slice("s00_ED", z)
        assert np.array_equal(image, done.image_CZYX[:, z]) and np.array_equal(label, done.label_ZYX[z])
        assert slice_record.labels == tuple(np.unique(done.label_ZYX[z]))
        file = store.folder / "s00_ED" / slice_record.file
        assert hashlib.sha256(file.read_bytes()).hexdigest() == slice_record.sha256


def test_writing_again_gives_the_same_bytes(store, tmp_path):
    *_, record = write(store)
    other = SliceStore(tmp_path / "other" / "auto_2d")
    assert data_sha256([record]) == data_sha256([write(other)[-1]])
    *_, changed = write(other, plan=make_preprocessing(clip_percentiles=(0, 100)))
    assert data_sha256([record]) != data_sha256([changed])


def test_a_flipped_bit_anywhere_is_damage_or_harmless(store):
    write(store)
    file = store.folder / "s00_ED" / "002.npz"
    whole = file.read_bytes()
    image, label = store.read_slice("s00_ED", 2)
    rng = np.random.default_rng(0)
    ends = [*range(120), *range(len(whole) - 250, len(whole))]
    noticed = 0
    for place in [*ends, *rng.integers(0, len(whole), 150)]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        try:
            again = store.read_slice("s00_ED", 2)
        except ArtefactError as error:
            assert "002.npz" in str(error) and "utseg_plan_and_preprocess -d Heart -pl auto" in str(error)
            assert "\n" not in str(error)
            noticed += 1
        else:
            assert np.array_equal(again[0], image) and np.array_equal(again[1], label)
    assert noticed > 200
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ArtefactError, match="damaged"):
            store.read_slice("s00_ED", 2)
    file.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        store.read_slice("s00_ED", 2)


@pytest.mark.parametrize("header", [b"{'descr': (((", b"{'descr': '<f4', 'shape': (2**40,),"])
def test_an_array_whose_header_is_not_to_be_parsed_is_damage(store, header):
    write(store)
    file = store.folder / "s00_ED" / "000.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ArtefactError, match="damaged"):
        store.read_slice("s00_ED", 0)


def test_a_pickle_is_never_loaded(store):
    write(store)
    file = store.folder / "s00_ED" / "000.npz"
    np.savez(file, image=np.array([print], dtype=object), label=np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(ArtefactError, match="damaged"):
        store.read_slice("s00_ED", 0)


@pytest.mark.parametrize(
    "damage",
    ["nothing", "input", "settings", "frame", "bit", "missing slice", "record", "unknown key"],
)
def test_a_case_is_kept_only_when_whole_and_made_from_the_same(store, damage):
    _, case, record = write(store)
    inputs, settings = INPUT, record.settings_sha256
    folder = store.folder / "s00_ED"
    if damage == "input":
        inputs = {"imagesTr/s00_ED_0000.nii.gz": "b" * 64}
    elif damage == "settings":
        settings = preprocessing_sha256(make_preprocessing(spacing_yx_mm=(1.4, 1.5)))
    elif damage == "frame":
        case = replace(case, frame=4)
    elif damage == "bit":
        data = bytearray((folder / "001.npz").read_bytes())
        data[-1] ^= 1
        (folder / "001.npz").write_bytes(data)
    elif damage == "missing slice":
        (folder / "005.npz").unlink()
    elif damage == "record":
        (folder / "case.json").write_bytes((folder / "case.json").read_bytes()[:100])
    elif damage == "unknown key":
        (folder / "case.json").write_text((folder / "case.json").read_text().replace('"phase"', '"face"'))
    assert store.is_complete(case, source(inputs), settings) is (damage == "nothing")


def test_new_groups_reach_the_record_without_new_slices(store):
    _, case, record = write(store, groups={"vendor": "A"})
    moved = replace(case, groups={"vendor": "B"}, phase="ES")
    assert store.is_complete(moved, source(INPUT, {"a": (1, 2)}), record.settings_sha256)
    again = store.case_record("s00_ED")
    assert (again.groups, again.phase, again.slices) == ({"vendor": "B"}, "ES", record.slices)
    assert again.stamps == {"a": (1, 2)}


def test_only_what_changes_the_slices_counts_as_other_settings(store):
    plan = make_preprocessing()
    records = [write(store)[2]]
    store.require_made_with(make_preprocessing(patch_size=(64, 64), batch_size=2), records)
    for change in (
        {"spacing_yx_mm": (1.4, 1.5)},
        {"clip_percentiles": (5, 99)},
        {"channel_names": ("other",)},
        {"labels": {"background": 0, "LV": 1}},
    ):
        assert preprocessing_sha256(make_preprocessing(**change)) != preprocessing_sha256(plan)
        with pytest.raises(ArtefactError, match=r"1 cases \(s00_ED.*other settings"):
            store.require_made_with(make_preprocessing(**change), records)


@pytest.mark.parametrize("nth", range(7))
def test_a_full_disk_at_any_write_leaves_the_old_case_and_no_temporary_file(store, monkeypatch, nth):
    from pathlib import Path

    write(store)
    before = {path.name: path.read_bytes() for path in (store.folder / "s00_ED").iterdir()}
    count = 0
    for method in ("write_bytes", "write_text"):
        original = getattr(Path, method)

        def failing(self, *args, original=original, **kwargs):
            nonlocal count
            count += 1
            if count == nth + 1:
                original(self, args[0][:7])
                raise OSError(28, "No space left on device", str(self))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Path, method, failing)
    with pytest.raises(UtsegError, match=r"could not be written \(No space left"):
        write(store, plan=make_preprocessing(clip_percentiles=(0, 100)))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (store.folder / "s00_ED").iterdir()} == before
    assert [path.name for path in store.folder.iterdir()] == ["s00_ED"]


def test_a_folder_without_cases_and_unknown_cases(store):
    assert store.case_ids() == ()
    with pytest.raises(ArtefactError, match="not found; fix it with"):
        store.case_record("nobody")


def test_reading_a_slice_is_quick(store):
    rng = np.random.default_rng(0)
    loaded = make_loaded(rng.normal(0, 1, (1, 256, 256)), np.zeros((1, 256, 256), np.uint8), (8, 1.4, 1.4))
    plan = make_preprocessing()
    store.write_case(preprocess_case(loaded, plan), loaded.case, source({}), "")
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        store.read_slice("s00_ED", 0)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.004  # about .0004 s; the margin is for busy machines
