"""Pictures of predictions: bounded, in the labels' colours and in mm, of the mask that is there, and made again only where they are not."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import band_model

from utseg.case import Case
from utseg.errors import UtsegError
from utseg.figures.montage import (
    GAP,
    HEADER,
    LARGEST_SIDE,
    MOST_SLICES,
    PIXELS,
    grid_of,
    montage,
    shown_slices,
)
from utseg.figures.outlines import label_colour
from utseg.files import sha256
from utseg.predict import overlays, pipeline
from utseg.predict.overlays import OverlayJob, overlay_path, shown_mask, write_overlay
from utseg.predict.pipeline import predict_cases

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}


def draw(label_ZYX, spacing=(8.0, 1.5, 1.5), image_ZYX=None, labels=LABELS, title="case"):
    if image_ZYX is None:
        image_ZYX = np.random.default_rng(0).random(label_ZYX.shape, dtype=np.float32)
    data = montage(image_ZYX, label_ZYX, spacing, labels, title, {"key": "value"})
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return np.asarray(picture.convert("RGB")).astype(int), picture.text


def rgb(colour):
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def near(pixels, colour, within=60):
    """Where a picture has about this colour."""
    return np.abs(pixels - rgb(colour)).sum(axis=-1) < within


def disc(shape=(4, 80, 80), radius=20):
    y, x = np.mgrid[: shape[1], : shape[2]]
    distance = np.hypot(y - shape[1] / 2 + 0.5, x - shape[2] / 2 + 0.5)
    label = np.zeros(shape, np.uint8)
    label[:, distance < radius] = 2
    label[:, distance < radius / 2] = 1
    return label


def test_outlines_are_in_the_labels_colours_and_the_title_is_there():
    pixels, text = draw(disc(), image_ZYX=np.tile(np.linspace(0, 0.2, 80, dtype=np.float32), (4, 80, 1)))
    assert (text["Title"], text["key"]) == ("case", "value")
    body = pixels[HEADER:]
    assert near(body, label_colour(1)).sum() > 100
    assert near(body, label_colour(2)).sum() > 100
    assert not near(body, label_colour(3), within=30).any()
    assert near(pixels[:HEADER], label_colour(3)).sum() >= 12 * 12  # the legend names every label


def test_what_is_measured_on_the_picture_is_in_mm():
    """The bar and the circle's diameter have one scale, in both directions, whatever the pixels' shape."""
    dark = np.zeros((1, 120, 60), np.float32)
    dark[0, 0, 0] = 1e-3
    y, x = np.mgrid[:120, :60]
    radius_mm = 30.0
    label = (np.hypot((y - 59.5) * 1.0, (x - 29.5) * 2.0) < radius_mm).astype(np.uint8)[np.newaxis]
    pixels, _ = draw(label, (8.0, 1.0, 2.0), dark, {"LV": 1})
    body = pixels[HEADER:]
    rows, columns = np.nonzero(near(body, label_colour(1), within=150))
    white = near(body[-9:], "#F0F0F0", within=20)
    per_mm = white.sum(axis=1).max() / 50
    assert np.ptp(rows) / per_mm == pytest.approx(2 * radius_mm, abs=2.5)
    assert np.ptp(columns) / per_mm == pytest.approx(2 * radius_mm, abs=2.5)


@given(st.integers(1, 24), st.floats(1, 3000), st.floats(1, 3000), st.floats(0.1, 5))
def test_a_picture_is_bounded(count, height_mm, width_mm, step_mm):
    grid = grid_of(count, (height_mm, width_mm), step_mm)
    assert grid.columns * grid.rows >= count
    assert (grid.rows - 1) * grid.columns < count
    assert grid.columns * grid.rows * (grid.width - 0.5) * (grid.height - 0.5) <= PIXELS * 1.01
    assert max(grid.columns * (grid.width - 0.5), grid.rows * (grid.height - 0.5)) <= LARGEST_SIDE


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0.5, 10), st.floats(0.3, 4), st.floats(0.3, 4)),
    st.integers(0, 3),
)
def test_any_volume_gives_a_picture(shape, spacing, most):
    label = np.random.default_rng(1).integers(0, most + 1, shape).astype(np.uint8)
    pixels, _ = draw(label, spacing)
    assert pixels.shape[0] >= HEADER
    assert pixels.shape[0] * pixels.shape[1] < 3 * PIXELS


@given(st.lists(st.booleans(), min_size=1, max_size=90))
def test_tall_stacks_are_thinned_out_evenly_from_one_end_of_what_is_labelled_to_the_other(labelled):
    found = shown_slices(np.array(labelled))
    assert len(found) <= MOST_SLICES
    assert found == sorted(set(found))
    assert found[0] >= 0 and found[-1] < len(labelled)
    if len(labelled) <= MOST_SLICES:
        assert found == list(range(len(labelled)))
    elif any(labelled):
        first, last = labelled.index(True), len(labelled) - 1 - labelled[::-1].index(True)
        assert found[0] <= first and last <= found[-1]
        assert max(np.diff(found), default=1) - min(np.diff(found), default=1) <= 1


def test_the_layout_is_a_header_and_a_grid():
    pixels, _ = draw(disc((6, 40, 40)))
    grid = grid_of(6, (60.0, 60.0), 1.5)
    assert (grid.columns, grid.rows) == (3, 2)
    assert pixels.shape[0] == HEADER + 2 * grid.height + GAP


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
        return montage(image_ZYX, label_ZYX, *rest)

    monkeypatch.setattr(overlays, "montage", spy)
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
