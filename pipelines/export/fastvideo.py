"""FastVideo: `videos2caption.json` for its preprocessing. It reads no references.

Source: hao-ai-lab/FastVideo, VideoCaptionMergedDataset of its preprocessing (ResolutionFilterStage, FrameSamplingStage).
"""

import math
from collections.abc import Sequence

from a2data.store.folder import Folder
from pipelines.export.probe import Media, probe, read_json, root, to_json
from pipelines.export.target import CheckResult, Exported, SkippedRow

TRAIN_FPS, FRAMES = 16, 81  # --train_fps and --num_frames
MAX_HEIGHT, MAX_WIDTH = 480, 832
MAX_ASPECT_RATIO = 1.5  # how far the aspect may be from that of MAX_HEIGHT and MAX_WIDTH


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the rows, and merge.txt, which names the folder of the videos and the JSON."""
    entries = [
        {
            "path": row.video.removeprefix("videos/"),
            "resolution": {"width": row.width, "height": row.height},
            "fps": row.fps,
            "duration": duration_s(row.frames, row.fps),
            "num_frames": row.frames,
            "cap": [row.prompt, *row.captions],
        }
        for row in rows
    ]
    out.put(to_json(entries), "videos2caption.json")
    out.put(f"{root(out)}/videos,{root(out)}/videos2caption.json\n".encode(), "merge.txt")
    return ["merge.txt", "videos2caption.json"]


def duration_s(frames: int, fps: float) -> float:
    """Return a duration of which FastVideo makes that many frames: it rounds fps * duration up, also by one ulp."""
    return (frames - 1e-3) / fps


def check(out: Folder) -> CheckResult:
    """Run FastVideo's filters and its choice of frames over every row."""
    rows, skipped = read_json(out, "videos2caption.json"), []
    for number, row in enumerate(rows, 1):
        try:
            media = probe(out, f"videos/{row['path']}")
            problems = _problems(media, row["fps"], row["duration"])
        except ValueError as error:
            problems = [str(error)]
        skipped += [SkippedRow(f"videos2caption.json row {number}", why) for why in problems]
    notes = [f"FastVideo: --train_fps {TRAIN_FPS} --num_frames {FRAMES} --drop_short_ratio 0 keeps shorter clips"]
    return CheckResult(len(rows), skipped, notes)


def _problems(media: Media, fps: float, duration: float) -> list[str]:
    indices = frames(fps, duration)
    problems = []
    if not aspect_fits(media.height, media.width):
        problems.append(
            f"{media.width} x {media.height} px: the aspect is not within {MAX_ASPECT_RATIO} of {MAX_WIDTH} x {MAX_HEIGHT}"
        )
    if indices and indices[-1] >= media.frames:
        problems.append(f"frame {indices[-1]} is taken, but the file has {media.frames}")
    return problems if indices else ["no frames are taken"]


def frames(fps: float, duration: float, num_frames: int = FRAMES, train_fps: float = TRAIN_FPS) -> list[int]:
    """Return the frames that FastVideo takes of a file.

    >>> frames(24.0, 0.25), len(frames(16.0, 83 / 16))
    ([0, 1, 3, 4], 81)
    """
    step, num_source_frames = fps / train_fps, math.ceil(fps * duration)
    return [int(n * step) for n in range(math.ceil(num_source_frames / step))][:num_frames]


def aspect_fits(height: int, width: int) -> bool:
    aspect = MAX_HEIGHT / MAX_WIDTH
    return aspect / MAX_ASPECT_RATIO <= height / width <= aspect * MAX_ASPECT_RATIO
