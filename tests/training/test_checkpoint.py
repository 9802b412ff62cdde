"""Checkpoints: what goes in comes out, damage is noticed, a failed write leaves what was there."""

import random
import resource

import numpy as np
import pytest
import torch

from utseg.errors import ArtefactError, UtsegError
from utseg.training import checkpoint


def a_state(epoch=1):
    torch.manual_seed(epoch)
    return {
        "epoch": epoch,
        "network": {"w": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last), "n": torch.tensor(7)},
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.randn(50)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
        },
        "history": [{"loss": 0.25, "dice": None}],
        "name": "a",
    }


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.stride() == right.stride() and left.dtype == right.dtype
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_a_state_comes_back_whole(tmp_path):
    checkpoint.save_latest(a_state(), tmp_path)
    assert same(checkpoint.load_latest(tmp_path), a_state())


@pytest.mark.parametrize("position", np.linspace(0.001, 0.999, 40))
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path, position):
    checkpoint.save_best(a_state(), tmp_path)
    path = tmp_path / checkpoint.BEST
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 0x10
    path.write_bytes(data)
    try:
        found = checkpoint.load(path)
    except ArtefactError as error:
        assert str(path) in str(error)
    else:
        assert same(found, a_state())


def test_flipped_values_are_noticed(tmp_path):
    checkpoint.save_best(a_state(), tmp_path)
    path = tmp_path / checkpoint.BEST
    values = a_state()["network"]["w"].permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    data = path.read_bytes()
    start = data.index(values)
    path.write_bytes(data[: start + 3] + bytes([data[start + 3] ^ 1]) + data[start + 4 :])
    with pytest.raises(ArtefactError, match="checksum"):
        checkpoint.load(path)


def test_a_checkpoint_of_another_version_is_not_called_damaged(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "utseg-checkpoint-1")
        checkpoint.save_latest(a_state(), tmp_path)
    with pytest.raises(
        ArtefactError, match=r"latest\.pt: is of another version .*'utseg-checkpoint-1', .*-2'"
    ):
        checkpoint.load_latest(tmp_path)


def test_a_damaged_latest_gives_the_previous_and_says_so(tmp_path, caplog):
    for epoch in (1, 2, 3):
        checkpoint.save_latest(a_state(epoch), tmp_path)
    path = tmp_path / checkpoint.LATEST
    path.write_bytes(path.read_bytes()[:-200])
    with caplog.at_level("WARNING", "utseg"):
        assert checkpoint.load_latest(tmp_path)["epoch"] == 2
    assert "checkpoint_latest.pt" in caplog.text
    assert "previous checkpoint is used (epoch 2)" in caplog.text


def test_both_damaged_is_an_error_naming_the_file(tmp_path):
    checkpoint.save_latest(a_state(1), tmp_path)
    checkpoint.save_latest(a_state(2), tmp_path)
    for name in (checkpoint.LATEST, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ArtefactError, match=checkpoint.PREVIOUS):
        checkpoint.load_latest(tmp_path)


def test_a_file_with_a_pickle_payload_is_refused_and_nothing_runs(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save(Payload(), tmp_path / checkpoint.LATEST)
    with pytest.raises(ArtefactError, match="not a checkpoint of ours"):
        checkpoint.load(tmp_path / checkpoint.LATEST)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_old_checkpoints(tmp_path, monkeypatch):
    checkpoint.save_latest(a_state(1), tmp_path)
    checkpoint.save_latest(a_state(2), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UtsegError, match=checkpoint.LATEST):
            checkpoint.save_latest(a_state(3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_random_states_come_back(tmp_path):
    def draws():
        return torch.rand(3).tolist(), np.random.random(3).tolist(), random.gauss(0, 1), random.random()  # noqa: NPY002

    random.gauss(0, 1)
    np.random.standard_normal(1)  # noqa: NPY002
    checkpoint.save_best({"random": checkpoint.random_state()}, tmp_path)
    expected = draws()
    torch.rand(100), np.random.random(7), random.random()  # noqa: NPY002
    checkpoint.restore_random_state(checkpoint.load(tmp_path / checkpoint.BEST)["random"])
    assert draws() == expected
