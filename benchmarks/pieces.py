"""A long video in pieces against one pass: CPU seconds, wall time with threads, the clips, and a killed worker.

    python -m benchmarks.pieces [--minutes 10] [--piece-s 120] [--threads 2]

The video is rendered, with a cut every 8 seconds. The stage runs without its network, whose cost grows in proportion: detectors
see 300 frames more before each piece, and some 75 (with the network 230) behind it. Shots across borders are decoded twice.
Then a worker process does the same job, once undisturbed and once killed (SIGKILL) when half of the pieces are done.
"""

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from a2data.media import video
from a2data.records import Video
from a2data.store.partial import SUFFIX
from a2data.store.source_files import open_in_place
from a2data.store.tables import Store
from a2data.task_map import map_serial
from benchmarks.decode_once import make_video
from pipelines.run.local import ProcessExecutor, thread_task_map
from pipelines.run.schedule import run
from stages.segment.stage import Segment


def seconds(work: Callable[[], Any]) -> tuple[float, float, list[Any]]:
    """Return the CPU seconds and the wall time of a call, and the list that it makes."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    made = list(work())
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s, made


@contextmanager
def killer(store: Store, executor: ProcessExecutor, after: int) -> Iterator[set[str]]:
    """Kill the worker once `after` results are written; yields the results that were written, as name and time."""
    seen, ended = set[str](), threading.Event()

    def look() -> None:
        killed = after == 0
        while not ended.wait(0.05):
            for path in Path(str(store.root), "segment").glob(f"*{SUFFIX}"):
                try:
                    seen.add(f"{path.name} {path.stat().st_mtime_ns}")
                except FileNotFoundError:  # the part is written
                    continue
            if not killed and len(seen) >= after:
                killed = True
                for child in executor.busy:
                    child.process.kill()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def in_worker(root: Path, film: Video, stage: Segment, after: int) -> tuple[float, int, str]:
    """Return the CPU seconds of the workers of a job, the results that were written, and the digest of the part."""
    store = Store(root)
    store.write("ingest", 0, Video, [film])
    executor, before = ProcessExecutor(store), resource.getrusage(resource.RUSAGE_CHILDREN)
    with killer(store, executor, after) as seen:
        run([stage], store, [0], executor)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    footer = store.footer("segment", 0)
    return cpu_s, len(seen), footer.digest if footer else ""


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
            "pieces": partial(stage.clips_by_pieces, None, film, open_in_place, map_serial),
            f"pieces, {given.threads} threads": partial(
                stage.clips_by_pieces, None, film, open_in_place, partial(thread_task_map, given.threads)
            ),
        }
        found = {name: seconds(work) for name, work in runs.items()}
        count = max(2, round(given.minutes * 60 / given.piece_s))
        calm = in_worker(Path(folder) / "calm", film, stage, 0)
        killed = in_worker(Path(folder) / "killed", film, stage, count // 2)
    cpu_s, wall_s, expected = found["one pass"]
    print(f"{given.minutes:g} minutes in pieces of {given.piece_s:g} s, {len(expected)} clips")
    print(f"{'':20} {'CPU s':>7} {'ratio':>6} {'wall s':>7} {'ratio':>6}  clips")
    for name, (cpu, wall, made) in found.items():
        same = "the same" if made == expected else "OTHERS"
        print(f"{name:20} {cpu:7.1f} {cpu / cpu_s:6.2f} {wall:7.1f} {wall / wall_s:6.2f}  {same}")
    same = "the same" if killed[2] == calm[2] else "OTHERS"
    print(
        f"in a worker {calm[0]:.1f} CPU s; killed after {count // 2} of {calm[1]} results (pieces, shots across borders)"
    )
    print(f"{killed[0]:.1f} CPU s, ratio {killed[0] / calm[0]:.2f}; results written {killed[1]}; clips {same}")


if __name__ == "__main__":
    main()
