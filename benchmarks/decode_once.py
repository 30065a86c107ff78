"""Savings of decoding once: CPU seconds of the segment stage against plain decoding and against decoding per consumer.

    python benchmarks/decode_once.py

Also measures the stage's peak memory for a video of one minute and one of ten. Single-threaded, medians of three. The stage runs
without its network and, for the CPU seconds, without encoding: their cost does not depend on the number of decodes.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import cv2
import numpy as np

from a2data.media import video
from a2data.records import ClipVideo, Source, Video
from model_zoo.shots import detector as shots
from model_zoo.shots import transnet
from stages.ingest import Ingest
from stages.segment import clock
from stages.segment.stage import Segment

STAGE = Segment(shot_model="")
cv2.setNumThreads(1)


def make_video(path: Path, width: int, height: int, seconds: int, bit_rate: int, preset: str) -> None:
    """Write a video of a camera that pans over textures, 30 fps, with a cut every 8 seconds.

    preset: of x264; "ultrafast" omits what makes typical streams slow to decode (CABAC, B-frames, deblocking).
    """
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(3):
        coarse = cv2.resize(rng.integers(0, 255, (24, 40, 3), np.uint8), (width * 3 // 2, height * 3 // 2))
        fine = rng.integers(-24, 24, (height * 3 // 2, width * 3 // 2, 1))
        scenes.append(np.clip(cv2.GaussianBlur(coarse, (0, 0), 3) + fine, 0, 255).astype(np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": preset})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", bit_rate
        stream.codec_context.gop_size = 60
        for number in range(seconds * 30):
            scene, step = scenes[number // 240 % 3], number % 240
            x, y = step * width // 500, step * height // 500
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(scene[y : y + height, x : x + width]), format="rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def look(path: Path) -> Video:
    [found] = Ingest().run(None, [Source("benchmark", str(path), "", "", "", Path(path).stat().st_size, "")])
    return found


def bare(source: Video) -> None:
    for _ in video.read(source.path, source.stream):
        pass


def ours(source: Video) -> None:
    with patch.object(video, "encode", lambda *args, **kwargs: b""):
        for _ in STAGE.run(None, [source]):
            pass


def scaled(source: Video) -> Iterator[tuple[video.Frame, clock.Planes]]:
    """Yield the frames of the clips, at their size, from a separate decode."""
    shrink = clock.Downscaler(*clock.fit_size(source.width, source.height, STAGE.max_short_side_px), source.rotation)
    for shown in clock.resample_to_fps(video.read(source.path, source.stream), STAGE.fps, STAGE.max_frozen_s):
        if shown.ticks:
            yield shown.frame, shrink.planes(shown.frame.picture)


def shots_alone(source: Video) -> None:
    shrink, detector = clock.Downscaler(2, 2, 0), shots.ShotDetector(None)
    for frame in video.read(source.path, source.stream):
        detector.add(shrink.detector_input(frame.picture, transnet.WIDTH, transnet.HEIGHT))
    detector.finish()


def clips_alone(source: Video) -> None:
    for _, planes in scaled(source):
        clock.to_frame(planes)


def motion_alone(source: Video) -> None:
    before = None
    for _, planes in scaled(source):
        grey = clock.grey(planes)
        if before is not None:
            clock.motion(before, grey)
        before = grey


def luma_and_sharpness_alone(source: Video) -> None:
    for _, planes in scaled(source):
        grey = clock.grey(planes)
        clock.luma(grey), clock.sharpness(grey)


def bars_alone(source: Video) -> None:
    clock.crop_box([planes.y for number, (_, planes) in enumerate(scaled(source)) if number % 8 == 0])


CONSUMERS = (shots_alone, clips_alone, motion_alone, luma_and_sharpness_alone, bars_alone)


def separate(source: Video) -> None:
    for consumer in CONSUMERS:
        consumer(source)


def cpu_seconds(function: Callable[[Video], None], source: Video, times: int = 3) -> float:
    taken = []
    for _ in range(times):
        before = time.process_time()
        function(source)
        taken.append(time.process_time() - before)
    return statistics.median(taken)


def peak_mb(path: Path) -> tuple[float, int]:
    """Segment a video in a subprocess; return its peak memory in MB and the number of clips."""
    done = subprocess.run(
        [sys.executable, __file__, "--segment", str(path)], check=True, capture_output=True, text=True
    )
    answer = json.loads(done.stdout)
    return answer["peak_mb"], answer["clips"]


def segment_and_report(path: Path) -> None:
    clips = sum(isinstance(row, ClipVideo) for row in STAGE.run(None, [look(path)]))
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "clips": clips}))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1080p.mp4"
        make_video(path, 1920, 1080, seconds=20, bit_rate=10_000_000, preset="veryfast")
        source = look(path)
        seconds = {function.__name__: cpu_seconds(function, source) for function in (bare, ours, separate)}
        print(f"20 s of 1080p30 H.264, {path.stat().st_size / 1e6:.0f} MB; CPU seconds, medians of 3, one thread")
        print(f"  bare decode                      {seconds['bare']:6.2f}")
        print(f"  segment, one decode              {seconds['ours']:6.2f}")
        print(f"  a separate decode for each of {len(CONSUMERS)}  {seconds['separate']:6.2f}")
        print(f"  segment / bare decode            {seconds['ours'] / seconds['bare']:6.2f}  (target: at most 1.4)")
        print(
            f"  separate decodes / segment       {seconds['separate'] / seconds['ours']:6.2f}  (target: at least 3.5)"
        )
        peaks = []
        for minutes in (1, 10):
            path = Path(folder) / f"{minutes}min.mp4"
            make_video(path, 320, 240, seconds=60 * minutes, bit_rate=800_000, preset="ultrafast")
            peak, clips = peak_mb(path)
            peaks.append(peak)
            print(f"  peak memory, {minutes:2d} min of 240p        {peak:6.0f} MB, {clips} clips")
        print(f"  ten minutes / one minute         {peaks[1] / peaks[0]:6.2f}  (target: at most 1.1)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--segment"]:
        segment_and_report(Path(sys.argv[2]))
    else:
        main()
