"""The crews of this machine: what kills a worker, what a model that does not load means, who may work where."""

import os
import signal
import time

import pytest
import toy
from toy import Choose, Cut, Heavy, Join, Measure, Threads

from a2data.records import Score
from pipelines.run.local import InProcessExecutor, ModelCache, ProcessExecutor
from pipelines.run.lock import exclusive_lock
from pipelines.run.schedule import run

SHARDS = [0, 1, 2, 3]


@pytest.mark.parametrize("executor", [InProcessExecutor, ProcessExecutor])
def test_a_model_that_does_not_load_stops_the_run(store, executor):
    summary = run([Cut(), Heavy(), Choose(), Join()], store, SHARDS, executor(store))

    assert set(summary.failed_jobs.values()) == {"loading a model failed: model 'heavy' needs the package 'heavy'"}
    assert len(summary.failed_jobs) == 1  # not one for each shard
    assert len([name for name in store.names("measure") if name.endswith(".broken")]) == 1
    assert summary.blocked


def test_a_child_that_dies_idle_is_replaced(store):
    class Unlucky(ProcessExecutor):
        def wait(self):
            done = super().wait()
            for child in self.idle:
                os.kill(child.process.pid, signal.SIGKILL)
                child.process.join()
            return done

    summary = run([Cut(), Measure()], store, [0], executor := Unlucky(store))

    assert summary.failed_jobs == {}
    assert store.shards("measure") == [0]
    assert not executor.busy


@pytest.mark.parametrize(("setting", "threads"), [(None, 1.0), ("2", 2.0)])
def test_the_number_of_workers_does_not_set_the_threads_of_networks(store, monkeypatch, setting, threads):
    """With two, they add in another order, and the last bits of embeddings differ."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored after the test
    if setting is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)

    run([Cut(), Threads()], store, [0], ProcessExecutor(store, 1))

    assert {row.value for row in store.read("measure", 0, Score)} == {threads}


def test_children_end_with_the_run(store):
    executor = ProcessExecutor(store, 2)
    started = []

    def interrupt(event, about):
        if event == "look":
            started.extend(child.process for child in executor.busy)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([Cut(seconds=60.0)], store, SHARDS, executor, interrupt)

    assert len(started) == 2
    assert not any(process.is_alive() for process in started)
    assert time.monotonic() - began < 30


def test_models_are_kept_for_the_next_job_and_let_go_before_others_are_loaded():
    alive, loads = set(), []

    class Model:
        def __init__(self, name):
            loads.append((name, sorted(alive)))
            self.name = name
            alive.add(name)

        def __del__(self):
            alive.discard(self.name)

    class Loads(Cut):
        def load(self):
            return Model(self.per_video)

    models = ModelCache()
    models.get((Loads(1), Loads(2)))
    models.get((Loads(2), Loads(3)))

    assert loads == [(1, []), (2, [1]), (3, [2])]


def test_a_work_folder_takes_one_run_at_a_time(store):
    held = rf"in use by process {os.getpid()} on \S+: wait for it or stop it"
    with exclusive_lock(store), pytest.raises(BlockingIOError, match=held), exclusive_lock(store):
        pass
    with exclusive_lock(store):
        assert run(toy.toy(), store, SHARDS, InProcessExecutor(store)).jobs == 16
