"""A Dask cluster as executor: the same results as here, dead workers, lost clusters, wrong clusters told in one line, nothing hangs."""

import asyncio
import os
import shutil
import signal
import sys
import time
from functools import partial

import pytest
from rawfiles import make_nnunet

import utseg.compute.cluster as cluster_module
from utseg.commands import evaluate, plan_and_preprocess
from utseg.compute import cluster_checks
from utseg.compute.cluster import dask_executor
from utseg.compute.pool import InlineExecutor, run_each
from utseg.errors import CaseErrors, InputError, UsageError, WorkerError

dask = pytest.importorskip("dask", reason="the extra `dask` is not installed")
from distributed import LocalCluster  # noqa: E402

ALLOWED_FAILURES = 1


@pytest.fixture(scope="module")
def started():
    """Two worker processes of one thread each."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
    ):
        yield cluster


@pytest.fixture
def cluster(started):
    """Both workers, also after a test that killed them."""
    started.wait_for_workers(2, timeout=60)
    return started


def in_threads(**settings):
    """A cluster without processes, which starts at once."""
    return LocalCluster(processes=False, protocol="tcp", dashboard_address=":0", silence_logs=50, **settings)


def double_or_refuse(number):
    if number == 3:
        raise CaseErrors(["three is refused", "it is odd"])
    return 2 * number


def die_once(marker):
    """Kills its worker, when it is done for the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_for(file):
    file.with_suffix(".begun").touch()
    while not file.exists():
        time.sleep(0.02)
    file.with_suffix(".done").touch()


def touch(file):
    file.touch()


def test_items_have_outcomes_and_errors_come_back_whole(cluster, tmp_path):
    with dask_executor(cluster.scheduler_address, writes=tmp_path / "new") as executor:
        outcomes = {each.item: each for each in run_each(double_or_refuse, range(8), executor)}
        assert executor.submit(pow, 3, exp=2).result(timeout=20) == 9
    assert {item: each.result for item, each in outcomes.items() if item != 3} == {
        item: 2 * item for item in range(8) if item != 3
    }
    assert outcomes[3].error.lines() == ["three is refused", "it is odd"]
    assert list((tmp_path / "new").iterdir()) == []  # the token is gone


def test_a_dead_workers_item_is_done_by_another(cluster, tmp_path):
    markers = [tmp_path / f"{number}" for number in range(6)]
    for marker in markers[1:]:
        marker.touch()
    with dask_executor(cluster.scheduler_address, writes=tmp_path) as executor:
        outcomes = list(run_each(die_once, markers, executor))
    assert sorted(each.result for each in outcomes) == sorted(marker.name for marker in markers)


def test_an_item_that_kills_its_workers_is_named_and_stops_no_other(cluster, tmp_path):
    with dask_executor(cluster.scheduler_address, writes=tmp_path) as executor:
        outcomes = {each.item: each for each in run_each(die, range(5), executor, name="case {}".format)}
    error = outcomes.pop(1).error
    assert isinstance(error, WorkerError)
    assert str(error).startswith(f"case 1: {ALLOWED_FAILURES + 1} workers of the cluster died")
    assert sorted(each.result for each in outcomes.values()) == [0, 2, 3, 4]


def test_leaving_early_takes_back_what_waits_and_stops_what_runs(cluster, tmp_path):
    files = [tmp_path / f"{number}.stop" for number in range(4)]
    stop = partial(_touch_all, files)
    with (
        pytest.raises(KeyboardInterrupt),
        dask_executor(cluster.scheduler_address, writes=tmp_path, stop_work=stop) as executor,
    ):
        for file in files:
            executor.submit(wait_for, file)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.begun"))) < 2:
            assert time.monotonic() < deadline, "nothing was begun"
            time.sleep(0.02)
        raise KeyboardInterrupt
    begun, done = len(list(tmp_path.glob("*.begun"))), len(list(tmp_path.glob("*.done")))
    assert begun == done == 2  # waited for when left, not begun since


def _touch_all(files):
    for file in files:
        file.touch()


def test_a_cluster_that_is_gone_ends_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 1.0)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),  # of a worker that ends, and would tell
        in_threads(n_workers=1, threads_per_worker=1) as lost,
        dask_executor(lost.scheduler_address, writes=tmp_path) as executor,
    ):
        future = executor.submit(wait_for, tmp_path / "stop")
        lost.sync(lost.scheduler.close)  # not the workers, which would wait for what they do
        with pytest.raises(WorkerError, match=r"tcp://.*scheduler of the cluster is gone; start it again"):
            list(run_each(abs, [1], executor))
        assert future.exception(timeout=20) is not None
        (tmp_path / "stop").touch()  # its thread is this process's own


def test_a_cluster_that_lost_all_workers_ends_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "POLL_S", 0.05)
    monkeypatch.setattr(cluster_module, "NO_WORKER_S", 0.2)
    with (
        in_threads(n_workers=1, threads_per_worker=1) as deserted,
        dask_executor(deserted.scheduler_address, writes=tmp_path) as executor,
    ):
        deserted.scale(0)
        deserted.sync(lambda: asyncio.wait_for(_until_deserted(deserted.scheduler), 20))
        with pytest.raises(WorkerError, match=r"no worker for 0\.2 s; start workers and repeat"):
            list(run_each(abs, [1], executor))


async def _until_deserted(scheduler):
    while scheduler.workers:
        await asyncio.sleep(0.02)


def test_a_gpu_is_asked_for_only_where_workers_announce_one(cluster, tmp_path):
    with dask_executor(cluster.scheduler_address, writes=tmp_path, gpu=True) as executor:
        assert executor.describe() == "2 workers on 1 machine, 2 tasks at once"
        assert executor.submit(abs, -1).result(timeout=20) == 1
    with in_threads(n_workers=1, threads_per_worker=3, resources={"GPU": 1}) as with_gpu:
        with dask_executor(with_gpu.scheduler_address, writes=tmp_path, gpu=True) as executor:
            assert executor.describe() == "1 workers on 1 machine, 1 GPUs"
            files = [tmp_path / "a.stop", tmp_path / "b.stop"]
            first, second = (executor.submit(wait_for, file) for file in files)
            touch(files[1])
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)  # a thread is free, the GPU is not
            touch(files[0])
            first.result(timeout=20), second.result(timeout=20)
        with dask_executor(with_gpu.scheduler_address, writes=None) as executor:
            assert executor.describe() == "1 workers on 1 machine, 3 tasks at once"


def refused(address, **settings):
    with dask_executor(address, **{"writes": None} | settings):
        raise AssertionError("a wrong cluster was taken")


def test_wrong_addresses_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.3)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 within"):
        refused("tcp://127.0.0.1:9")
    other = tmp_path / "scheduler.json"
    other.write_text("[]")
    with pytest.raises(InputError, match=r"scheduler\.json: not a scheduler's file"):
        refused(str(other))
    for wrong in ("nowhere.json", "gopher://host:70", "host", "host:123456"):
        with pytest.raises(InputError, match=f"--dask {wrong}: no such scheduler file, and no address"):
            refused(wrong)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"`distributed` is not installed.*pip install 'utseg\[dask\]'"):
        refused("tcp://127.0.0.1:9")


def test_a_cluster_without_workers_is_told(monkeypatch):
    monkeypatch.setattr(cluster_module, "FIRST_WORKER_S", 0.2)
    with in_threads(n_workers=0) as empty, pytest.raises(InputError, match="the cluster has no workers"):
        refused(empty.scheduler_address)


def test_other_software_on_workers_is_told(cluster, monkeypatch, caplog):
    own = cluster_checks.versions()
    monkeypatch.setattr(cluster_checks, "versions", lambda: own | {"utseg": "0.0.9"})
    with pytest.raises(
        InputError, match=rf"worker tcp.*: utseg {own['utseg']}, here 0\.0\.9; start workers from"
    ):
        refused(cluster.scheduler_address)
    monkeypatch.setattr(cluster_checks, "versions", lambda: own | {"numpy": "1.0"})
    monkeypatch.setattr(cluster_checks.logger, "propagate", True)
    with dask_executor(cluster.scheduler_address, writes=None):
        assert f"numpy {own['numpy']}, here 1.0; results may differ" in caplog.text


def test_folders_that_workers_see_otherwise_are_told(cluster, tmp_path, monkeypatch):
    assert asyncio.run(cluster_checks._first_unseen(tmp_path / "token", {}, 0)) == str(tmp_path)
    monkeypatch.setattr(cluster_checks, "_listing", lambda folder: "another")
    with pytest.raises(
        InputError, match=rf"{tmp_path}: not the same folder on 2 of 2 workers \(tcp.*same paths"
    ):
        refused(cluster.scheduler_address, reads=[tmp_path])


def contents(folder):
    """Every file's bytes by its name; the lock has a process number in it."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_commands_write_the_same_bytes_on_a_cluster_as_here(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not the workers' folder
    monkeypatch.setattr("utseg.preprocess.dataset.process_pool", lambda workers: InlineExecutor())
    labels = make_nnunet(tmp_path / "home" / "raw" / "Tiny", size_zyx=(4, 36, 32)) / "labelsTr"
    (tmp_path / "masks").mkdir()
    for case, other in (("s00_ED", "s00_ES"), ("s00_ES", "s00_ED"), ("s01_ED", "s01_ED")):
        shutil.copy(labels / f"{other}.nii.gz", tmp_path / "masks" / f"{case}.nii.gz")
    here, there = ["-np", "1"], ["--dask", cluster.scheduler_address]
    planning = ["--home", "home", "-d", "Tiny", "-pl", "cpu", "--quiet"]
    scoring = ["-p", "masks", "-g", "home/raw/Tiny", "--only-predicted", "--quiet", "-o"]
    made = {}
    for name, engine in (("here", here), ("there", there)):
        assert plan_and_preprocess.main([*planning, *engine]) == 0
        (tmp_path / "home" / "preprocessed").rename(tmp_path / f"preprocessed {name}")
        assert evaluate.main([*scoring, "scores", *engine]) == 0
        (tmp_path / "scores").rename(tmp_path / f"scores {name}")
        made[name] = contents(tmp_path / f"preprocessed {name}"), contents(tmp_path / f"scores {name}")
    assert made["here"] == made["there"]
    assert len(made["here"][0]) > 20 and len(made["here"][1]) > 5


def test_workers_of_this_machine_and_a_cluster_are_not_both_asked_for(tmp_path, capsys):
    make_nnunet(tmp_path / "raw" / "Tiny", subjects=1)
    words = ["--home", str(tmp_path), "-np", "2", "--dask", "tcp://127.0.0.1:9", "--dry-run"]
    assert plan_and_preprocess.main(words) == 2
    assert "-np and --dask" in capsys.readouterr().err
