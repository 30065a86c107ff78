"""The Ray executor on a real cluster of two nodes on this machine, with logical GPUs."""

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, replace

import pytest
import toy
import toy_pairs
import toy_stuck
from toy import Choose, Cut, Join, Measure, Threads, digests, remove_all

from a2data.records import Reference, Score
from a2data.store.tables import Store
from pipelines.run.bounded import TimeoutExecutor
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import ClusterLostError, run
from pipelines.run.watchdog import Timeouts
from stages.detect import Detect
from stages.faces import Faces

ray = pytest.importorskip("ray")
from pipelines.run import on_ray, watchdog  # noqa: E402
from pipelines.run.on_ray import RayExecutor  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(toy.__file__), os.getcwd()])
    # by default 15, at which other tests starve a worker for longer than the limits of these tests
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)
    bare = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args=bare)
    cluster.add_node(**bare, num_gpus=2)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


SHARDS = [0, 1]


@dataclass(frozen=True)
class GpuMeasure(Measure):
    gpus = 0.5

    @classmethod
    def name(cls) -> str:
        return "measure"


def test_ray_makes_the_same_as_this_process_does(cluster, store):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    here = digests(store, SHARDS)
    remove_all(store)

    executor = RayExecutor(store, {"cut": 1, "measure": 2}, cpus=0.25)
    assert run(toy.toy(), store, SHARDS, executor).jobs == 4 * len(SHARDS)
    assert digests(store, SHARDS) == here


def test_the_cpus_of_a_worker_do_not_set_the_threads_of_networks(cluster, store, monkeypatch):
    """Ray would set one for each CPU, and the last bits of embeddings would differ."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    run([Cut(), Threads()], store, [0], RayExecutor(store, cpus=1))

    assert {row.value for row in store.read("measure", 0, Score)} == {2.0}


def test_more_pools_than_cpus_do_not_wait_for_one_another(cluster, store):
    summary = run(toy.toy(), store, SHARDS, RayExecutor(store, cpus=1))

    assert summary.jobs == 4 * len(SHARDS)


def test_a_clip_that_kills_its_worker_is_set_aside_and_the_rest_is_done(cluster, store):
    stages = [Cut(), Measure(deadly=f"{1:015x}0-00000001"), Choose(), Join()]

    run(stages, store, [1], RayExecutor(store, cpus=0.25))

    (why,) = store.footer("measure", 1).failed.values()
    assert why.startswith("killed its worker 3 times")
    assert len(list(store.read("join", 1, Score))) == 5


def test_a_share_of_a_gpu_is_granted_where_the_cluster_has_one(cluster, store):
    assert run([Cut(), GpuMeasure()], store, [1], RayExecutor(store, cpus=0.25)).jobs == 2


def test_the_run_continues_when_a_worker_is_killed(cluster, store, tmp_path):
    pids = tmp_path / "pid"

    def kill_one() -> None:
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.01)
        os.kill(int(pids.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = run([Cut(), Measure(seconds=0.1, pids=str(pids))], store, [1], RayExecutor(store, cpus=0.25))
    killer.join()

    assert not summary.failed_jobs
    assert summary.jobs == 2


@pytest.mark.parametrize("cpus", [0.25, 1])  # 1: the worker holds one of two CPUs, and does what tasks have no room for
def test_tiles_by_tasks_give_the_same_references(cluster, tmp_path, cpus):
    people = {f"{letter * 16}": "anna bert carl" for letter in "abc"}
    pairs = Store(tmp_path / "work")
    toy_pairs.fill(pairs, people, per_shard=1)
    *before, retrieve, _, _ = toy_pairs.stages(pairs, people)
    toy_pairs.make(pairs, [*before, retrieve])
    expected = [list(pairs.read("retrieve", shard, Reference)) for shard in range(3)]
    assert [len(rows) for rows in expected] == [6, 6, 6]
    for name in pairs.names("retrieve"):
        pairs.remove("retrieve", name)

    assert run([replace(retrieve, tile=2)], pairs, [0, 1, 2], RayExecutor(pairs, cpus=cpus)).jobs == 3
    assert [list(pairs.read("retrieve", shard, Reference)) for shard in range(3)] == expected


def test_a_unit_that_makes_no_progress_fails_and_a_stopped_worker_is_replaced(cluster, store, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "STARTUP_S", 30.0)
    stages = [
        Cut(),
        toy_stuck.Measure("sleep|stop_once", f"{1:015x}0-00000001|{0:015x}1-00000000", str(tmp_path / "stopped")),
    ]
    executor = TimeoutExecutor(RayExecutor(store, cpus=0.25, timeouts=Timeouts({"measure": 6.0}, 3.0)))

    summary = run([*stages, Choose(), Join()], store, SHARDS, executor)

    assert not summary.failed_jobs
    assert (tmp_path / "stopped").exists()
    assert store.footer("measure", 0).failed == {}
    (why,) = store.footer("measure", 1).failed.values()
    assert why.startswith("measure made no progress for 6 s")
    assert sum(len(list(store.read("join", s, Score))) for s in SHARDS) == 11


def test_a_run_ends_when_no_node_can_take_its_workers(cluster, store, monkeypatch, caplog):
    monkeypatch.setattr(on_ray, "REMINDER_S", 0.3)

    with pytest.raises(
        ClusterLostError, match=r"placed no worker for 1 s: each requests 64 CPU.*re-run the same command"
    ):
        run([Cut()], store, SHARDS, TimeoutExecutor(RayExecutor(store, cpus=64, placement_s=1.0)))

    assert "no node with 64 CPU free" in caplog.text


def test_the_run_continues_when_a_node_leaves(cluster, store):
    """Last in this file: the node with the GPUs does not come back."""
    (node,) = cluster.worker_nodes
    leaving = threading.Timer(1.5, cluster.remove_node, [node])
    leaving.start()

    summary = run(
        [Cut(seconds=0.05), Measure(seconds=0.05), Choose(), Join()], store, SHARDS, RayExecutor(store, cpus=0.5)
    )
    leaving.join()

    assert not summary.failed_jobs
    assert sum(len(list(store.read("join", s, Score))) for s in SHARDS) == 12


def test_a_share_of_a_gpu_is_dropped_with_a_warning_where_there_is_none(cluster, store, caplog):
    with caplog.at_level(logging.WARNING, "a2data"):
        summary = run([Cut(), GpuMeasure()], store, [1], RayExecutor(store, cpus=0.25))

    assert summary.jobs == 2
    assert "running on CPU" in caplog.text


def test_a_worker_takes_the_memory_of_its_models_as_its_share_of_a_gpu():
    detect = Detect(model="rf-detr-seg-large", mask_model="sam2.1-hiera-large")  # 1.5 and 3 GB; 1 GB for the process
    unknown = Faces(model="insightface")  # its card states a fraction only
    assert on_ray.gpu_fraction((detect,), None) == pytest.approx(0.5)
    assert on_ray.gpu_fraction((detect,), 80) == pytest.approx(0.07)
    assert on_ray.gpu_fraction((detect, unknown), 80) == pytest.approx(0.07 + 0.25, abs=0.01)
    assert on_ray.gpu_fraction((detect,), 4) == 1.0
    assert on_ray.gpu_fraction((Measure(),), 80) == 0.0
