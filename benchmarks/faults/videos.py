"""Damaged video files through enrolment, `ingest` and `segment`: is each accounted for, and does any hang a worker?"""

import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from a2data.records import Source
from a2data.store.tables import Store
from benchmarks.faults.damage import WAYS
from benchmarks.faults.table import Row
from pipelines.run import schedule
from pipelines.run.local import ProcessExecutor
from pipelines.sources.enrolment import enroll
from stages.ingest import Ingest
from stages.segment.stage import Segment

CONTAINERS = {
    "mp4": "libx264",
    "mkv": "libx264",
    "mov": "mpeg4",
    "ts": "mpeg2video",
    "avi": "mpeg4",
    "webm": "libvpx-vp9",
}
WIDTH, HEIGHT, FRAMES, FPS = 320, 240, 50, 25
VIDEOS_PER_SHARD = 16


def write_video(path: Path, codec: str) -> Path:
    """Write 2 s of a moving gradient."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = np.stack([(x + 3 * number) % 256, (y + number) % 256, (x + y) // 3 % 256], 2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_damaged(folder: Path, count: int, rng: random.Random) -> int:
    """Write at least `count` damaged videos, every way of damage for every container; return how many."""
    sources = {suffix: write_video(folder.parent / f"whole.{suffix}", codec) for suffix, codec in CONTAINERS.items()}
    folder.mkdir()
    repeats = -(-count // (len(WAYS) * len(CONTAINERS)))
    for suffix, whole in sources.items():
        data = whole.read_bytes()
        for way in WAYS:
            for number in range(repeats):
                (folder / f"{way.__name__}-{number:02d}.{suffix}").write_bytes(way(data, rng))
    return repeats * len(WAYS) * len(CONTAINERS)


def outcome(store: Store, stage: str, shard: int, unit: str) -> str:
    """Return how a unit of a stage ended; "" for one that is not accounted for."""
    footer = store.footer(stage, shard)
    if footer is None:
        return ""
    if unit in footer.failed:
        return "timed out" if "no progress" in footer.failed[unit] else "failed"
    if unit in footer.skipped:
        return "left out"
    if unit in set(store.values(stage, shard, "video_id")):
        return "kept"
    if any(reject.key == unit or reject.key.startswith(f"{unit}-") for reject in footer.rejected):
        return "rejected"
    return ""


def damaged_videos(root: Path, count: int, seed: int) -> list[Row]:
    """Run `ingest` and `segment` over damaged videos. One row for each way of damage."""
    rng = random.Random(seed)
    write_damaged(root / "videos", count, rng)
    store = Store(root / "work")
    shards = enroll(store, [str(root / "videos")], VIDEOS_PER_SHARD)
    summary = schedule.run([Ingest(), Segment(shot_model="")], store, shards, ProcessExecutor(store, 2))
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    ends: dict[str, Counter[str]] = {way.__name__: Counter() for way in WAYS}
    for shard in shards:
        for source in store.read("manifest", shard, Source):
            way = Path(source.path).name.split("-")[0]
            found = outcome(store, "ingest", shard, source.video_id)
            if found == "kept":
                found = outcome(store, "segment", shard, source.video_id)
            tried[way] += 1
            survived[way] += bool(found) and found != "timed out"
            ends[way][found or "LOST"] += 1
    rows = [Row(f"video: {way}", tried[way], survived[way], _counts(ends[way])) for way in sorted(tried)]
    if summary.failed_jobs:
        rows.append(Row("video: jobs", len(summary.failed_jobs), 0, "; ".join(summary.failed_jobs.values())))
    return rows


def _counts(ends: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(ends.items()))
