"""The ledger: never another decision than by opening every part, however the folder came to be as it is."""

import os
import shutil
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import Choose, Cut, Join, Measure

from a2data.records import Source
from a2data.store import ledger as module
from a2data.store.ledger import LEDGER_FILE, Ledger
from a2data.store.tables import Store, key_of
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import run

SHARDS = [0, 1, 2]
STAGES = {
    "as before": [Cut(), Measure(), Choose(), Join()],
    "a setting": [Cut(), Measure(), Choose(most=1.0), Join()],
    "no new rows": [Cut(), Measure(), Choose(most=99.0), Join()],
}


def jobs(stage):
    return [tuple(SHARDS)] if stage.per == "all" else [(shard,) for shard in SHARDS]


def by_ledger(store):
    ledger = Ledger(store)
    each = [(n, stage) for n, stages in STAGES.items() for stage in stages]
    told = {(n, s.name(), job): ledger.is_fresh(s)(job) for n, s in each for job in jobs(s)}
    for n, stage in each:
        if stage.per != "all":
            for shard, fresh in zip(SHARDS, ledger.fresh(stage, SHARDS).tolist(), strict=True):
                assert told[n, stage.name(), (shard,)] == fresh
    ledger.save()
    return told


def by_footers(store):
    return {
        (n, s.name(), job): store.is_up_to_date(s, job)
        for n, stages in STAGES.items()
        for s in stages
        for job in jobs(s)
    }


def listed(store, shard, first=0):
    store.write("manifest", shard, Source, [Source(f"{shard:015x}{first}", "a.mp4", "", "", "", 1, "")])


def age(store):
    """Make every part older than any clock's tick."""
    for table in filter(os.path.isdir, map(store.path, os.listdir(store.root))):
        for name in os.listdir(table):
            path = f"{table}/{name}"
            then_ns = os.stat(path).st_mtime_ns
            os.utime(path, ns=(then_ns - 10 * module.RACY_NS, then_ns - 10 * module.RACY_NS))


@pytest.fixture
def made(tmp_path):
    store = Store(tmp_path / "work")
    for shard in SHARDS:
        listed(store, shard)
    run(STAGES["as before"], store, SHARDS, InProcessExecutor(store))
    age(store)
    return store


class Opens:
    """A file system that notes the parts that are opened."""

    def __init__(self, fs):
        self.fs, self.parts = fs, []

    def __getattr__(self, name):
        return getattr(self.fs, name)

    def open_input_file(self, path):
        self.parts.append(path.split("/")[-2:])
        return self.fs.open_input_file(path)


def opened(store):
    """Return the parts that a new ledger opens."""
    watched = Store(store.root)
    watched.fs = Opens(watched.fs)
    by_ledger(watched)
    return watched.fs.parts


def test_a_folder_without_ledgers_is_read_once(made):
    made.remove(LEDGER_FILE)

    assert len(opened(made)) == 5 * len(SHARDS)
    assert opened(made) == []


def test_the_ledger_knows_the_counts_of_each_part(tmp_path):
    store = Store(tmp_path)
    listed(store, 0)
    run([Cut(), Measure(bad="1"), Choose(most=1.0)], store, [0], InProcessExecutor(store))
    age(store)
    Ledger(store).entries("measure")
    (entry,) = Ledger(store).entries("measure").values()
    footer = store.footer("measure", 0)

    assert entry.modified_ns
    assert (entry.key, entry.digest, entry.num_inputs) == (footer.key, footer.digest, 3)
    assert (entry.num_failed, entry.num_rejected) == (len(footer.failed), 0) == (1, 0)
    assert Ledger(store).entries("choose")[0].num_rejected == len(store.footer("choose", 0).rejected) > 0


def test_the_key_is_the_hash_of_all_that_the_rows_depend_on():
    stage, inputs = Choose(), {"measure": "b", "cut": "a"}
    import hashlib
    import json

    from a2data.store.schema import schema

    about = ["choose", stage.version, stage.cache_fields(), str(schema(stage.writes)), {}, inputs]
    assert key_of(stage)(inputs) == hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def test_a_part_replaced_behind_its_back_is_read_again(made):
    opened(made)
    shutil.copyfile(f"{made.root}/cut/00001.parquet", f"{made.root}/cut/00000.parquet")

    assert opened(made) == [["cut", "00000.parquet"]]
    assert by_ledger(made) == by_footers(made)


def test_a_part_that_has_just_been_written_is_not_trusted_yet(made):
    """A second one of the same size, within a tick of the clock, would look the same."""
    opened(made)
    made.remove("measure", "00000.parquet")
    run(STAGES["as before"], made, SHARDS, InProcessExecutor(made))

    assert opened(made) == opened(made) == [["measure", "00000.parquet"]]
    age(made)
    opened(made)
    assert opened(made) == []


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 4000])
def test_a_damaged_ledger_is_rebuilt(made, damage):
    opened(made)
    made.put(damage, LEDGER_FILE)

    assert by_ledger(made) == by_footers(made)
    assert opened(made) == []


def test_a_ledger_of_another_folder_does_not_answer(made, tmp_path):
    opened(made)
    other = Store(tmp_path / "other")
    shutil.copytree(made.root, other.root)
    other.remove("measure", "00001.parquet")
    by_ledger(other)
    made.put(other.get(LEDGER_FILE), LEDGER_FILE)

    assert by_ledger(made) == by_footers(made)


def test_tables_that_were_not_listed_keep_their_entries(made):
    opened(made)
    other = Ledger(made)
    made.remove("cut", "00002.parquet")
    other.entries("cut")
    other.save()

    assert opened(made) == []


def test_a_damaged_page_of_the_ledger_is_read_from_the_parts(made):
    opened(made)
    data = bytearray(made.get(LEDGER_FILE))
    data[100] ^= 1
    made.put(bytes(data), LEDGER_FILE)

    assert by_ledger(made) == by_footers(made)
    assert opened(made) == []


def test_a_run_killed_before_the_ledger_is_written_costs_one_reading(made):
    opened(made)
    before = made.get(LEDGER_FILE)
    run(STAGES["a setting"], made, SHARDS, InProcessExecutor(made))
    made.put(before, LEDGER_FILE)
    age(made)

    assert by_ledger(made) == by_footers(made)
    assert opened(made) == []


def test_two_may_write_at_the_same_time(made):
    made.remove(LEDGER_FILE)
    wanted, found = by_footers(made), []
    threads = [threading.Thread(target=lambda: found.append(by_ledger(Store(made.root)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [wanted] * 4
    assert opened(made) == []
    assert not [name for name in made.names() if name.endswith(".tmp")]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(made, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(Store, "writing", refuse)
    assert by_ledger(made) == by_footers(made)


def test_an_object_store_is_read_once_too(tmp_path, monkeypatch):
    store = Store(f"memory://{tmp_path}")
    for shard in SHARDS:
        listed(store, shard)
    run(STAGES["as before"], store, SHARDS, InProcessExecutor(store))
    monkeypatch.setattr(module, "RACY_NS", 0)
    wanted = by_footers(store)
    assert opened(store)
    assert opened(store) == []
    assert by_ledger(store) == wanted

    store.put(store.get("cut", "00001.parquet"), "cut", "00000.parquet")
    assert opened(store) == [["cut", "00000.parquet"]]
    assert by_ledger(store) == by_footers(store) != wanted


STEPS = st.one_of(
    st.tuples(st.just("run"), st.sampled_from(sorted(STAGES))),
    st.tuples(st.just("one stage"), st.sampled_from(["cut", "measure", "choose", "join"])),
    st.tuples(
        st.sampled_from(["delete", "damage", "swap", "age"]),
        st.sampled_from(["manifest", "cut", "measure", "choose", "join"]),
        st.sampled_from(SHARDS),
    ),
    st.tuples(st.just("relist"), st.sampled_from(SHARDS), st.integers(1, 2)),
    st.just(("look",)),
    st.just(("restore ledger",)),
)


def do(store, kept, what, *args):
    """Do something to a folder that users, runs, disks or copies do."""
    name = f"{args[1]:05d}.parquet" if len(args) == 2 else ""
    if what == "run":
        run(STAGES[args[0]], store, SHARDS, InProcessExecutor(store))
    elif what == "one stage":
        run([s for s in STAGES["a setting"] if s.name() == args[0]], store, SHARDS, InProcessExecutor(store))
    elif what == "delete":
        store.remove(args[0], name)
    elif what == "damage" and (data := store.get(args[0], name)):
        store.put(data[: len(data) // 2] if args[1] else b"\0" * len(data), args[0], name)
    elif what == "swap" and (data := store.get(args[0], f"{(args[1] + 1) % len(SHARDS):05d}.parquet")):
        store.put(data, args[0], name)
    elif what == "restore ledger" and kept:
        store.put(kept, LEDGER_FILE)
    elif what == "age":
        age(store)
    elif what == "relist":
        listed(store, *args)
    elif what == "look":
        by_ledger(store)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=7))
def test_whatever_happened_the_decision_is_that_of_opening_every_part(tmp_path_factory, steps):
    store = Store(tmp_path_factory.mktemp("work"))
    for shard in SHARDS:
        listed(store, shard)
    run(STAGES["as before"], store, SHARDS, InProcessExecutor(store))
    age(store)
    kept = None  # the ledger as it once was
    for step in steps:
        do(store, kept, *step)
        kept = kept or store.get(LEDGER_FILE)
        told = by_ledger(store)
        assert told == by_footers(store)
        assert by_ledger(store) == told
