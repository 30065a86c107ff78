"""Units without progress and stopped workers are reported and ended; the run continues."""

import os
import time

import pytest
from toy import Choose, Cut, Join
from toy_stuck import ChooseForEver, Measure, Measures

from a2data.records import Score
from a2data.store.ledger import Ledger
from pipelines.cli import main as cli
from pipelines.cli import session
from pipelines.run import status, watchdog
from pipelines.run.local import InProcessExecutor, ProcessExecutor
from pipelines.run.schedule import JobResult, run
from pipelines.run.watchdog import WORKER_TIMEOUT_S, Stuck, Timeouts

SHARDS = [0, 1]
STUCK = f"{1:015x}0-00000001"
NO_PROGRESS = "measure made no progress for 3 s: if it needs longer, raise --unit-timeout measure=SECONDS"
SHORT = Timeouts({"measure": 3.0}, 60.0)  # a new process on a loaded machine takes a second for its first unit


@pytest.fixture(autouse=True)
def short_startup(monkeypatch):
    monkeypatch.setattr(watchdog, "STARTUP_S", 30.0)


def rows(store) -> int:
    return sum(len(list(store.read("join", shard, Score))) for shard in SHARDS)


def test_a_unit_that_makes_no_progress_fails_at_once_and_the_rest_is_done(store):
    deaths = []

    def watch(event, about):
        if event == "made" and about[1].worker_error:
            deaths.append(about[1].worker_error)

    stages = [Cut(), Measure("sleep", STUCK), Choose(), Join()]
    summary = run(stages, store, SHARDS, ProcessExecutor(store, timeouts=SHORT), watch)

    assert store.footer("measure", 1).failed == {STUCK: NO_PROGRESS}
    assert status.failures(Ledger(store), ["measure"]) == [("measure", 1, STUCK, NO_PROGRESS)]
    assert deaths == [f"{STUCK}: {NO_PROGRESS}"]  # one try, not three
    assert rows(store) == 11
    assert not summary.failed_jobs

    store.remove("measure", "00001.parquet")  # as `a2data retry` does
    run([Cut(), Measure(), Choose(), Join()], store, SHARDS, InProcessExecutor(store))
    assert store.footer("measure", 1).failed == {}
    assert rows(store) == 12


def test_a_unit_that_advances_is_not_ended(store):
    summary = run([Cut(), Measure("advance", STUCK)], store, [1], ProcessExecutor(store, timeouts=SHORT))

    assert store.footer("measure", 1).failed == {}
    assert summary.jobs == 2


@pytest.mark.slow
def test_a_fifo_that_has_no_writer_is_a_failure_of_its_unit(store, tmp_path):
    os.mkfifo(tmp_path / "film.mp4")
    stage = Measure("open_fifo", STUCK, str(tmp_path / "film.mp4"))

    run([Cut(), stage], store, [1], ProcessExecutor(store, timeouts=SHORT))

    assert store.footer("measure", 1).failed == {STUCK: NO_PROGRESS}


def test_a_worker_that_is_stopped_is_replaced_and_no_unit_is_lost(store, tmp_path):
    stage = Measure("stop_once", STUCK, str(tmp_path / "stopped"))
    executor = ProcessExecutor(store, timeouts=Timeouts({}, 3.0))

    summary = run([Cut(), stage, Choose(), Join()], store, SHARDS, executor)

    assert (tmp_path / "stopped").exists()
    assert store.footer("measure", 1).failed == {}
    assert rows(store) == 12
    assert not summary.failed_jobs


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "hold_the_lock"])
def test_a_unit_that_silences_its_worker_each_time_is_named(store, how):
    summary = run([Cut(), Measure(how, STUCK)], store, [1], ProcessExecutor(store, timeouts=Timeouts({}, 3.0)))

    (why,) = store.footer("measure", 1).failed.values()
    assert why.startswith("killed its worker 3 times: the worker sent no heartbeat for 3")
    assert len(list(store.read("measure", 1, Score))) == 5
    assert not summary.failed_jobs


@pytest.mark.slow
def test_of_several_in_flight_the_ones_that_make_no_progress_are_found(store):
    other = f"{1:015x}1-00000002"

    summary = run([Cut(), Measures("sleep", f"{STUCK}|{other}")], store, [1], ProcessExecutor(store, timeouts=SHORT))

    assert store.footer("measure", 1).failed == {STUCK: NO_PROGRESS, other: NO_PROGRESS}
    assert len(list(store.read("measure", 1, Score))) == 4
    assert not summary.failed_jobs


class Stalls(InProcessExecutor):
    """An executor whose jobs of `measure` get stuck in these units, one round after another."""

    def __init__(self, store, *rounds):
        super().__init__(store)
        self.rounds = list(rounds)

    def start(self, worker, group, todo, job, skip):
        if todo[0].name() != "measure" or not self.rounds:
            super().start(worker, group, todo, job, skip)
            return
        stuck = tuple(Stuck(unit, "measure", 3.0) for unit in self.rounds.pop(0))
        self.done.append(JobResult(group, job, "", "stuck", stuck=stuck))


def test_of_several_units_that_wait_for_one_another_only_the_one_at_fault_fails(store):
    waits = f"{1:015x}1-00000002"
    tries = []
    executor = Stalls(store, [STUCK, waits], [STUCK])

    def watch(event, about):
        if event == "start" and about[0][0].name() == "measure":
            tries.append(about)

    summary = run([Cut(), Measures()], store, [1], executor, watch)

    assert len(tries) == 3  # both, one alone, then all but that one
    assert store.footer("measure", 1).failed == {STUCK: NO_PROGRESS}
    assert len(list(store.read("measure", 1, Score))) == 5
    assert not summary.failed_jobs


def test_a_whole_shard_that_makes_no_progress_is_named_once(store):
    run([Cut(), Measure()], store, [1], InProcessExecutor(store))
    executor = ProcessExecutor(store, timeouts=Timeouts({"choose": 1.0}))

    summary = run([Cut(), Measure(), ChooseForEver(), Join()], store, [1], executor)

    (why,) = summary.failed_jobs.values()
    assert why.startswith("choose made no progress for 1 s")
    assert store.get("choose", "00001.broken").decode() == why


def test_a_run_with_a_stopped_worker_ends_at_once_when_it_is_interrupted(store):
    began = []

    def interrupt(event, about):
        if event == "look" and about:
            began.append(time.monotonic())
            if began[-1] - began[0] > 1:
                raise KeyboardInterrupt

    executor = ProcessExecutor(store)
    run([Cut()], store, [1], InProcessExecutor(store))
    with pytest.raises(KeyboardInterrupt):
        run([Measure("stop", f"{1:015x}0-00000000")], store, [1], executor, interrupt)
    assert time.monotonic() - began[-1] < 5
    assert not any(child.process.is_alive() for child in executor.busy)


def limits(*flags: str) -> Timeouts:
    args = cli.parser().parse_args(["run", "films", "--work", "w", *flags])
    return session.timeouts(args.unit_timeout, args.worker_timeout, [Cut(), Measure()])


def test_limits_are_given_per_stage_or_for_all():
    given = limits("--unit-timeout", "measure=60", "--unit-timeout", "7.5")

    assert (given.of(Cut()), given.of(Measure())) == (7.5, 60.0)
    assert limits().of(Cut()) == 1800.0
    assert limits("--unit-timeout", "0").of(Cut()) == float("inf")
    assert (limits().worker_s, limits("--worker-timeout", "9").worker_s) == (WORKER_TIMEOUT_S, 9.0)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "shear=5", "measure=", "measure=x"])
def test_a_limit_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="write seconds, or stage=seconds"):
        limits(f"--unit-timeout={text}")
