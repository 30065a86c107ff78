"""The loop that all runners share, over toy stages."""

import json
from dataclasses import replace

import pytest
import toy
from toy import SHARDS, Choose, Cut, Join, Measure, digests, remove_all

from a2data.journal import progress_path
from a2data.records import ClipVideo, Kept, Score
from a2data.stage import Stage
from pipelines.run.local import InProcessExecutor, ProcessExecutor
from pipelines.run.schedule import JobResult, groups, run
from pipelines.triplets import triplets


def test_a_second_run_makes_nothing(store):
    assert run(toy.toy(), store, SHARDS, InProcessExecutor(store)).jobs == 16
    assert run(toy.toy(), store, SHARDS, InProcessExecutor(store)).jobs == 0


def test_a_changed_setting_remakes_that_stage_and_what_follows_it(store):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    changed = [Cut(), Measure(), Choose(most=0.0), Join()]

    assert run(changed, store, SHARDS, InProcessExecutor(store)).jobs == 8
    assert list(store.read("join", 0, Score)) == []


def test_a_change_that_alters_no_row_stops_there(store):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))

    assert run([Cut(), Measure(), Choose(most=99.0), Join()], store, SHARDS, InProcessExecutor(store)).jobs == 4


def test_a_lost_part_is_remade_alone(store):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    store.remove("measure", "00002.parquet")

    assert run(toy.toy(), store, SHARDS, InProcessExecutor(store)).jobs == 1


def test_a_new_shard_leaves_the_others_alone_but_for_what_looks_at_all(store):
    run(toy.toy(), store, SHARDS[:3], InProcessExecutor(store))

    assert run(toy.toy(), store, SHARDS, InProcessExecutor(store)).jobs == 3 + 4


def test_a_clip_that_raises_is_named_and_left_out_of_all_that_follows(store):
    stages = [Cut(), Measure(bad="1-00000002"), Choose(), Join()]

    summary = run(stages, store, SHARDS, InProcessExecutor(store))

    failed = {c: why for s in SHARDS for c, why in store.footer("measure", s).failed.items()}
    assert failed == {f"{s:015x}1-00000002": "ValueError: this clip is bad" for s in SHARDS}
    assert store.footer("choose", 0).skipped == [f"{0:015x}1-00000002"]
    assert sum(len(list(store.read("join", s, Score))) for s in SHARDS) == 24 - 4
    assert not summary.failed_jobs


def test_what_is_rejected_is_counted_with_its_reason(store):
    run([Cut(), Measure(), Choose(most=1.0), Join()], store, SHARDS, InProcessExecutor(store))

    assert [r.reason for r in store.footer("choose", 1).rejected] == ["too long"] * 6


def test_a_job_that_raises_as_a_whole_is_named_and_the_rest_continues(store):
    class Broken(Choose):
        per = "shard"

        def run(self, model, clips, scores, shard):
            if shard == 2:
                raise RuntimeError("this shard cannot be chosen from")
            return super().run(model, clips, scores)

        @classmethod
        def name(cls):
            return "choose"

    summary = run([Cut(), Measure(), Broken(), Join()], store, SHARDS, InProcessExecutor(store))

    assert summary.failed_jobs == {("choose", (2,)): "RuntimeError: this shard cannot be chosen from"}
    assert summary.blocked == 1  # the join over all
    assert store.shards("choose") == [0, 1, 3]
    assert store.get("choose", "00002.broken")


@pytest.mark.parametrize("count", [1, 2])
def test_children_make_the_same_as_this_process_does(store, tmp_path, count):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    here = digests(store)
    remove_all(store)

    assert run(toy.toy(), store, SHARDS, ProcessExecutor(store, count)).jobs == 16
    assert digests(store) == here


def test_a_clip_that_kills_its_worker_is_set_aside_and_the_rest_is_done(store):
    stages = [Cut(), replace(Measure(), deadly=f"{1:015x}0-00000001"), Choose(), Join()]

    summary = run(stages, store, SHARDS, ProcessExecutor(store))

    assert store.footer("measure", 1).failed == {
        f"{1:015x}0-00000001": "killed its worker 3 times: the worker was killed by SIGABRT"
    }
    assert sum(len(list(store.read("join", s, Score))) for s in SHARDS) == 23
    assert not summary.failed_jobs


def test_of_several_in_flight_the_one_that_kills_its_worker_is_found(store):
    deadly = f"{1:015x}0-00000001"

    summary = run([Cut(), toy.Measures(deadly=deadly), Choose(), Join()], store, SHARDS, ProcessExecutor(store))

    assert store.footer("measure", 1).failed == {deadly: "killed its worker 3 times: the worker was killed by SIGABRT"}
    assert sum(len(list(store.read("join", s, Score))) for s in SHARDS) == 23
    assert not summary.failed_jobs


class LeavingNodes(InProcessExecutor):
    """The first `count` workers that measure a clip are lost with their nodes."""

    def __init__(self, store, count: int):
        super().__init__(store)
        self.count = count
        self.skipped: list[dict] = []

    def start(self, worker, group, todo, job, skip):
        self.skipped.append(dict(skip))
        if group[0].name() != "measure" or not self.count:
            return super().start(worker, group, todo, job, skip)
        self.count -= 1
        self.store.put(json.dumps({"units": [f"{job[0]:015x}0-00000001"]}).encode(), *progress_path(todo, job[0]))
        self.done.append(JobResult(group, job, "", "its node left", node_lost=True))
        return None


@pytest.mark.parametrize(
    ("losses", "failed"), [(11, set()), (12, {"was in flight on 12 nodes that left: its node left"})]
)
def test_a_clip_is_not_blamed_for_nodes_that_leave_unless_there_are_very_many(store, losses, failed):
    executor = LeavingNodes(store, losses)

    run(toy.toy(), store, [1], executor)

    assert {*store.footer("measure", 1).failed.values()} == failed
    assert len(list(store.read("join", 1, Score))) == 6 - len(failed)
    assert sum(map(bool, executor.skipped)) == len(failed)  # no clip is a suspect that runs alone


def test_neighbours_that_look_at_the_same_films_go_together():
    names = [[stage.name() for stage in group] for group in groups(triplets())]

    assert ["embed", "detect", "faces", "active-speaker", "parse", "background", "caption", "ground"] in names
    assert ["select"] in names


def test_neighbours_that_do_not_run_on_the_same_clips_stay_apart():
    """Else those of the second that the first does not have would get no row, and nothing would say so."""

    class Selected(Stage):
        reads = {"select": Kept, "segment": ClipVideo}
        writes = Score

    class Every(Stage):
        reads = {"segment": ClipVideo}
        writes = Score

    assert len(groups([Selected(), Every()])) == 2
    assert len(groups([Selected(), Selected()])) == 1


def test_units_must_ascend(store):
    rows = [Kept("b-00000000", "b"), Kept("a-00000000", "a")]
    store.write("cut", 0, Kept, rows)

    summary = run([Measure()], store, [0], InProcessExecutor(store))

    assert "ascending order" in summary.failed_jobs["measure", (0,)]
