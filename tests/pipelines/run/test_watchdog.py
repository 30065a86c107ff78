"""Which workers are to be ended, by a clock that the test sets."""

import pytest
import toy
from toy import Choose, Cut, Join, Measure

from pipelines.run.watchdog import MAX_TICK_S, Timeouts, Watchdog


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Hands:
    """A watchdog of one worker, "w", which does some stages."""

    def __init__(self, *todo, worker_s=60.0, **unit_s):
        self.clock = Clock()
        self.dog = Watchdog(Timeouts(unit_s, worker_s), self.clock)
        self.dog.begin("w", todo)

    def after(self, seconds: float, report=None):
        """Let time go by, a report every second, or none; the verdict at the end."""
        found = []
        for _ in range(round(seconds)):
            self.clock.now_s += 1
            if report is not None:
                self.dog.beat("w", report)
            found = self.dog.verdicts()
        assert all(worker == "w" for worker, _ in found)
        return found[0][1] if found else None


def test_a_unit_that_makes_no_progress_is_named_after_its_limit():
    hands = Hands(Measure(), measure=30.0)

    assert hands.after(30, {"a-1": ("measure", 7)}) is None
    verdict = hands.after(2, {"a-1": ("measure", 7)})
    assert [(stuck.unit, stuck.stage) for stuck in verdict.stuck] == [("a-1", "measure")]
    assert verdict.message().startswith("a-1: measure made no progress for 30 s")
    assert "--unit-timeout measure=SECONDS" in verdict.message()


def test_a_unit_that_advances_may_take_as_long_as_it_takes():
    hands = Hands(Measure(), measure=30.0)

    for step in range(20):
        assert hands.after(25, {"a-1": ("measure", step)}) is None


def test_the_limit_is_that_of_the_stage_that_has_the_unit():
    hands = Hands(Measure(), Choose(), measure=10.0, choose=100.0)

    assert hands.after(50, {"a-1": ("choose", 3)}) is None
    assert hands.after(12, {"a-1": ("measure", 4)}).stuck[0].limit_s == 10.0


def test_of_several_units_only_those_without_progress_are_named():
    hands = Hands(Measure(), measure=10.0)

    for step in range(12):
        verdict = hands.after(1, {"a-1": ("measure", 0), "a-2": ("measure", step)})
    assert [stuck.unit for stuck in verdict.stuck] == ["a-1"]


def test_a_worker_without_a_sign_of_life_is_ended_and_no_unit_is_blamed():
    hands = Hands(Measure(), worker_s=60.0)
    hands.after(1, {"a-1": ("measure", 0)})

    assert hands.after(59) is None
    verdict = hands.after(1)
    assert verdict.stuck == ()
    assert "sent no heartbeat for 60 s" in verdict.message()


def test_a_silent_worker_is_not_waited_for_longer_than_its_unit():
    hands = Hands(Measure(), worker_s=60.0, measure=5.0)
    hands.after(1, {"a-1": ("measure", 0)})

    assert hands.after(5).stuck == ()


def test_a_worker_that_starts_is_given_time_to_import():
    hands = Hands(Measure(), worker_s=60.0, measure=5.0)

    assert hands.after(599) is None
    assert hands.after(1).silent_s == 600.0


def test_a_model_that_loads_is_not_measured_by_the_limit_of_a_unit():
    hands = Hands(Measure(), measure=5.0)

    assert hands.after(3000, {"": ("measure", 0)}) is None
    assert hands.after(700, {"": ("measure", 0)}).stuck[0].unit == ""


def test_a_job_over_all_shards_is_measured_as_one_unit():
    hands = Hands(Join(), join=20.0)

    assert hands.after(22, {"": ("join", 0)}).stuck[0].unit == ""


@pytest.mark.parametrize("away_s", [3600, 86400])
def test_a_stopped_driver_does_not_blame_a_worker(away_s):
    hands = Hands(Measure(), measure=30.0)
    hands.after(1, {"a-1": ("measure", 0)})
    hands.clock.now_s += away_s

    assert hands.dog.verdicts() == []
    assert hands.dog.now_s <= 1 + MAX_TICK_S


def test_a_report_of_a_worker_that_is_not_followed_any_more_is_ignored():
    hands = Hands(Cut())
    hands.dog.end("w")
    hands.dog.beat("w", {"a": ("cut", 1)})

    assert hands.dog.verdicts() == []


def test_workers_report_more_often_where_a_limit_is_short():
    assert Timeouts().interval_s(10.0) == 10.0
    assert Timeouts({"cut": 8.0}).interval_s(10.0) == 1.0
    assert Timeouts(worker_s=2.0).interval_s(10.0) == 0.5


def test_every_stage_has_a_generous_limit():
    from pipelines.triplets import triplets

    assert all(Timeouts().of(stage) >= 1800 for stage in [*triplets(), *toy.toy()])
