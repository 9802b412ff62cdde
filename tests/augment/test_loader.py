"""The loader as a whole: the same batches whoever makes them and wherever a run begins; no hang, no process left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slice_source import NOTHING, MadeSlices, make_plan

from utseg.augment.loader import Batch, SliceCache, list_slices, training_batches
from utseg.errors import ArtefactError, InputError, UtsegError, WorkerError

STORE = MadeSlices()
LARGE = make_plan(patch_size=(160, 160), batch_size=8)  # a batch that no pipe holds


def batches(
    first: int = 0,
    count: int = 6,
    workers: int = 0,
    seed: int = 3,
    store: MadeSlices = STORE,
    rows: range | None = None,
) -> list[Batch]:
    with training_batches(
        store,
        store.records(),
        make_plan(),
        seed=seed,
        first_iteration=first,
        iterations=count,
        workers=workers,
        rows=rows,
    ) as made:
        return list(made)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert [(batch.iteration, batch.names) for batch in first] == [
        (batch.iteration, batch.names) for batch in second
    ]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image_BCHW, other.image_BCHW)
        np.testing.assert_array_equal(one.label_BHW, other.label_BHW)


@pytest.fixture(scope="module")
def reference() -> list[Batch]:
    return batches()


def test_a_batch_is_complete(reference: list[Batch]) -> None:
    assert [batch.iteration for batch in reference] == list(range(6))
    for batch in reference:
        assert batch.image_BCHW.shape == (4, 1, 32, 48) and batch.image_BCHW.dtype == np.float32
        assert batch.label_BHW.shape == (4, 32, 48) and batch.label_BHW.dtype == np.uint8
        assert len(batch.names) == 4 and np.isfinite(batch.image_BCHW).all()
        assert set(np.unique(batch.label_BHW)) <= {0, 1, 2, 3}


def test_workers_make_the_same_batches(reference: list[Batch]) -> None:
    assert_same(batches(workers=2), reference)


@pytest.mark.parametrize(("workers", "rows"), [(0, range(1)), (0, range(1, 4)), (1, range(1, 4))])
def test_parts_of_a_batch_are_those_of_the_whole(workers: int, rows: range, reference: list[Batch]) -> None:
    part = slice(rows.start, rows.stop)
    expected = [
        Batch(whole.image_BCHW[part], whole.label_BHW[part], whole.names[part], whole.iteration)
        for whole in reference[:2]
    ]
    assert_same(batches(count=2, workers=workers, rows=rows), expected)


@pytest.mark.parametrize("first", [1, 4])
def test_a_run_that_begins_later_goes_on_with_the_same_batches(first: int, reference: list[Batch]) -> None:
    assert_same(batches(first=first, count=6 - first), reference[first:])


def test_the_order_of_the_cases_is_immaterial_and_the_seed_is_not(reference: list[Batch]) -> None:
    with training_batches(
        STORE, STORE.records("cab"), make_plan(), seed=3, first_iteration=0, iterations=6, workers=0
    ) as made:
        assert_same(list(made), reference)
    assert batches(seed=4, count=1)[0].names != reference[0].names


def test_without_augmentation_patches_are_windows_of_their_slices() -> None:
    plan = make_plan(augmentation=NOTHING, patch_size=(16, 16), channel_names=("a", "b"))
    store = MadeSlices(channels=2)
    with training_batches(
        store, store.records("b"), plan, seed=0, first_iteration=0, iterations=4, workers=0
    ) as made:
        for batch in made:
            for image, label, name in zip(batch.image_BCHW, batch.label_BHW, batch.names, strict=True):
                source, source_label = store.read_slice(name[0], int(name[2:]))
                windows = np.lib.stride_tricks.sliding_window_view(source, (16, 16), axis=(1, 2))
                found = np.argwhere((windows == image[:, None, None]).all(axis=(0, 3, 4)))
                assert len(found) == 1
                y, x = found[0]
                np.testing.assert_array_equal(source_label[y : y + 16, x : x + 16], label)


def test_styles_come_from_slices_of_another_vendor_at_the_same_height() -> None:
    changes = {"histogram_probability": 1.0, "histogram_share_range": (1.0, 1.0)}
    plan = make_plan(augmentation=NOTHING.model_copy(update=changes), patch_size=(60, 60))
    with training_batches(
        STORE, STORE.records(), plan, seed=0, first_iteration=0, iterations=12, workers=0
    ) as made:
        for batch in made:
            for image, name in zip(batch.image_BCHW, batch.names, strict=True):
                partners = "bc" if name[0] == "a" else "a"
                ends = [STORE.read_slice(case_id, int(name[2:]))[0] for case_id in partners]
                assert any(image.max() == pytest.approx(each.max(), abs=1e-5) for each in ends)


def test_a_selection_of_one_subject_has_no_style_to_take() -> None:
    with (
        pytest.raises(InputError, match="at least two subjects"),
        training_batches(
            STORE, STORE.records("a"), make_plan(), seed=0, first_iteration=0, iterations=1, workers=0
        ) as made,
    ):
        next(made)


def test_the_foreground_share_is_seen_in_the_patches() -> None:
    settings = NOTHING.model_copy(update={"foreground_fraction": 0.5})
    plan = make_plan(augmentation=settings, patch_size=(5, 5), batch_size=8)
    with training_batches(
        STORE, STORE.records(), plan, seed=0, first_iteration=0, iterations=60, workers=0
    ) as made:
        middles = np.concatenate([batch.label_BHW[:, 2, 2] for batch in made])
    assert 0.5 <= (middles > 0).mean() < 0.62
    shares = [(middles == value).mean() for value in (1, 2, 3)]
    assert min(shares) > 0.13


def test_the_cache_keeps_what_fits_and_protects_it() -> None:
    class Counting(MadeSlices):
        reads = 0

        def read_slice(self, case_id: str, z: int) -> tuple[np.ndarray, np.ndarray]:
            Counting.reads += 1
            return super().read_slice(case_id, z)

    image, label = STORE.read_slice("a", 0)
    cache = SliceCache(Counting(), limit_bytes=image.nbytes + label.nbytes)
    for _ in range(3):
        assert not any(array.flags.writeable for array in cache.read_slice("a", 0))
        np.testing.assert_array_equal(cache.read_slice("a", 1)[0], STORE.read_slice("a", 1)[0])
    assert Counting.reads == 4


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(InputError, match="none of the 1 training cases"):
        list_slices(MadeSlices(slices=0).records("a"), make_plan())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_slice_reaches_the_reader(workers: int) -> None:
    with pytest.raises(ArtefactError, match=r"a/001\.npz is damaged"):
        batches(count=8, workers=workers, store=MadeSlices(damaged="a/001"))
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_named_within_seconds() -> None:
    with (
        pytest.raises(WorkerError) as caught,
        training_batches(
            STORE, STORE.records("ab"), LARGE, seed=0, first_iteration=10, iterations=1000, workers=2
        ) as made,
    ):
        assert next(made).iteration == 10
        victim = next(p for p in multiprocessing.active_children() if p.name == "data worker 2 of 2")
        os.kill(victim.pid, signal.SIGKILL)
        begin = time.monotonic()
        for _ in made:
            assert time.monotonic() - begin < 10
    message = str(caught.value)
    assert f"data worker 2 of 2 (process {victim.pid}) was killed by signal 9 (SIGKILL)" in message
    assert "memory" in message and "\n" not in message
    assert isinstance(caught.value, UtsegError)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_leaving_early_or_by_an_error_ends_everything(workers: int) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(ZeroDivisionError),
        training_batches(
            STORE, STORE.records("ab"), LARGE, seed=0, first_iteration=0, iterations=10**6, workers=workers
        ) as made,
    ):
        next(made)
        raise ZeroDivisionError
    assert time.monotonic() - begin < 30
    assert not multiprocessing.active_children()


ORPHANS = """
import multiprocessing, os, signal, sys
from slice_source import MadeSlices, make_plan
from utseg.augment.loader import training_batches
if __name__ == "__main__":
    plan = make_plan(patch_size=(160, 160), batch_size=8)
    with training_batches(MadeSlices(), MadeSlices().records(), plan, seed=0, first_iteration=0, iterations=1000, workers=1) as made:
        next(made)
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_run_is_killed() -> None:
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", ORPHANS],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    worker = int(run.stdout)
    deadline = time.monotonic() + 20
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(worker)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process_id}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
