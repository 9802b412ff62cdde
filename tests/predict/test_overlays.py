"""Pictures of predictions show the mask that is there, and are made again only where they do not."""

import re

import numpy as np
import pytest
from PIL import Image
from tiny_models import band_model

from utseg.case import Case
from utseg.errors import UtsegError
from utseg.figures.montage import stack_montage
from utseg.files import sha256
from utseg.predict import overlays, pipeline
from utseg.predict.overlays import OverlayJob, overlay_path, shown_mask, write_overlay
from utseg.predict.pipeline import predict_cases

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}


@pytest.fixture()
def cases(tmp_path):
    from test_pipeline import case_of, random_volume, write_image

    return [
        case_of(write_image(tmp_path / f"case{i}.nii.gz", random_volume(i, (2, 16, 20)))) for i in range(4)
    ]


def stamps(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "overlays").glob("*.png")}


def shows_its_mask(out, case_id):
    return shown_mask(overlay_path(out, case_id)) == sha256(out / f"{case_id}.nii.gz")


@pytest.mark.parametrize("inline", [True, False])
def test_every_case_has_a_picture_of_its_mask(tmp_path, cases, monkeypatch, inline):
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 10 if inline else 2)
    out = tmp_path / "out"
    predict_cases(cases, [band_model()], out, workers=2, overlays=True)
    assert set(stamps(out)) == {f"{case.case_id}.png" for case in cases}
    assert all(shows_its_mask(out, case.case_id) for case in cases)
    assert not list(out.rglob(".tmp-*"))


def test_without_the_wish_there_are_none(tmp_path, cases):
    predict_cases(cases[:1], [band_model()], tmp_path / "out")
    assert not (tmp_path / "out" / "overlays").exists()


def test_pictures_are_kept_made_up_for_and_never_stale(tmp_path, cases, monkeypatch):
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 10)
    out = tmp_path / "out"
    predict_cases(cases, [band_model()], out)
    masks = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    predict_cases(cases, [band_model()], out, resume=True, overlays=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == masks
    first = stamps(out)
    assert len(first) == 4

    overlay_path(out, "case1").unlink()
    torn = overlay_path(out, "case2")
    torn.write_bytes(torn.read_bytes()[:-50])
    other = overlay_path(out, "case3")
    other.write_bytes(overlay_path(out, "case0").read_bytes())
    before = stamps(out)
    predict_cases(cases, [band_model()], out, resume=True, overlays=True)
    after = stamps(out)
    assert after["case0.png"] == first["case0.png"]
    assert after["case2.png"] > before["case2.png"] and after["case3.png"] > before["case3.png"]
    assert all(shows_its_mask(out, case.case_id) for case in cases)

    predict_cases(cases[:2], [band_model(1.0, mirror_axes=("x",))], out)
    assert set(stamps(out)) == {"case2.png", "case3.png"}, "a mask that is replaced takes its picture along"


def test_of_a_cine_the_fullest_frame_is_shown(tmp_path):
    from test_pipeline import case_of, random_volume, write_image

    cine = random_volume(3, (4, 2, 20, 24))
    cine[2, :, 5:15, 5:15] += 150
    case = case_of(write_image(tmp_path / "cine.nii.gz", cine))
    (mask,) = predict_cases([case], [band_model()], tmp_path / "out", workers=1, overlays=True)
    from test_pipeline import read_mask

    fullest = int(np.count_nonzero(read_mask(mask), axis=(1, 2, 3)).argmax())
    with Image.open(overlay_path(tmp_path / "out", "cine")) as picture:
        assert re.fullmatch(rf"cine · frame {fullest} of 4, .*", picture.text["Title"])


def test_a_case_that_is_one_frame_of_a_cine_shows_that_frame(tmp_path, monkeypatch):
    from test_pipeline import random_volume, write_image

    cine = random_volume(3, (3, 2, 20, 24))
    path = write_image(tmp_path / "cine.nii.gz", cine)
    seen = []

    def spy(image_ZYX, label_ZYX, *rest):
        seen.append(image_ZYX)
        return stack_montage(image_ZYX, label_ZYX, *rest)

    monkeypatch.setattr(overlays, "stack_montage", spy)
    predict_cases([Case("es", "es", (path,), frame=2)], [band_model()], tmp_path / "out", overlays=True)
    np.testing.assert_array_equal(seen[0], cine[2])


def test_nothing_is_drawn_where_the_picture_is_there(tmp_path, cases, monkeypatch):
    out = tmp_path / "out"
    predict_cases(cases[:1], [band_model()], out, overlays=True)
    job = OverlayJob(cases[0], out / "case0.nii.gz", sha256(out / "case0.nii.gz"), LABELS)
    assert not write_overlay(job)
    overlay_path(out, "case0").unlink()
    assert write_overlay(job)


def test_a_picture_that_cannot_be_written_ends_the_run_with_the_masks_on_record(tmp_path, cases, monkeypatch):
    def full(path, data):
        raise UtsegError(f"{path}: could not be written (No space left on device)")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "WITHOUT_POOL", 10)
        patch.setattr(overlays, "write_bytes", full)
        with pytest.raises(UtsegError, match=r"overlays/case0\.png: could not be written"):
            predict_cases(cases, [band_model()], out, overlays=True)
    masks = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert len(masks) == 4
    predict_cases(cases, [band_model()], out, resume=True, overlays=True)
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
    assert len(stamps(out)) == 4
