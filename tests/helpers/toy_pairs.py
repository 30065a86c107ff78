"""A corpus of people without pixels, whose tables look like those of the pipeline, for what pairs it: retrieve, pack, forget.

A source's label says who is in its shots, in order: "anna bert" is two shots of 5 s, of one clip each.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from a2data.media import images, video
from a2data.records import Caption, ClipVideo, Element, Kept, Match, Source, Video
from a2data.stage import Stage
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import run
from stages.curate import Curate
from stages.embed import Embed
from stages.listen import Listen
from stages.pack.stage import Pack
from stages.retrieve.stage import Retrieve
from stages.segment.stage import drop_excluded_frames

BOX = (2.0, 2.0, 10.0, 10.0)
MASK = np.pad(np.ones((8, 8), bool), ((2, 14), (2, 22)))


@cache
def black():
    return video.encode(np.zeros((12, 24, 32, 3), np.uint8), 15.0)


def seeded(*words):
    return np.random.default_rng([int.from_bytes(word.encode(), "big") for word in words])


def source(video_id, people):
    return Source(video_id, f"/films/{video_id}.mp4", "CC0-1.0", "", people, 1, "")


@dataclass(frozen=True)
class Ingest(Stage):
    """Each source is a video."""

    reads = {"manifest": Source}
    writes = Video
    per = "video"

    def run(self, model, sources):
        for s in sources:
            size = (32, 24, 0, 15.0, 60.0, "h264", 0)
            yield Video(s.video_id, s.path, s.license, s.source, s.label, *size, s.refused)


@dataclass(frozen=True)
class Segment(Stage):
    """A clip for each word of the label."""

    reads = {"ingest": Video}
    writes = ClipVideo
    per = "video"

    def run(self, model, videos):
        for v in videos:
            for shot, _ in enumerate(v.label.split()):
                clip_id, first = f"{v.video_id}-{shot * 75:08d}", shot * 75
                frames, each = list(range(first, first + 12)), [0.0] * 12
                thumbs = seeded(clip_id).integers(0, 256, (12, 18, 24), dtype=np.uint8).tobytes()
                where = (v.video_id, shot, first, first + 75, "cut", 15.0, 32, 24, frames, [n / 15 for n in frames])
                film = ClipVideo(clip_id, *where, (0.0, 0.0, 32.0, 24.0), 0.0, each, each, each, thumbs, black())
                yield drop_excluded_frames(film, v)


@dataclass(frozen=True)
class Select(Stage):
    """Keeps every clip."""

    reads = {"segment": ClipVideo}
    writes = Kept

    most: float = 1.0

    def run(self, model, films):
        for f in films:
            yield Kept(f.clip_id, f.video_id)


def element(clip_id, kind, vector=(), parent=""):
    png = images.to_png(seeded(clip_id, kind).integers(0, 256, (8, 8, 4), dtype=np.uint8))
    about = (f"{clip_id}/{kind}/0", kind, kind, parent, 5, BOX, 0.9, images.to_rle(MASK), png, images.sha16(png))
    return Element(clip_id, *about, list(vector), "dlib", 0.5, [0, 5], [BOX, BOX], [])


@dataclass(frozen=True)
class Detect(Stage):
    """One human in each clip."""

    reads = {"select": Kept}
    writes = Element

    def run(self, model, kept):
        yield element(kept[0].clip_id, "human")


@dataclass(frozen=True)
class Seen(Stage):
    """Faces: who is in the clip, as the toy's file names it, with an embedding near the person's own direction."""

    reads = {"detect": Element}
    writes = Element

    people: str = ""  # "<video_id>=anna bert; ..."

    @classmethod
    def name(cls):
        return "faces"

    def run(self, model, humans):
        clip_id = humans[0].clip_id
        who = dict(p.split("=") for p in self.people.split("; "))[clip_id[:-9]].split()[int(clip_id[-8:]) // 75]
        vector = seeded(who).normal(size=16) + 0.1 * seeded(clip_id, "face").normal(size=16)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        yield element(clip_id, "face", vector.tolist(), humans[0].element_id)


@dataclass(frozen=True)
class Nothing(Stage):
    """Nothing to be seen."""

    reads = {"select": Kept}
    writes = Element

    def run(self, model, kept):
        return iter(())


class Parse(Nothing):
    """No parts."""


class Background(Nothing):
    """No places."""


class Ground(Nothing):
    """No other things."""


@dataclass(frozen=True)
class Captions(Stage):
    """The same caption for all."""

    reads = {"select": Kept}
    writes = Caption

    @classmethod
    def name(cls):
        return "caption"

    def run(self, model, kept):
        yield Caption(kept[0].clip_id, "a person", [], "", "", "", "", "", 0, 0, "", [])


@dataclass(frozen=True)
class Matches(Stage):
    """The caption's person is the human."""

    reads = {"caption": Caption, "detect": Element}
    writes = Match

    @classmethod
    def name(cls):
        return "match"

    def run(self, model, captions, humans):
        yield Match(captions[0].clip_id, humans[0].element_id, "a person", 0, 8, 1.0, 1.0)


def stages(store, people, **pack):
    named = "; ".join(f"{video_id}={who}" for video_id, who in people.items())
    made = [
        Ingest(),
        Segment(),
        Listen(vad_model=""),
        Select(),
        Detect(),
        Seen(people=named),
        Parse(),
        Background(),
        Ground(),
    ]
    out = f"{store.root}/shards"
    made += [Embed(), Captions(), Matches(), Retrieve(min_face=0.8), Curate()]
    return [*made, Pack(out=out, required_roles="human", **pack)]


def fill(store, people, per_shard=2):
    """The manifest of these videos, {video_id: people}, so many to a shard."""
    rows = [source(video_id, who) for video_id, who in sorted(people.items())]
    for shard, first in enumerate(range(0, len(rows), per_shard)):
        store.write("manifest", shard, Source, rows[first : first + per_shard])


def make(store, todo):
    """Bring everything up to date; the number of jobs that it took."""
    summary = run(todo, store, store.shards("manifest"), InProcessExecutor(store))
    assert not summary.failed_jobs, summary.failed_jobs
    return summary.jobs
