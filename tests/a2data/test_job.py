"""One job, here and now: what goes together, what is left out, what is written down."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from a2data.job import run_job
from a2data.journal import progress_path
from a2data.records import Failure, Kept, Match, Reference, Reject, Score
from a2data.stage import Stage
from a2data.store.folder import NOTE_BYTES
from a2data.store.tables import SPILL_ROWS, Store

CLIPS = [f"{video}-{n:08d}" for video in "ab" for n in range(3)]


@dataclass(frozen=True)
class First(Stage):
    """Measures a clip; raises for the one named, after a row."""

    reads = {"cut": Kept}
    writes = Score

    bad: str = ""
    rows: int = 2

    def run(self, model, clips):
        for n in range(self.rows):
            yield Score(clips[0].clip_id, "first", float(n))
            if clips[0].clip_id == self.bad:
                raise ValueError("this clip is bad")


@dataclass(frozen=True)
class Second(Stage):
    """Counts what the first one measured."""

    reads = {"cut": Kept, "first": Score}
    writes = Score

    bad: str = ""

    def run(self, model, clips, scores):
        if clips[0].clip_id == self.bad:
            raise ValueError("this clip is bad")
        yield Score(clips[0].clip_id, "second", float(len(scores)))


@dataclass(frozen=True)
class Third(Stage):
    reads = {"cut": Kept, "second": Score}
    writes = Score

    def run(self, model, clips, scores):
        yield Score(clips[0].clip_id, "third", scores[0].value)


@dataclass(frozen=True)
class All(Stage):
    reads = {"third": Score}
    writes = Score
    per = "all"

    def run(self, model, scores):
        for clip_id, shard in zip(scores["clip_id"].to_pylist(), scores["shard"].to_pylist(), strict=True):
            yield Reject(f"{clip_id}/x/0", "odd") if clip_id.endswith("1") else Score(clip_id, "all", float(shard))


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    store = Store(tmp_path if request.param == "folder" else f"memory://{tmp_path}")
    store.write("cut", 0, Kept, [Kept(clip, clip[0]) for clip in CLIPS])
    return store


def clips(store: Store, stage: str) -> list[str]:
    return list(dict.fromkeys(store.values(stage, 0, "clip_id")))


STAGES = [First(), Second(), Third()]


def make(store: Store, stages: list[Stage], together: bool) -> list[tuple]:
    for group in [stages] if together else [[stage] for stage in stages]:
        run_job(group, [None] * len(group), store, (0,))
    footers = [store.footer(stage.name(), 0) for stage in stages]
    return [(f.key, f.digest, f.num_inputs, f.rows, f.failed, f.skipped, f.inputs) for f in footers]


@pytest.mark.parametrize("stages", [STAGES, [replace(First(), bad=CLIPS[1]), replace(Second(), bad=CLIPS[4]), Third()]])
def test_stages_side_by_side_make_the_same_as_one_after_another(store, stages):
    assert make(store, stages, together=True) == make(store, stages, together=False)


@pytest.mark.parametrize("together", [True, False])
def test_a_clip_that_fails_is_named_once_and_absent_from_all_that_follows(store, together):
    make(store, [First(bad=CLIPS[1]), Second(), Third()], together)
    run_job([All()], [None], store, (0,))

    failed = {name: store.footer(name, 0).failed for name in ("first", "second", "third", "all")}
    assert failed == {"first": {CLIPS[1]: "ValueError: this clip is bad"}, "second": {}, "third": {}, "all": {}}
    assert [store.footer(name, 0).skipped for name in ("second", "third", "all")] == [[CLIPS[1]]] * 3
    for name in ("first", "second", "third"):
        assert clips(store, name) == [c for c in CLIPS if c != CLIPS[1]]
    assert [r.key for r in store.footer("all", 0).rejected] == [f"{CLIPS[4]}/x/0"]


def test_a_clip_that_raises_half_way_leaves_no_row(store):
    run_job([First(bad=CLIPS[2], rows=3 * SPILL_ROWS)], [None], store, (0,))

    assert CLIPS[2] not in clips(store, "first")
    assert store.footer("first", 0).rows == 5 * 3 * SPILL_ROWS


def test_a_video_that_failed_leaves_its_clips_out(store):
    with store.create("ingest", Kept, 0) as part:
        part.footer.failed = {"a": "no such file"}
        part.commit()

    @dataclass(frozen=True)
    class Late(Stage):
        reads = {"cut": Kept, "ingest": Kept}
        writes = Score

        def run(self, model, clips, videos):
            yield Score(clips[0].clip_id, "late", 0.0)

    run_job([Late()], [None], store, (0,))

    assert clips(store, "late") == CLIPS[3:]
    assert store.footer("late", 0).skipped == [*CLIPS[:3], "a"]


def test_a_clip_to_be_skipped_fails_with_the_reason_given(store):
    run_job([First()], [None], store, (0,), {CLIPS[0]: "killed its worker"})

    assert store.footer("first", 0).failed == {CLIPS[0]: "killed its worker"}
    assert clips(store, "first") == CLIPS[1:]


@pytest.mark.parametrize("rows", [0, 1, SPILL_ROWS - 1, SPILL_ROWS, SPILL_ROWS + 1, 5 * SPILL_ROWS])
def test_rows_come_back_in_order_however_many_a_clip_has(store, rows):
    run_job([First(rows=rows)], [None], store, (0,))

    made = [(row.clip_id, row.value) for row in store.read("first", 0, Score)]
    assert made == [(clip, float(n)) for clip in CLIPS for n in range(rows)]


def test_the_worker_notes_which_clip_it_has_in_hand(store):
    seen = []

    @dataclass(frozen=True)
    class Peek(First):
        def run(self, model, clips):
            seen.append(json.loads(store.get(*progress_path([self], 0))))
            yield Reject(clips[0].clip_id, "seen")

    run_job([Peek()], [None], store, (0,))

    assert [note["units"] for note in seen] == [[c] for c in CLIPS]
    assert [note["share"] for note in seen] == [n / 6 for n in range(6)]
    assert [(note["done"], note["rejected"]) for note in seen] == [(n, n) for n in range(6)]
    assert store.get(*progress_path([Peek()], 0)) is None


def test_a_shorter_note_leaves_nothing_of_a_longer_one(store):
    store.put(b"", "cut", "x")
    store.write_text(json.dumps("a" * 400), "cut", "x")
    store.write_text(json.dumps("b"), "cut", "x")

    assert json.loads(store.get("cut", "x")) == "b"
    assert len(store.get("cut", "x")) == NOTE_BYTES


def test_rows_over_everything_go_home_to_their_shard(store):
    store.write("third", 0, Score, [Score(CLIPS[0], "third", 1.0), Score(CLIPS[1], "third", 1.0)])
    store.write("third", 1, Score, [Score(CLIPS[3], "third", 1.0)])
    run_job([All()], [None], store, (0, 1))

    assert [row.value for row in store.read("all", 0, Score)] == [0.0]
    assert [row.value for row in store.read("all", 1, Score)] == [1.0]
    assert [r.key for r in store.footer("all", 0).rejected] == [f"{CLIPS[1]}/x/0"]
    assert store.footer("all", 0).key == store.footer("all", 1).key
    assert store.is_up_to_date(All(), (0, 1))
    assert not store.is_up_to_date(All(), (0,))  # another corpus


def test_key_and_digest_are_the_same_in_another_process(tmp_path):
    script = """
        import sys
        sys.path.insert(0, "tests/a2data")
        from test_job import CLIPS, STAGES, make
        from a2data.records import Kept
        from a2data.store.tables import Store
        store = Store(sys.argv[1])
        store.write("cut", 0, Kept, [Kept(clip, clip[0]) for clip in CLIPS])
        print(make(store, STAGES, True))
    """
    there = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "there")],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    store = Store(tmp_path / "here")
    store.write("cut", 0, Kept, [Kept(clip, clip[0]) for clip in CLIPS])

    assert there == f"{make(store, STAGES, together=True)}\n"


def test_a_damaged_part_is_reported_and_moved_aside(tmp_path, caplog):
    store = Store(tmp_path)
    store.put(b"PAR1 and then nothing", "cut", "00000.parquet")

    assert store.footer("cut", 0) is None
    assert f"{tmp_path}/cut/00000.parquet is damaged" in caplog.text
    assert store.get("cut", "00000.parquet.damaged") == b"PAR1 and then nothing"
    assert store.damaged("cut") == {0: f"{tmp_path}/cut/00000.parquet.damaged"}


def test_only_what_a_run_left_behind_is_swept(tmp_path):
    store = Store(tmp_path)
    for folder in ("first", "mine"):
        for name in ("00000.parquet", "a.tmp", "00000.doing", "00000.broken"):
            store.put(b"x", folder, name)

    for table in ("first", "second"):
        store.remove_stale_temp_files(table, store.names(table))

    assert store.names("first") == ["00000.parquet"]
    assert len(store.names("mine")) == 4


@dataclass(frozen=True)
class Careful(Stage):
    """Over a whole shard, and names the clip that it cannot do."""

    reads = {"cut": Kept}
    writes = Score
    per = "shard"

    def run(self, model, clips, shard):
        for clip in clips:
            if clip.clip_id == CLIPS[2]:
                yield Failure(clip.clip_id, "ValueError: this clip is bad")
            else:
                yield Score(clip.clip_id, "shard", float(shard))


def test_a_stage_over_a_shard_may_name_a_clip_as_failed_and_do_the_others(store):
    run_job([Careful()], [None], store, (0,))

    footer = store.footer("careful", 0)
    assert footer.failed == {CLIPS[2]: "ValueError: this clip is bad"}
    assert CLIPS[2] in footer.missing
    assert [row.clip_id for row in store.read("careful", 0, Score)] == [c for c in CLIPS if c != CLIPS[2]]


@dataclass(frozen=True)
class Forgetful(Stage):
    """Measures every clip but one, of which it says nothing."""

    reads = {"cut": Kept}
    writes = Score
    accounts_for = "clip_id"

    lost: str = CLIPS[2]
    at_once: int = 1

    @property
    def concurrency(self):
        return self.at_once

    def run(self, model, clips, shard=0):
        yield from (Score(clip.clip_id, "length", 1.0) for clip in clips if clip.clip_id != self.lost)


@dataclass(frozen=True)
class ForgetfulOfShards(Forgetful):
    per = "shard"


@dataclass(frozen=True)
class After(Stage):
    reads = {"cut": Kept, "forgetful": Score}
    writes = Score

    def run(self, model, clips, scores):
        yield from scores


@pytest.mark.parametrize(
    "stages",
    [[Forgetful()], [Forgetful(at_once=3)], [ForgetfulOfShards()], [Forgetful(), After()]],
    ids=["alone", "in flight", "per shard", "in a group"],
)
def test_a_clip_that_leaves_neither_row_nor_reject_is_reported_as_failed(store, stages):
    run_job(stages, [None] * len(stages), store, (0,))

    footer = store.footer(stages[0].name(), 0)
    assert list(footer.failed) == [CLIPS[2]]
    assert "yielded neither a row nor a reject" in footer.failed[CLIPS[2]]
    assert (footer.num_inputs, footer.rows) == (6, 5)
    if len(stages) > 1:
        assert store.footer("after", 0).skipped == [CLIPS[2]]


def test_a_stage_that_accounts_for_nothing_may_find_nothing(store):
    class Looks(Forgetful):
        accounts_for = ""

    run_job([Looks()], [None], store, (0,))

    footer = store.footer("looks", 0)
    assert (footer.num_inputs, footer.rows, footer.failed) == (6, 5, {})


@dataclass(frozen=True)
class Pairs(Stage):
    """Two references for the first element of each clip, a reject for the second, and of the one named nothing."""

    reads = {"match": Match}
    writes = Reference
    per = "all"
    accounts_for = "element_id"

    lost: str = ""

    def run(self, model, matches):
        for element in matches["element_id"].to_pylist():
            clip, number = element.split("/")
            if element == self.lost:
                continue
            if number == "1":
                yield Reject(element, "no other clip shows it")
                continue
            for other in "xy":
                yield Reference(clip, element, "object", -1, 0, other, f"{other}/0", "", 0.9, 0.1, [])


@pytest.mark.parametrize("lost", ["", f"{CLIPS[1]}/0", f"{CLIPS[1]}/1"])
def test_an_element_that_leaves_neither_row_nor_reject_costs_its_clip_and_no_other(store, lost):
    elements = [f"{clip}/{n}" for clip in CLIPS for n in range(2)]
    store.write("match", 0, Match, [Match(e.split("/")[0], e, "it", 0, 2, 0.9, 0.5) for e in elements])

    run_job([Pairs(lost)], [None], store, (0,))

    footer = store.footer("pairs", 0)
    whole = [clip for clip in CLIPS if not lost.startswith(clip)] if lost else CLIPS
    assert list(footer.failed) == ([CLIPS[1]] if lost else [])
    assert all(lost in why for why in footer.failed.values())
    assert [r.key for r in footer.rejected] == [f"{clip}/1" for clip in whole]
    assert [r.element_id for r in store.read("pairs", 0, Reference)] == [f"{clip}/0" for clip in whole for _ in "xy"]
    assert footer.num_inputs == 2 * len(whole) + len(footer.failed)  # two references of an element count once


@dataclass(frozen=True)
class Waits(First):
    """A first that waits for each clip, the earlier ones longer, with some clips in flight."""

    at_once: int = 3

    @property
    def concurrency(self):
        return self.at_once

    def run(self, model, clips):
        with model.lock:
            model.now += 1
            model.most = max(model.most, model.now)
            model.order.append(clips[0].clip_id)
            model.notes.append(json.loads(model.store.get(*progress_path([self], 0)) or "null"))
            model.alone[clips[0].clip_id] = model.now
        time.sleep(0.1 if clips[0].clip_id in CLIPS[::2] else 0.03)
        with model.lock:
            model.now -= 1
        yield from super().run(None, clips)


def waiting(store: Store, stage: Waits, skip: dict | None = None) -> SimpleNamespace:
    model = SimpleNamespace(lock=threading.Lock(), now=0, most=0, order=[], notes=[], alone={}, store=store)
    run_job([stage], [model], store, (0,), skip)
    return model


@pytest.mark.parametrize("bad", ["", CLIPS[2]])
def test_clips_in_flight_make_the_same_part_as_one_after_another(store, bad):
    one = waiting(store, Waits(bad=bad, at_once=1))
    footer = store.footer("waits", 0)
    many = waiting(store, Waits(bad=bad, at_once=3))
    assert (one.most, many.most) == (1, 3)
    assert one.order == CLIPS
    assert sorted(many.order) == CLIPS
    assert store.footer("waits", 0).digest == footer.digest
    assert store.footer("waits", 0).failed == footer.failed == ({bad: "ValueError: this clip is bad"} if bad else {})


def test_the_note_names_all_that_are_in_flight(store):
    model = waiting(store, Waits(at_once=6))
    assert store.get(*progress_path([Waits()], 0)) is None
    longest = max((note["units"] for note in model.notes if note), key=len)
    assert len(longest) > 1
    assert longest == [clip for clip in CLIPS if clip in longest]  # in order; who is done already is not in it


def test_a_clip_is_noted_before_it_begins_so_that_one_that_kills_at_once_is_known(store):
    model = waiting(store, Waits(at_once=3))
    unnoted = [clip for clip, note in zip(model.order, model.notes, strict=True) if clip not in (note or {})["units"]]
    assert unnoted == []


def test_a_clip_that_may_have_killed_a_worker_is_done_with_nothing_beside_it(store):
    model = waiting(store, Waits(), {CLIPS[2]: "", CLIPS[4]: "killed its worker 3 times"})
    assert model.alone[CLIPS[2]] == 1
    assert model.most > 1
    assert store.footer("waits", 0).failed == {CLIPS[4]: "killed its worker 3 times"}
    assert clips(store, "waits") == [c for c in CLIPS if c != CLIPS[4]]


def test_an_interrupt_ends_it_at_once_and_leaves_no_part(store):
    class Endless(Waits):
        def run(self, model, clips):
            if clips[0].clip_id == CLIPS[0]:
                raise KeyboardInterrupt
            model.release.wait(30)
            yield from ()

    release = threading.Event()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run_job([Endless()], [SimpleNamespace(release=release)], store, (0,))
    assert time.perf_counter() - began < 25  # the others would wait for 30
    release.set()
    assert store.footer("endless", 0) is None
