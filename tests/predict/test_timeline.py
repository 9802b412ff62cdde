"""When each stage worked: sums by hand, and the order of the stages of real volumes."""

from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tiny_models import band_model

from utseg.case import Case
from utseg.predict import pipeline
from utseg.predict.pipeline import predict_cases
from utseg.predict.timeline import NETWORK, READING, RESTORING, STAGES, WRITING, Span, Timeline

VOLUMES = ["cine frame 0", "cine frame 1", "single"]


@pytest.fixture()
def timelines(monkeypatch) -> list[Timeline]:
    """Those that were drawn."""
    drawn: list[Timeline] = []
    write = Timeline.write_picture

    def keep(timeline: Timeline, path: Path) -> None:
        drawn.append(timeline)
        write(timeline, path)

    monkeypatch.setattr(Timeline, "write_picture", keep)
    return drawn


def make_timeline(monkeypatch, now: float) -> Timeline:
    timeline = Timeline()
    timeline.start = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    return timeline


def test_the_summary_is_right_by_hand(monkeypatch):
    timeline = make_timeline(monkeypatch, 110.0)
    assert timeline.summary() is None
    timeline.add("a", Span(READING, 100, 101), Span(NETWORK, 101, 104), Span(NETWORK, 105, 106))
    timeline.add("b", Span(READING, 101, 103), Span(NETWORK, 106, 110))
    timeline.add("b", Span(RESTORING, 104, 104.25))
    assert timeline.seconds(NETWORK) == [4, 4]
    assert timeline.summary() == (
        "the network worked for 8.0 of 10.0 s (80%; all together took 1.25 times as long); "
        "median seconds a volume: reading 1.50, network 4.00, restoring 0.25"
    )


@pytest.mark.parametrize("volumes", [0, 3, 200])
def test_a_picture_has_every_volume_and_a_sane_size(tmp_path, monkeypatch, volumes):
    timeline = make_timeline(monkeypatch, 100.0 + volumes)
    for number in range(volumes):
        starts = number + np.arange(4) / 4
        timeline.add(
            f"v{number}", *(Span(stage, 100 + s, 100.2 + s) for stage, s in zip(STAGES, starts, strict=True))
        )
    timeline.write_picture(tmp_path / "line.png")
    with Image.open(tmp_path / "line.png") as picture:
        picture.load()
        assert picture.width == 1210
        assert picture.height <= 3300
        colours = {colour[:3] for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(0x56, 0xB4, 0xE9), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7)} <= colours


@pytest.mark.parametrize("workers", [None, 1])
def test_stages_of_a_volume_follow_each_other(tmp_path, monkeypatch, timelines, workers):
    """In this process and in others, whose clock is the same."""
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 10 if workers is None else 0)
    for name, shape in {"cine": (16, 20, 2, 2), "single": (16, 20, 2)}.items():
        image = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([1.25, 1.25, 8, 1])), tmp_path / f"{name}.nii.gz")
    cases = [Case(name, name, (tmp_path / f"{name}.nii.gz",)) for name in ("cine", "single")]
    models = [band_model(), band_model(49.0, "other plan", spacing_yx_mm=(2.0, 2.0))]
    predict_cases(cases, models, tmp_path / "out", workers=workers, timeline=tmp_path / "new" / "line.png")
    (timeline,) = timelines
    assert sorted(timeline.spans) == VOLUMES
    for spans in timeline.spans.values():
        ordered = sorted(spans, key=lambda span: span.start)
        assert [span.stage for span in ordered][:5] == [READING, NETWORK, NETWORK, RESTORING, WRITING]
        assert ordered[0].start >= timeline.start
        assert all(one.end <= other.start for one, other in pairwise(ordered))
    assert len(timeline.spans["single"]) == 5
    assert sum(len(timeline.spans[name]) for name in VOLUMES[:2]) == 11  # the cine's file is written once
    assert (tmp_path / "new" / "line.png").is_file()
