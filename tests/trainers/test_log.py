"""What a run says about itself."""

import json
import struct

import pytest

from trainers.log import RunLog, draw_progress, epoch_line, short


def an_epoch(number, **changes):
    return {
        "epoch": number,
        "epochs": 40,
        "iteration": 10 * number,
        "iterations": 400,
        "loss": 0.4123,
        "terms": {"cross_entropy": 0.1, "dice": 0.3},
        "gradient_norm": 1.0,
        "learning_rate": 0.01,
        "validation_dice": {"LV": 0.911, "MYO": 0.8, "RV": None},
        "mean_dice": 0.85,
        "both_empty": {"LV": 0, "MYO": 0, "RV": 2},
        "best": False,
        "seconds": 12.34,
        "data_wait_seconds": 0.1,
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
    "history", [[], [an_epoch(1, validation_dice=None, mean_dice=None)], [an_epoch(1), an_epoch(2)]]
)
def test_progress_is_a_picture_whatever_there_is(history):
    data = draw_progress(history)
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 600 and height > 300
