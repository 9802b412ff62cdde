"""Parts of the cases: even, complete, and together the same files as one run, whoever is last, fails, or comes back later."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import band_model

from utseg.case import Case
from utseg.errors import CaseErrors, FolderBusy, UsageError
from utseg.files import folder_lock
from utseg.predict import parts, pipeline
from utseg.predict.parts import Part, shares
from utseg.predict.pipeline import predict_cases

ALL = [Part(number=number, count=3) for number in (1, 2, 3)]


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 30), max_size=25), st.integers(1, 9))
def test_every_case_is_in_one_part_and_the_parts_are_even(volumes, count):
    cases = [Case(name, name, (Path(name),)) for name in volumes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "frames_of", lambda case: volumes[case.case_id])
        dealt = shares(cases, count)
        assert shares(cases[::-1], count) == dealt
    assert len(dealt) == count
    assert sorted(name for share in dealt for name in share) == sorted(volumes)
    loads = [sum(volumes[name] for name in share) for share in dealt]
    assert max(loads) - min(loads) <= max(volumes.values(), default=0)


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "2", "2/", "a/4", "-1/4", "1/0", "2/4/6", "1.5/4", "1/99999", ""]
)
def test_a_wrong_part_is_one_line_that_says_what_is_right(text):
    with pytest.raises(UsageError, match="as in 2/4") as error:
        Part.parse(text)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_a_part_is_read_as_it_is_written():
    assert str(Part.parse("2/4")) == "2/4"
    assert Part.parse("2/4") == Part(number=2, count=4)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Sequence[Case]:
    """Five volumes and a cine."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        shape = (16, 20, 2, 3) if number == 3 else (16, 20 + number, 2)
        image = np.random.default_rng(number).integers(0, 200, shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([1.25, 1.25, 8, 1])), folder / f"case{number}.nii.gz")
    return [Case(f"case{number}", "s", (folder / f"case{number}.nii.gz",)) for number in range(6)]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(parts, "PATIENCE_S", 0.2)


def predict(cases, out, part=None, **options) -> list[Path]:
    options = {"save_probabilities": True, "save_entropy": True, "precision": "float32"} | options
    return predict_cases(cases, [band_model()], out, part=part, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.fixture(scope="module")
def whole(cases, tmp_path_factory) -> dict[str, bytes]:
    """The files of one run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "WITHOUT_POOL", 100)
        predict(cases, out)
    return files_of(out)


def masks(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.nii.gz")}


def test_all_parts_together_are_one_run(cases, whole, tmp_path):
    out = tmp_path / "out"
    made = [predict(cases, out, part) for part in (ALL[2], ALL[0])]
    assert not (out / "prediction.json").exists()
    assert {path.name for path in made[0] + made[1]} == masks(out)
    made.append(predict(cases, out, ALL[1]))
    assert sorted(path.name for each in made for path in each) == [f"case{n}.nii.gz" for n in range(6)]
    assert files_of(out) == whole


def test_parts_in_folders_of_their_own_are_put_together_later(cases, whole, tmp_path):
    together = tmp_path / "together"
    for part in ALL:
        out = tmp_path / f"out{part.number}"
        predict(cases, out, part)
        for name, data in files_of(out).items():
            (together / name).parent.mkdir(parents=True, exist_ok=True)
            (together / name).write_bytes(data)
    stamps = {path: path.stat().st_mtime_ns for path in together.rglob("case*")}
    predict(cases, together, resume=True)
    assert files_of(together) == whole
    assert {path: path.stat().st_mtime_ns for path in together.rglob("case*")} == stamps


def test_a_part_that_is_run_again_is_joined_again(cases, whole, tmp_path):
    out = tmp_path / "out"
    for part in ALL:
        predict(cases, out, part)
        assert (out / "prediction.json").exists() == (part is ALL[2])
    (out / "case0.nii.gz").unlink()  # of a part that is run again by itself
    (part,) = [part for part in ALL if "case0" in shares(cases, 3)[part.number - 1]]
    predict(cases, out, part, resume=True)
    assert files_of(out) == whole


def test_a_part_again_touches_its_own_masks_only(cases, whole, tmp_path):
    out = tmp_path / "out"
    predict(cases, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    mine = predict(cases, out, ALL[0])
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == set(mine)
    assert files_of(out) == whole


def test_more_parts_than_cases(cases, tmp_path):
    out = tmp_path / "out"
    for number in range(1, 4):
        predict(cases[:2], out, Part(number=number, count=3))
    assert masks(out) == {"case0.nii.gz", "case1.nii.gz"}
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {"case0", "case1"}


def test_a_case_that_cannot_be_predicted_does_not_keep_the_others_from_being_joined(cases, whole, tmp_path):
    bad = Case("bad", "s", (tmp_path / "missing.nii.gz",))
    out = tmp_path / "out"
    failures = 0
    for part in ALL:
        try:
            predict([*cases, bad], out, part)
        except CaseErrors as error:
            assert [line.split(":")[0] for line in error.lines()] == ["case bad"]
            failures += 1
    assert failures == 1
    assert files_of(out) == whole


def test_an_older_mask_of_a_case_that_fails_now_is_on_no_record(cases, tmp_path):
    image = tmp_path / "later.nii.gz"
    image.write_bytes(cases[0].images[0].read_bytes())
    every = [*cases[1:3], Case("later", "s", (image,))]
    out = tmp_path / "out"
    predict(every, out)
    image.write_bytes(b"damaged")
    for part in ALL:
        if "later" in shares(every, 3)[part.number - 1]:
            with pytest.raises(CaseErrors, match="case later"):
                predict(every, out, part, resume=True)
        else:
            predict(every, out, part, resume=True)
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {"case1", "case2"}


def test_a_mask_that_was_made_after_a_failure_stays_on_the_joined_record(cases, tmp_path):
    image = tmp_path / "later.nii.gz"
    image.write_bytes(b"damaged")
    every, out = [*cases[1:3], Case("later", "s", (image,))], tmp_path / "out"
    (of_later,) = [part for part in ALL if "later" in shares(every, 3)[part.number - 1]]
    with pytest.raises(CaseErrors, match="case later"):
        predict(every, out, of_later)
    image.write_bytes(cases[0].images[0].read_bytes())
    for number in (1, 2):  # shared out anew
        predict(every, out, Part(number=number, count=2), resume=True)
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {"case1", "case2", "later"}


def test_an_interrupted_part_is_waited_for(cases, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Exception, match="interrupted after 0 of"):
        patch.setattr(pipeline, "_work", interrupted)
        predict(cases, out, ALL[0])
    for part in ALL[1:]:
        predict(cases, out, part)
    assert not (out / "prediction.json").exists()
    predict(cases, out, ALL[0], resume=True)
    assert files_of(out) == whole


def test_parts_of_other_models_are_not_joined(cases, tmp_path, caplog):
    out = tmp_path / "out"
    predict_cases(cases, [band_model(1.0)], out, part=ALL[0])
    for part in ALL[1:]:
        predict(cases, out, part)
    assert "part-1-of-3.json: the masks that it lists were made by other models" in caplog.text
    assert not (out / "prediction.json").exists()
    predict(cases, out, ALL[0])
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {f"case{n}" for n in range(6)}
    assert not list(out.glob("prediction.part*"))


def test_parts_in_unlike_precisions_are_not_joined_and_the_last_one_says_why(cases, whole, tmp_path, caplog):
    out = tmp_path / "out"
    predict(cases, out, ALL[0], precision="bfloat16")
    for part in ALL[1:]:
        predict(cases, out, part, precision="float32")
    said = [line for line in caplog.messages if "such parts are not joined" in line]
    assert len(said) == 2  # of parts 2 and 3
    assert said[-1].startswith(
        f"{out}: prediction.part-1-of-3.json computed in bfloat16, this part in float32"
    )
    assert said[-1].endswith("predict all parts with the same --precision")
    assert "made in bfloat16, not in float32 (see --precision); those that stay" in caplog.text
    caplog.clear()
    predict(cases, out, ALL[0], precision="float32", resume=True)
    assert files_of(out) == whole and "not joined" not in caplog.text


def test_who_may_work_beside_whom(cases, tmp_path):
    out = tmp_path / "out"
    with folder_lock(out), pytest.raises(FolderBusy):
        predict(cases, out, ALL[0])
    with folder_lock(out, shared=True), pytest.raises(FolderBusy):
        predict(cases, out)
    with folder_lock(out, ".lock-part-1-of-3"), pytest.raises(FolderBusy):
        predict(cases, out, ALL[0])
    with folder_lock(out, ".lock-part-1-of-3"), folder_lock(out, shared=True):
        predict(cases, out, ALL[1])
    assert not (out / "prediction.json").exists()


def test_a_part_waits_while_another_joins(cases, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(parts, "PATIENCE_S", 20.0)
    held, release = threading.Event(), threading.Event()

    def join() -> None:
        with folder_lock(out):
            held.set()
            release.wait(20)

    thread = threading.Thread(target=join)
    thread.start()
    assert held.wait(20)
    threading.Timer(0.3, release.set).start()
    predict(cases, out, ALL[0])
    assert release.is_set()
    thread.join()


def test_two_parts_at_once_are_one_run(cases, whole, tmp_path, monkeypatch):
    out, both = tmp_path / "out", threading.Barrier(2, timeout=20)
    work = pipeline._work

    def together(*words) -> None:
        both.wait()  # each holds the folder
        work(*words)

    monkeypatch.setattr(pipeline, "_work", together)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda part: predict(cases, out, Part.parse(part)), ("1/2", "2/2")))
    assert files_of(out) == whole
