"""What a person sees: lines in a log, bars on a terminal."""

import io
import json
import re

import pytest
import toy
from rich.console import Console
from toy import Choose, Cut, Join, Measure

from a2data.journal import progress_path
from a2data.store.ledger import Ledger
from pipelines.run.local import InProcessExecutor
from pipelines.run.progress import NO_PROGRESS, Bars, Lines, _format_counts, progress_listener, read_note, step_counter
from pipelines.run.schedule import Scheduler, run

SHARDS = [0, 1, 2, 3]
BAD = [Cut(), Measure(bad="1-00000002"), Choose(most=1.0), Join()]


def bars(store, stages, executor) -> tuple[Bars, str]:
    """The bars after a run over a terminal, and the last screen."""
    out = io.StringIO()
    seen = Bars(store, SHARDS, Console(file=out, force_terminal=True, width=120, color_system=None))
    run(stages, store, SHARDS, executor, seen)
    return seen, out.getvalue().rsplit("cut ", 1)[1]


def test_a_log_has_a_line_for_each_stage_that_is_done(store, capsys):
    run(BAD, store, SHARDS, InProcessExecutor(store), Lines(store, SHARDS))
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]

    assert lines == [
        "cut: 4 of 4 jobs, 8 done, 0 rejected, 0 failed",
        "measure: 4 of 4 jobs, 20 done, 0 rejected, 4 failed",
        "choose: 4 of 4 jobs, 20 done, 20 rejected, 0 failed",
        "join: 1 of 1 jobs, 0 done, 0 rejected, 0 failed",
    ]
    run(BAD, store, SHARDS, InProcessExecutor(store), Lines(store, SHARDS))
    assert capsys.readouterr().err == ""  # all fresh


def test_a_log_has_a_line_a_minute_for_a_stage_that_is_not_done(store, capsys, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr("pipelines.run.progress.time.monotonic", lambda: now_s)
    board, seen = Scheduler([Cut()], Ledger(store), SHARDS), Lines(store, SHARDS)
    (group,) = board.groups
    seen("begin", board)
    seen("start", (group, (0,)))
    store.fs.create_dir(store.path("cut"))
    note = {"share": 0.25, "done": 3, "rejected": 1, "failed": 0}
    store.write_text(json.dumps(note), *progress_path(group, 0))
    for second in range(150):
        now_s = float(second)
        seen("look", {(group, (0,)): group})
    seen("end", board)

    line = "cut: 0.25 of 4 jobs, 3 done, 1 rejected, 0 failed"
    assert capsys.readouterr().err.splitlines() == [
        f"[   60.0 s] {line}",
        f"[  120.0 s] {line}",
        "[  149.0 s] cut: 0 of 4 jobs, 0 done, 0 rejected, 0 failed",
    ]


def test_a_narrow_bar_cuts_rejects_before_failures():
    assert _format_counts((12345, 678, 9), " · ", short=True) == "12345 done · 9 failed · 678 rejected"
    assert _format_counts((12, 0, 0), " · ", short=True) == "12 done"
    assert _format_counts((12, 0, 0), " · ") == "12 done · 0 rejected · 0 failed"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_bar_and_its_times_fit_the_terminal(store, width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    run(BAD, store, SHARDS, InProcessExecutor(store), Bars(store, SHARDS, console))
    screen = out.getvalue().rsplit("cut ", 1)[1].splitlines()

    (line,) = [line for line in screen if line.startswith("measure ")]
    assert len(line) <= width
    assert "━━━━━━━━" in line
    assert "100% 20 done" in line
    assert "4 failed" in line
    assert re.search(r"0:00:\d\d left 0:00:00", line)


def test_bars_end_full_and_count_over_all_shards(store):
    seen, screen = bars(store, BAD, InProcessExecutor(store))

    assert [(task.completed, task.total) for task in seen.progress.tasks] == [(4, 4), (4, 4), (4, 4), (1, 1)]
    assert "100% 20 done · 0 rejected · 4 failed" in screen
    assert "100% 20 done · 20 rejected · 0 failed" in screen


def test_bars_count_what_was_fresh_already(store):
    run(toy.toy(), store, SHARDS[:3], InProcessExecutor(store))
    seen, screen = bars(store, toy.toy(), InProcessExecutor(store))

    assert [(task.completed, task.total) for task in seen.progress.tasks] == [(4, 4), (4, 4), (4, 4), (1, 1)]
    assert "100% 24 done · 0 rejected · 0 failed" in screen
    assert "not reached" not in screen


@pytest.fixture
def by_hand(store):
    """Bars over four shards of one stage, a clock that the test sets, and the only group."""
    seen = Bars(store, SHARDS, Console(file=io.StringIO(), width=120))
    seen.progress.get_time = lambda: seen.now_s
    seen.now_s = 0.0
    board = Scheduler([Cut()], Ledger(store), SHARDS)
    seen("begin", board)
    yield seen, board.groups[0]
    seen("end", board)


def test_a_bar_moves_with_the_units_in_hand(store, by_hand):
    seen, group = by_hand
    (task,) = seen.progress.tasks
    store.fs.create_dir(store.path("cut"))
    for shard, share in ((0, 0.5), (1, 0.25)):
        store.write_text(
            json.dumps({"share": share, "done": 3, "rejected": 1, "failed": 0}), *progress_path(group, shard)
        )

    seen("look", {(group, (0,)): group, (group, (1,)): group, (group, (2,)): group})
    assert task.completed == 0.75
    assert task.fields["counts"] == "6 done · 2 rejected · 0 failed"


def test_the_time_left_goes_by_the_share_that_is_done(store, by_hand):
    seen, group = by_hand
    (task,) = seen.progress.tasks
    store.fs.create_dir(store.path("cut"))
    seen("start", (group, (0,)))
    for percent in range(0, 60, 10):
        seen.now_s += 60.0
        store.write_text(
            json.dumps({"share": percent / 100, "done": 0, "rejected": 0, "failed": 0}), *progress_path(group, 0)
        )
        seen("look", {(group, (0,)): group})

    assert task.completed == 0.5
    assert task.time_remaining == pytest.approx(3.5 * 600, rel=0.1)  # 600 s for a shard


def test_what_was_fresh_does_not_shorten_the_time_left(store, by_hand):
    seen, group = by_hand
    (task,) = seen.progress.tasks
    for shard in SHARDS[:2]:
        seen("fresh", (group, [(shard,)]))
    seen("look", {})
    seen("start", (group, (2,)))
    store.fs.create_dir(store.path("cut"))
    for percent in (10, 20, 30):
        seen.now_s += 60.0
        store.write_text(
            json.dumps({"share": percent / 100, "done": 0, "rejected": 0, "failed": 0}), *progress_path(group, 2)
        )
        seen("look", {(group, (2,)): group})

    assert task.completed == 2.3
    assert task.time_remaining == pytest.approx(1.7 * 600, rel=0.1)


def test_a_job_that_breaks_is_told_above_the_bars_and_what_waits_is_not_reached(store):
    class Broken(Choose):
        per = "shard"

        def run(self, model, clips, scores, shard):
            raise RuntimeError(f"[bold] shard {shard} is no good")

        @classmethod
        def name(cls):
            return "choose"

    out = io.StringIO()
    stages = [Cut(), Measure(), Broken(), Join()]
    run(
        stages,
        store,
        SHARDS,
        InProcessExecutor(store),
        Bars(store, SHARDS, Console(file=out, force_terminal=True, width=120)),
    )

    assert "choose, shard 2: RuntimeError: [bold] shard 2 is no good" in out.getvalue()
    assert "not reached" in out.getvalue().rsplit("join", 1)[1]


def test_a_half_written_note_is_ignored(store):
    todo = (Measure(),)
    assert read_note(store, todo, (0,)) == NO_PROGRESS
    store.put(b'{"unit": "a', *progress_path(todo, 0))
    assert read_note(store, todo, (0,)) == NO_PROGRESS


def test_quiet_is_quiet(store, capsys):
    run(toy.toy(), store, SHARDS, InProcessExecutor(store), progress_listener(store, True, SHARDS))

    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_each_task_and_each_step_has_a_line(capsys):
    with step_counter("loading", quiet=False) as count:
        count("tea.mp4", 2)
        count()
        count()
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["tea.mp4:", "tea.mp4: step 1 of 2", "tea.mp4: step 2 of 2"]
