"""Toy stages that get stuck on some clips, each in another way."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from toy import Choose

from a2data import heartbeat
from a2data.records import Kept, Score
from a2data.stage import Stage

NEVER_S = 600.0


def sleep(_: str) -> None:
    time.sleep(NEVER_S)


def stop(_: str) -> None:
    """Stop this process, as a rule after it has reported on the unit. On a loaded machine the report may not have come by then:
    tests that use this shorten STARTUP_S, the limit that holds before the first report.
    """
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_once(flag: str) -> None:
    if not os.path.exists(flag):
        Path(flag).touch()
        stop(flag)


def hold_the_lock(_: str) -> None:
    """Sleep inside a call into C that keeps the interpreter's lock."""
    ctypes.PyDLL(None).sleep(int(NEVER_S))


def open_fifo(path: str) -> None:
    Path(path).read_bytes()


def advance(_: str) -> None:
    """Take longer than any limit of these tests, a step at a time."""
    for _ in range(16):
        time.sleep(0.25)
        heartbeat.step()


WAYS = {f.__name__: f for f in (sleep, stop, stop_once, hold_the_lock, open_fifo, advance)}


@dataclass(frozen=True)
class Measure(Stage):
    """The toy's measure. For a clip that ends in one of `stuck` it does what `how` says, the last for all others, with `about`.

    "|" stands between several.
    """

    reads = {"cut": Kept}
    writes = Score

    how: str = "sleep"
    stuck: str = "-"
    about: str = ""

    def run(self, model, clips):
        for clip in clips:
            for number, end in enumerate(self.stuck.split("|")):
                if clip.clip_id.endswith(end):
                    hows = self.how.split("|")
                    WAYS[hows[min(number, len(hows) - 1)]](self.about)
            yield Score(clip.clip_id, "length", float(len(clip.clip_id)))


@dataclass(frozen=True)
class Measures(Measure):
    """A measure of three clips at a time."""

    concurrency = 3

    @classmethod
    def name(cls) -> str:
        return "measure"


@dataclass(frozen=True)
class ChooseForEver(Choose):
    """Chooses from a whole shard, and never ends."""

    per = "shard"

    @classmethod
    def name(cls) -> str:
        return "choose"

    def run(self, model, clips, scores, shard):
        time.sleep(NEVER_S)
        yield from clips
