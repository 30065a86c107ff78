"""Share of time that a GPU is busy with `detect`, and the CPU cores that one GPU needs, on a machine without a GPU.

    A2DATA_CORPUS=<folder> python -m benchmarks.gpu_share [--workers 1 4 8] [--clips 6] [--speed 1]

The CPU work is real: clips of a film of the corpus are read, decoded, tracked, cut out and encoded by the stage `detect`. The
networks are stand-ins that hold a lock, shared by all workers, for as long as the network would compute, and return three people
who move. `--speed 2` is a device of twice the speed. Latencies of the networks of `production`:

* rf-detr-seg-large: 8.8 ms a frame (T4, TensorRT, FP16, batch of 1; https://rfdetr.roboflow.com/develop/learn/benchmarks/)
* sam2.1-hiera-large: 25.3 ms a frame (39.5 frames/s on an A100, compiled; README of github.com/facebookresearch/sam2)
* mobilenetv2: runs on the CPU in `production`; here 0, since it is not what is measured

"in turn" decodes, computes and cuts out one after the other; "ahead" decodes the next clips meanwhile, which is what a2data does.
"served" is a prototype: as "ahead", but one process has the networks, and workers send it frames and get masks back through
shared memory, which is the cheapest way. "allowed" is the most that the cores of this machine, which the workers share, can reach
with "ahead". The last lines do not depend on them.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import wait
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
RESULT = "the pipe for the result"
WARM_UP = 1000  # first of the shards of one clip
BLOCK_BYTES = 64 << 20  # of shared memory of a worker: the frames of a clip, or their masks


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

    return Models(detector, embedder, masks)


def embedder(pictures: list[np.ndarray], masks: list[np.ndarray]) -> np.ndarray:
    columns = [int(np.flatnonzero(mask.any(0)).mean() * PEOPLE / mask.shape[1]) for mask in masks]
    return np.eye(PEOPLE, dtype=np.float32)[columns]


def remote(pipe: Any, memory: Any) -> Models:
    """Return the networks of `serve`, seen from a worker."""
    block = np.frombuffer(memory, np.uint8)

    def ask(seconds: float, frames: np.ndarray, count: int) -> np.ndarray:
        block[: frames.size] = frames.reshape(-1)
        pipe.send((seconds * len(frames), frames.shape, count))
        shape = pipe.recv()
        return block[: np.prod(shape)].reshape(shape).astype(bool)

    def detector(frames: np.ndarray) -> list[list[Detection]]:
        found = [people(*frame.shape[:2], number) for number, frame in enumerate(frames)]
        every = ask(DETECT_S, frames, PEOPLE)
        return [
            [one._replace(mask=mask) for one, mask in zip(*pair, strict=True)]
            for pair in zip(found, every, strict=True)
        ]

    def masks(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return ask(MASKS_S, frame[None], len(boxes))[0]  # type: ignore[no-any-return]

    return Models(detector, embedder, masks)


def serve(pipes: list[Any], memory: list[Any], speed: float, result: Any) -> None:
    """Compute for the workers, first come, first served, until all have left; answers are written while the next is computed."""
    device, used = Device(nullcontext(), speed), 0.0
    blocks = {pipe: np.frombuffer(part, np.uint8) for pipe, part in zip(pipes, memory, strict=True)}

    def answer(pipe: Any, shape: tuple[int, ...], count: int) -> None:
        number, height, width, _ = shape
        out = blocks[pipe][: number * count * height * width].reshape(number, count, height, width)
        for n in range(number):
            for place in range(count):
                out[n, place] = people(height, width, n)[place % PEOPLE].mask
        pipe.send(out.shape)

    with ThreadPoolExecutor(2) as pool:
        left = list(pipes)
        while left:
            for pipe in wait(left):
                try:
                    seconds, shape, count = pipe.recv()  # type: ignore[union-attr]
                except EOFError:
                    left.remove(pipe)
                    continue
                if seconds == 0:  # all workers are ready: forget what they did before
                    device.busy_s, used = 0.0, cpu_seconds()
                    continue
                device.compute(seconds)
                pool.submit(answer, pipe, shape, count)
    result.send((device.busy_s, cpu_seconds() - used))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def worker(
    root: str, shard: int, ahead: int, lock: Any, speed: float, start: Any, result: Any, server: Any, memory: Any
) -> None:
    """Process one shard, once all workers are ready. server: the pipe to `serve`; None for networks of its own."""
    job.DECODE_AHEAD = ahead
    device, stage = Device(lock, speed), Detect(mask_model="sam2.1-hiera-large")
    store, models = Store(root), remote(server, memory) if server else stand_ins(device)
    with cards.names_only():  # the weights are not needed
        job.run_job([stage], [models], store, (WARM_UP + shard,))  # imports
        if start.wait() == 0 and server:
            server.send((0, (), 0))
        device.busy_s = 0.0
        used, began = cpu_seconds(), time.perf_counter()
        job.run_job([stage], [models], store, (shard,))
    result.send(Figures(began, time.perf_counter(), device.busy_s, cpu_seconds() - used))


def measure(root: str, count: int, ahead: int, speed: float, served: bool = False) -> tuple[float, float, float]:
    """Return the share of time that the device was busy, and the CPU and device seconds of all processes."""
    context = multiprocessing.get_context("spawn")
    lock, start = context.Lock(), context.Barrier(count)
    results, processes, servers, clients = [], [], [], []
    memory = [context.RawArray("B", BLOCK_BYTES) for _ in range(count * served)]

    def begin(work: Any, *arguments: Any) -> None:
        ours, theirs = context.Pipe()
        place = arguments.index(RESULT)
        processes.append(context.Process(target=work, args=(*arguments[:place], theirs, *arguments[place + 1 :])))
        processes[-1].start()
        theirs.close()  # so that a process that dies is noticed
        results.append(ours)

    if served:
        servers, clients = zip(*(context.Pipe() for _ in range(count)), strict=True)
        begin(serve, list(servers), memory, speed, RESULT)
    for shard in range(count):
        mine = (clients[shard], memory[shard]) if served else (None, None)
        begin(worker, root, shard, ahead, lock, speed, start, RESULT, *mine)
    for pipe in (*servers, *clients):
        pipe.close()
    found = [pipe.recv() for pipe in results]
    for process in processes:
        process.join()
    ours = [f for f in found if isinstance(f, Figures)]
    extra_busy_s, extra_cpu_s = found[0] if served else (0.0, 0.0)
    wall_s = max(f.ended_s for f in ours) - min(f.began_s for f in ours)
    busy_s = sum(f.busy_s for f in ours) + extra_busy_s
    return busy_s / wall_s, sum(f.cpu_s for f in ours) + extra_cpu_s, busy_s


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
        print(f"{clips} clips a worker, {os.cpu_count()} cores")
        print(f"{'':8} busy share of the device              CPU s per clip    device s")
        print(
            f"{'workers':>7} {'in turn':>8} {'ahead':>8} {'served':>8} {'allowed':>8} {'ahead':>8} {'served':>8} per clip"
        )
        for count in given.workers:
            before, _, _ = measure(root, count, 0, given.speed)
            now, cpu_s, busy_s = measure(root, count, job.DECODE_AHEAD, given.speed)
            shared, shared_cpu_s, shared_busy_s = measure(root, count, job.DECODE_AHEAD, given.speed, served=True)
            each = count * clips
            allowed = min(1.0, (os.cpu_count() or 1) * busy_s / cpu_s)
            print(
                f"{count:7} {before:8.2f} {now:8.2f} {shared:8.2f} {allowed:8.2f} {cpu_s / each:8.3f} {shared_cpu_s / each:8.3f} "
                f"{busy_s / each:8.3f}",
                flush=True,
            )
            if count == 1:
                ratios = cpu_s / busy_s, shared_cpu_s / shared_busy_s
        if 1 in given.workers:
            print("cores that keep one device busy (CPU seconds by device seconds of a clip, one worker):")
            print(f"networks in each worker {ratios[0]:.1f}, served {ratios[1]:.1f}")


if __name__ == "__main__":
    main()
