"""What a run says about itself."""

import json
import struct

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import AtomicCounter

from utseg.training.log import RunLog, draw_progress, epoch_line, scalars_of, short


def an_epoch(number, **changes):
    return {
        "epoch": number,
        "epochs": 40,
        "iteration": 10 * number,
        "iterations": 400,
        "slices": 40,
        "loss": 0.4123,
        "terms": {"cross_entropy": 0.1, "dice": 0.3},
        "validation_losses": {"total": 0.5, "cross_entropy": 0.2, "dice": 0.3},
        "gradient_norm": 1.0,
        "learning_rate": 0.01,
        "validation_dice": {"LV": 0.911, "MYO": 0.8, "RV": None},
        "mean_dice": 0.85,
        "both_empty": {"LV": 0, "MYO": 0, "RV": 2},
        "best": False,
        "seconds": 12.34,
        "data_wait_seconds": 0.1,
        "validation_seconds": 2.34,
        "total_seconds": 12.34 * number,
    } | changes


def test_an_epoch_is_one_line():
    expected = "epoch 3/40  loss 0.412  Dice LV .91 MYO .80 RV –  lr 0.01  12.3 s (data wait 0.1 s)"
    assert epoch_line(an_epoch(3)) == expected
    without = epoch_line(an_epoch(3, validation_dice=None, best=True))
    assert "Dice" not in without and without.endswith("best")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, ".00"), (0.914, ".91"), (0.994, ".99"), (0.996, "1.0"), (1.0, "1.0"), (None, "–")],
)
def test_short_dice(value, text):
    assert short(value) == text


def test_the_file_holds_the_history_and_nothing_twice(tmp_path):
    with RunLog(tmp_path, []) as log:
        for number in (1, 2, 3):
            log.epoch(an_epoch(number))
    with RunLog(tmp_path, [an_epoch(1), an_epoch(2)]) as log:
        log.epoch(an_epoch(3))
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[0] == an_epoch(1)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [an_epoch(1, validation_dice=None, mean_dice=None, validation_losses=None)],
        [{key: value for key, value in an_epoch(1).items() if key != "validation_losses"}],
        [an_epoch(1), an_epoch(2)],
    ],
)
def test_progress_is_a_picture_whatever_there_is(history):
    data = draw_progress(history)
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 600 and height > 300


def test_networks_with_and_without_deep_supervision_have_the_same_curves():
    plain = an_epoch(1, loss=0.4)
    deep = an_epoch(1, loss=0.9, terms={"cross_entropy": 0.1, "dice": 0.3, "auxiliary": 0.5})
    both = scalars_of(plain), scalars_of(deep)
    assert both[0]["loss/train"] == pytest.approx(both[1]["loss/train"]) == pytest.approx(0.4)
    assert set(both[1]) - set(both[0]) == {"loss_terms/train_auxiliary"}
    assert both[0]["loss/validation"] == 0.5
    assert both[0]["speed/slices_per_second"] == pytest.approx(40 / 10)
    assert both[0]["progress/hours"] == pytest.approx(12.34 / 3600)


def test_an_epoch_without_validation_has_no_such_curves():
    found = scalars_of(an_epoch(1, validation_dice=None, mean_dice=None, validation_losses=None))
    assert not [tag for tag in found if "validation" in tag and tag != "speed/validation_seconds"]
    assert "loss/train" in found


def test_a_resumed_run_has_every_step_once(tmp_path, monkeypatch):
    # TensorBoard reads files of one second by their number in the process, as text: 10 before 9. A resumed run is another process, later.
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(0))
    with RunLog(tmp_path, []) as log:
        for number in (1, 2, 3):
            log.epoch(an_epoch(number))
    with RunLog(tmp_path, [an_epoch(1), an_epoch(2)]) as log:
        for number in (3, 4):
            log.epoch(an_epoch(number, loss=0.2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = events.Scalars("loss_terms/train_total")
    assert [event.step for event in found] == [10, 20, 30, 40]
    assert [event.value for event in found] == pytest.approx([0.4123, 0.4123, 0.2, 0.2])
