"""What a run would do, and what failed, by the footers alone."""

from dataclasses import replace

import pytest
import toy
from toy import Choose, Cut, Join, Measure

from a2data.records import Source
from a2data.store.ledger import Ledger
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import run
from pipelines.run.status import describe_change, failures, is_replaced, plan, sources
from pipelines.sources import manifest

SHARDS = [0, 1, 2, 3]


@pytest.fixture
def made(store):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    return store


def reasons(store, *stages) -> dict[str, dict[str, int]]:
    return {step.stage: step.reasons for step in plan(stages, Ledger(store), SHARDS)}


def test_nothing_is_made_yet(store):
    assert [(s.stage, s.todo, s.total, s.reasons) for s in plan(toy.toy(), Ledger(store), SHARDS)] == [
        ("cut", 4, 4, {"never made": 4}),
        ("measure", 4, 4, {"never made": 4}),
        ("choose", 4, 4, {"never made": 4}),
        ("join", 1, 1, {"never made": 1}),
    ]


def test_everything_is_made(made):
    assert [step.todo for step in plan(toy.toy(), Ledger(made), SHARDS)] == [0, 0, 0, 0]


def test_a_changed_setting_is_named_with_both_values(made):
    assert reasons(made, Cut(), Measure(), Choose(most=5.0), Join()) == {
        "cut": {},
        "measure": {},
        "choose": {"setting most: 100.0 → 5.0": 4},
        "join": {"follows from choose": 1},
    }


def test_a_lost_part_is_never_made_and_what_follows_follows(made):
    made.remove("measure", "00002.parquet")

    assert reasons(made, *toy.toy()) == {
        "cut": {},
        "measure": {"never made": 1},
        "choose": {"follows from measure": 1},
        "join": {"follows from choose": 1},
    }


def test_a_changed_manifest_is_an_input_that_changed(made):
    made.write("manifest", 1, Source, [Source("f" * 16, "new.mp4", "", "", "", 1, "")])

    assert reasons(made, *toy.toy())["cut"] == {"input changed": 1}


def test_newer_code_is_named(made):
    class Newer(Choose):
        version = 3

        @classmethod
        def name(cls):
            return "choose"

    assert reasons(made, Cut(), Measure(), Newer(), Join())["choose"] == {"code version 1 → 3": 4}


def test_plan_does_not_promise_less_than_a_run_does(made):
    changed = [Cut(), replace(Measure(), seconds=0.001), Choose(), Join()]
    most = sum(step.todo * (len(SHARDS) if step.stage == "join" else 1) for step in plan(changed, Ledger(made), SHARDS))

    assert run(changed, made, SHARDS, InProcessExecutor(made)).jobs == 4 <= most


def test_failures_are_units_and_whole_jobs(store):
    class Broken(Join):
        def run(self, model, clips):
            raise RuntimeError("too many")

        @classmethod
        def name(cls):
            return "join"

    run([Cut(), Measure(bad="1-00000002"), Choose(), Broken()], store, SHARDS, InProcessExecutor(store))

    units = [("measure", n, f"{n:015x}1-00000002", "ValueError: this clip is bad") for n in SHARDS]
    assert failures(Ledger(store), [stage.name() for stage in toy.toy()]) == [
        *units,
        ("join", 0, "", "RuntimeError: too many"),
    ]


def test_a_repaired_unit_is_not_a_failure(store):
    store.put(b"it was", "choose", "00001.broken")
    assert len(failures(Ledger(store), ["choose"])) == 1

    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    assert failures(Ledger(store), ["choose"]) == []


def test_sources_are_known_by_shard_and_id(store):
    assert sources(store, [1, 1])[1, f"{1:015x}0"].path == "10.mp4"
    assert sources(store, []) == {}


def test_a_file_is_replaced_when_its_bytes_are_others(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    (source,) = manifest.sources([str(path)])

    assert not is_replaced(source)
    path.write_bytes(b"one")  # touched
    assert not is_replaced(source)
    path.write_bytes(b"two")
    assert is_replaced(source)
    path.unlink()  # gone is not replaced
    assert not is_replaced(source)


def test_a_change_of_a_list_names_what_came_and_what_went():
    assert describe_change(0.35, 0.5) == "0.35 → 0.5"
    assert describe_change("a 1; b 2; c 3", "a 1; b 3; c 3") == "without b 2; with b 3"
    assert describe_change("a; b", "b; a") == "another order"
    assert describe_change(None, "a; b") == "None → 'a; b'"
