"""A long video in pieces against one pass: CPU seconds, wall time with threads, and whether the clips are the same.

    python -m benchmarks.pieces [--minutes 10] [--piece-s 120] [--threads 2]

The video is rendered, with a cut every 8 seconds. The stage runs without its network, whose cost grows in proportion: detectors
see 300 frames more before each piece, and some 75 (with the network 230) behind it. Shots across borders are decoded twice.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from a2data.media import video
from a2data.records import Video
from a2data.store.source_files import in_place
from a2data.task_map import map_serial
from benchmarks.decode_once import make_video
from pipelines.run.local import in_threads
from stages.segment.stage import Segment


def seconds(work: Callable[[], Any]) -> tuple[float, float, list[Any]]:
    """Return the CPU seconds and the wall time of a call, and the list that it makes."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    made = list(work())
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s, made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--piece-s", type=float, default=120)
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    stage = Segment(shot_model="", piece_s=given.piece_s)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        make_video(path, 640, 360, round(given.minutes * 60), 1_000_000, "veryfast")
        facts = video.probe(str(path))._asdict()
        del facts["frames"]
        film = Video(video_id="film", path=str(path), license="", source="", label="", **facts)
        runs = {
            "one pass": partial(stage.clips, None, film),
            "pieces": partial(stage.clips_by_pieces, None, film, in_place, map_serial),
            f"pieces, {given.threads} threads": partial(
                stage.clips_by_pieces, None, film, in_place, partial(in_threads, given.threads)
            ),
        }
        found = {name: seconds(run) for name, run in runs.items()}
    cpu_s, wall_s, expected = found["one pass"]
    print(f"{given.minutes:g} minutes in pieces of {given.piece_s:g} s, {len(expected)} clips")
    print(f"{'':20} {'CPU s':>7} {'ratio':>6} {'wall s':>7} {'ratio':>6}  clips")
    for name, (cpu, wall, made) in found.items():
        same = "the same" if made == expected else "OTHERS"
        print(f"{name:20} {cpu:7.1f} {cpu / cpu_s:6.2f} {wall:7.1f} {wall / wall_s:6.2f}  {same}")


if __name__ == "__main__":
    main()
