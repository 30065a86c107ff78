"""MiniMax-H3 Ref2VA: JSON Lines and TOML for musubi-tuner, JSON for DiffSynth-Studio, from the same videos and pictures.

Sources: kohya-ss/musubi-tuner docs/minimax_h3.md and src/musubi_tuner/minimax_h3/media.py; modelscope/DiffSynth-Studio
examples/minimax_h3/model_training/train.py, diffsynth/core/data/operators.py and diffsynth/utils/data/minimax_h3.py.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from a2data.store.folder import Folder
from pipelines.export.probe import Media, is_picture, probe, read_json, root, to_json, to_jsonl
from pipelines.export.target import CheckResult, Exported, SkippedRow

ProbeVideo = Callable[[str], Media]  # path in the export -> properties of the video
FPS = 24
# frame counts that musubi-tuner accepts without --allow_experimental_duration
RELEASED_FRAME_COUNTS = range(124, 346, 17)
MAX_PICTURES = 9
SOUND_TOLERANCE = 800  # samples at 32 kHz that musubi-tuner pads at the end of a crop
TOML = """\
[general]
resolution = [{width}, {height}]
batch_size = 1
enable_bucket = true
bucket_no_upscale = true
"""
DATASET = """
[[datasets]]
video_jsonl_file = {jsonl}
cache_directory = {cache}
target_frames = [{count}]
frame_extraction = "head"
"""


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the metadata of both trainers.

    musubi-tuner takes a crop for every `target_frames` that a clip is long enough for, so each frame count has its own file and
    dataset, and each clip is used once, at its full length.
    """
    counts = sorted({row.count for row in rows})
    files = {"diffsynth.json": to_json([_diffsynth(row) for row in rows])}
    for count in counts:
        files[f"musubi-{count}.jsonl"] = to_jsonl([_musubi(row) for row in rows if row.count == count])
    largest = max(rows, key=lambda row: row.width * row.height)
    toml = TOML.format(width=largest.width, height=largest.height)
    for count in counts:
        # absolute, since the trainer reads these two from its own working directory
        jsonl, cache = (json.dumps(f"{root(out)}/{name}") for name in (f"musubi-{count}.jsonl", f"cache-{count}"))
        toml += DATASET.format(count=count, jsonl=jsonl, cache=cache)
    files["musubi.toml"] = toml.encode()
    for name in out.names():
        if name.startswith("musubi-") and name not in files:
            out.remove(name)
    for name, data in files.items():
        out.put(data, name)
    return sorted(files)


def _musubi(row: Exported) -> dict[str, Any]:
    references = [{"type": "image", "path": each.path} for each in row.pictures]
    return {"video_path": row.video, "caption": row.prompt, "references": references}


def _diffsynth(row: Exported) -> dict[str, Any]:
    references = [{"type": "image", "image": each.path} for each in row.pictures]
    return {
        "video": row.video,
        "prompt": row.prompt,
        # the same file: the trainer reads its sound, and only warns if there is none
        "input_audio": row.video,
        "references": references,
        "frame_rate": FPS,
    }


def check(out: Folder) -> CheckResult:
    """Run the arithmetic of both trainers over their rows."""
    skipped, notes = [], []
    # both trainers read the same videos
    read = functools.cache(lambda path: probe(out, path))
    jsonl_files = [name for name in out.names() if name.startswith("musubi-") and name.endswith(".jsonl")]
    rows = 0
    for name in sorted(jsonl_files):
        count = int(name.removeprefix("musubi-").removesuffix(".jsonl"))
        if count not in RELEASED_FRAME_COUNTS:
            notes.append(f"{name}: musubi-tuner takes {count} frames only with --allow_experimental_duration")
        for number, row in enumerate(read_json(out, name), 1):
            rows += 1
            skipped += [SkippedRow(f"{name} line {number}", why) for why in musubi_problems(out, row, count, read)]
    for number, row in enumerate(read_json(out, "diffsynth.json"), 1):
        skipped += [SkippedRow(f"diffsynth.json row {number}", why) for why in diffsynth_problems(out, row, read)]
    return CheckResult(rows, skipped, notes)


def musubi_problems(out: Folder, row: dict[str, Any], count: int, read: ProbeVideo) -> list[str]:
    """Return why musubi-tuner would reject or shorten a row with target_frames = [count]."""
    problems = [f"{each['path']} does not exist" for each in row["references"] if not is_picture(out, each["path"])]
    if not 1 <= len(row["references"]) <= MAX_PICTURES:
        problems.append(f"{len(row['references'])} image references, the trainer takes 1 to {MAX_PICTURES}")
    try:
        media = read(row["video_path"])
    except ValueError as error:
        return [*problems, str(error)]
    if (count - 5) % 17:
        problems.append(f"{count} frames are not 17n+5")
    if (usable := musubi_frames(media)) < count:
        problems.append(f"{usable} frames at {FPS} fps, {count} wanted")
    if media.width % 32 or media.height % 32:
        problems.append(f"{media.width} x {media.height} px are not multiples of 32")
    if media.sound_hz:
        # latent frames of the sound at 40 Hz, of 800 samples each
        min_samples = (10 * count + 3) // 6 * 800
        if min_samples - media.sound_samples * 32_000 / media.sound_hz > SOUND_TOLERANCE:
            problems.append(
                f"the sound has {media.sound_samples} samples at {media.sound_hz} Hz, {min_samples} at 32 kHz wanted"
            )
    return problems


def musubi_frames(media: Media) -> int:
    """Return the number of frames after musubi-tuner's resampling to 24 fps: the ticks within the duration.

    The duration is that of all frames, the last one included (resample_frame_indices).
    """
    return math.floor(media.frames / media.fps * FPS + 1e-6)


def diffsynth_problems(out: Folder, row: dict[str, Any], read: ProbeVideo) -> list[str]:
    """Return why DiffSynth-Studio would reject a row."""
    problems = [f"{each['image']} does not exist" for each in row["references"] if not is_picture(out, each["image"])]
    try:
        media = read(row["video"])
    except ValueError as error:
        return [*problems, str(error)]
    if diffsynth_frames(media, RELEASED_FRAME_COUNTS[-1]) < 22:
        problems.append(f"{media.frames} frames at {media.fps:g} fps leave less than 22 at {FPS} fps")
    return problems


def diffsynth_frames(media: Media, num_frames: int) -> int:
    """Return the number of frames that `LoadVideo` with fix_frame_rate takes: num_frames, or fewer, 17n+5."""
    count = math.floor(media.frames / media.fps * FPS)
    if count >= num_frames:
        return num_frames
    while count > 1 and count % 17 != 5:
        count -= 1
    return count
