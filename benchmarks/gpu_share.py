"""Share of time that a GPU is busy with `detect`, and the CPU cores that one GPU needs, on a machine without a GPU.

    A2DATA_CORPUS=<folder> python -m benchmarks.gpu_share [--workers 1 4 8] [--clips 6] [--speed 1]

The CPU work is real: clips of a film of the corpus are read, decoded, tracked, cut out and encoded by the stage `detect`. The
networks are stand-ins that hold a lock, shared by all workers, for as long as the network would compute, and return three people
who move. `--speed 2` is a device of twice the speed. Latencies of the networks of `production`:

* rf-detr-seg-large: 8.8 ms a frame (T4, TensorRT, FP16, batch of 1; https://rfdetr.roboflow.com/develop/learn/benchmarks/)
* sam2.1-hiera-large: 25.3 ms a frame (39.5 frames/s on an A100, compiled; README of github.com/facebookresearch/sam2)
* mobilenetv2: runs on the CPU in `production`; here 0, since it is not what is measured

"in turn" decodes, computes and cuts out one after the other; "ahead" decodes the next clips meanwhile. "allowed" is the most that
the cores of this machine, which the workers share, can reach. The last line does not depend on them.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from a2data import job
from a2data.media import video
from a2data.records import ClipVideo, Kept, Video
from a2data.store.tables import Store
from model_zoo import cards
from model_zoo.roles import Detection
from stages.detect import Detect, Models
from stages.segment.stage import Segment

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
FILM = "video/sam2_bedroom.mp4"
DETECT_S, MASKS_S = 0.0088, 1 / 39.5  # a frame
PEOPLE = 3
WARM_UP = 1000  # first of the shards of one clip


@dataclass
class Device:
    """A stand-in for a GPU: one computation at a time, of a known length."""

    lock: Any
    speed: float
    busy_s: float = 0.0

    def compute(self, seconds: float) -> None:
        with self.lock:
            began = time.perf_counter()
            time.sleep(seconds / self.speed)
            self.busy_s += time.perf_counter() - began


class Figures(NamedTuple):
    """What one worker measured."""

    began_s: float
    ended_s: float
    busy_s: float
    cpu_s: float


@lru_cache
def people(height: int, width: int, number: int) -> list[Detection]:
    """Return the people of a frame, each an ellipse that moves to the right. Cached, since a network does not cost CPU time."""
    y, x = np.ogrid[:height, :width]
    found = []
    for n in range(PEOPLE):
        middle, reach = width * (n + 0.5) / PEOPLE + number, width / PEOPLE / 3
        mask = ((x - middle) / reach) ** 2 + ((y - height / 2) / (height * 0.4)) ** 2 <= 1
        box = (middle - reach, height * 0.1, middle + reach, height * 0.9)
        found.append(Detection("human", "person", 0.9, box, mask))
    return found


def stand_ins(device: Device) -> Models:
    def detector(frames: np.ndarray) -> list[list[Detection]]:
        device.compute(DETECT_S * len(frames))
        return [people(*frame.shape[:2], number) for number, frame in enumerate(frames)]

    def masks(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        device.compute(MASKS_S)
        found = people(*frame.shape[:2], 0)
        return np.array([found[n % PEOPLE].mask for n in range(len(boxes))])

    def embedder(pictures: list[np.ndarray], masks: list[np.ndarray]) -> np.ndarray:
        columns = [int(np.flatnonzero(mask.any(0)).mean() * PEOPLE / mask.shape[1]) for mask in masks]
        return np.eye(PEOPLE, dtype=np.float32)[columns]

    return Models(detector, embedder, masks)


def worker(root: str, shard: int, ahead: int, lock: Any, speed: float, start: Any, pipe: Any) -> None:
    """Process one shard, once all workers are ready."""
    job.AHEAD = ahead
    device, stage = Device(lock, speed), Detect(mask_model="sam2.1-hiera-large")
    store, models = Store(root), stand_ins(device)
    with cards.names_only():  # the weights are not needed
        job.run_job([stage], [models], store, (WARM_UP + shard,))  # imports
        start.wait()
        device.busy_s = 0.0
        used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        job.run_job([stage], [models], store, (shard,))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    pipe.send(Figures(began, time.perf_counter(), device.busy_s, cpu_s))


def measure(root: str, count: int, ahead: int, speed: float) -> tuple[float, float, float]:
    """Return the share of time that the device was busy, and the CPU and device seconds of all workers."""
    context = multiprocessing.get_context("spawn")
    lock, start = context.Lock(), context.Barrier(count)
    pipes, processes = [], []
    for shard in range(count):
        ours, theirs = context.Pipe()
        arguments = (root, shard, ahead, lock, speed, start, theirs)
        processes.append(context.Process(target=worker, args=arguments))
        processes[-1].start()
        theirs.close()  # so that a worker that dies is noticed
        pipes.append(ours)
    found = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    wall_s = max(f.ended_s for f in found) - min(f.began_s for f in found)
    busy_s = sum(f.busy_s for f in found)
    return busy_s / wall_s, sum(f.cpu_s for f in found), busy_s


def prepare(store: Store, shards: int, clips: int) -> None:
    """Write the same clips of the film into every shard."""
    path = str(CORPUS / FILM)
    facts = video.probe(path)._asdict()
    del facts["frames"]
    film = Video(video_id="film", path=path, license="", source="", label="", **facts)
    made = Segment(shot_model="").clips(None, film)
    found = [row for row, _ in zip((row for row in made if isinstance(row, ClipVideo)), range(clips), strict=False)]
    found = [replace(found[n % len(found)], clip_id=f"film-{n:08d}") for n in range(clips)]
    for shard in range(shards):
        for number, rows in ((shard, found), (WARM_UP + shard, found[:1])):
            store.write("segment", number, ClipVideo, rows)
            store.write("select", number, Kept, [Kept(row.clip_id, row.video_id) for row in rows])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8])
    arguments.add_argument("--clips", type=int, default=6, help="of each worker")
    arguments.add_argument("--speed", type=float, default=1.0, help="of the device, against the latencies above")
    given = arguments.parse_args()
    if not (CORPUS / FILM).exists():
        sys.exit(f"skipped: no corpus of real footage in {CORPUS}: set A2DATA_CORPUS")
    with tempfile.TemporaryDirectory() as root:
        store = Store(root)
        clips = given.clips
        prepare(store, max(given.workers), clips)
        print(f"{clips} clips a worker, {os.cpu_count()} cores; busy share of the device")
        print(f"{'workers':>7} {'in turn':>8} {'ahead':>8} {'allowed':>8}   CPU s   device s per clip")
        for count in given.workers:
            before, _, _ = measure(root, count, 0, given.speed)
            now, cpu_s, busy_s = measure(root, count, job.AHEAD, given.speed)
            each = f"{cpu_s / count / clips:7.3f} {busy_s / count / clips:10.3f}"
            allowed = min(1.0, (os.cpu_count() or 1) * busy_s / cpu_s)
            print(f"{count:7} {before:8.2f} {now:8.2f} {allowed:8.2f} {each}")
            if count == 1:
                ratio = cpu_s / busy_s
        if 1 in given.workers:
            print(f"cores that keep one device busy: {ratio:.1f} (CPU seconds by device seconds of a clip, one worker)")


if __name__ == "__main__":
    main()
