"""Stages small enough to see through, for tests of the runners: numbers instead of films."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from a2data.records import Kept, Reject, Score, Source
from a2data.stage import Stage


@dataclass(frozen=True)
class Cut(Stage):
    """Each source gives `per_video` clips."""

    reads = {"manifest": Source}
    writes = Kept
    per = "video"

    per_video: int = 3
    seconds: float = 0.0

    def run(self, model, sources):
        for source in sources:
            for n in range(self.per_video):
                time.sleep(self.seconds)
                yield Kept(f"{source.video_id}-{n:08d}", source.video_id)


@dataclass(frozen=True)
class Measure(Stage):
    """A number for each clip. Raises for a clip that ends in `bad`, aborts for one that ends in `deadly`."""

    reads = {"cut": Kept}
    writes = Score

    bad: str = "-"
    deadly: str = "-"
    seconds: float = 0.0
    pids: str = ""  # a file that workers write their process id to

    def run(self, model, clips):
        time.sleep(self.seconds)
        if self.pids:
            Path(self.pids).write_text(str(os.getpid()))
        for clip in clips:
            if clip.clip_id.endswith(self.bad):
                raise ValueError("this clip is bad")
            if clip.clip_id.endswith(self.deadly):
                os.abort()
            yield Score(clip.clip_id, "length", float(len(clip.clip_id)))


@dataclass(frozen=True)
class Measures(Measure):
    """A measure of three clips at a time."""

    concurrency = 3

    @classmethod
    def name(cls) -> str:
        return "measure"


@dataclass(frozen=True)
class Heavy(Measure):
    """A measure whose model does not load."""

    @classmethod
    def name(cls) -> str:
        return "measure"

    def load(self):
        raise ModuleNotFoundError("model 'heavy' needs the package 'heavy'")


@dataclass(frozen=True)
class Threads(Measure):
    """The number of threads with which torch computes in the worker."""

    @classmethod
    def name(cls) -> str:
        return "measure"

    def run(self, model, clips):
        import torch

        for clip in clips:
            yield Score(clip.clip_id, "threads", float(torch.get_num_threads()))


@dataclass(frozen=True)
class Choose(Stage):
    reads = {"cut": Kept, "measure": Score}
    writes = Kept

    most: float = 100.0

    def run(self, model, clips, scores):
        for clip, score in zip(clips, scores, strict=True):
            if score.value <= self.most:
                yield clip
            else:
                yield Reject(clip.clip_id, "too long")


@dataclass(frozen=True)
class Join(Stage):
    """Over everything: each clip with the number of all clips."""

    reads = {"choose": Kept}
    writes = Score
    per = "all"

    def run(self, model, clips):
        for clip_id in clips.column("clip_id").to_pylist():
            yield Score(clip_id, "clips", float(len(clips)))


def toy() -> list[Stage]:
    return [Cut(), Measure(), Choose(), Join()]


SHARDS = [0, 1, 2, 3]


def digests(store, shards=SHARDS) -> dict:
    return {(s.name(), n): store.footer(s.name(), n).digest for s in toy() for n in shards}


def remove_all(store) -> None:
    for stage in toy():
        for shard in SHARDS:
            store.remove(stage.name(), f"{shard:05d}.parquet")
