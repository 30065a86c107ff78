"""ai-toolkit, arch minimax_h3_ref2va: a folder of videos with captions, and up to three folders of references with equal names.

Source: ostris/ai-toolkit toolkit/config_modules.py (DatasetConfig), toolkit/dataloader_mixins.py (get_auto_frame_count and the
control mixin).
"""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from a2data.store.folder import Folder
from pipelines.export.probe import Media, is_picture, probe, root
from pipelines.export.target import CheckResult, Exported, SkippedRow

FPS = 24
MAX_PICTURES = 3
CONFIG = """\
# the entry of `datasets` in a job of arch minimax_h3_ref2va
datasets:
  - folder_path: {videos}
    caption_ext: txt
{controls}    fps: 24
    auto_frame_count: true
    trim_auto_frame_count_tail: true
    do_audio: {sound}
"""


def picture_path(key: str, number: int, role: str) -> str:
    return f"control_{number}/{key}.png"


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write a caption beside each video, and the dataset's entry of a job file."""
    for row in rows:
        out.put(row.prompt.encode(), row.video.removesuffix(".mp4") + ".txt")
    folder = root(out)
    max_pictures = max((len(row.pictures) for row in rows), default=0)
    controls = "".join(
        f"    control_path_{n}: {json.dumps(f'{folder}/control_{n}')}\n" for n in range(1, max_pictures + 1)
    )
    sound = str(any(row.sound for row in rows)).lower()
    out.put(
        CONFIG.format(videos=json.dumps(f"{folder}/videos"), controls=controls, sound=sound).encode(), "dataset.yaml"
    )
    return ["dataset.yaml", "videos/*.txt"]


def check(out: Folder) -> CheckResult:
    """Run the trainer's frame count and search for captions and references over every video."""
    skipped, videos = [], [name for name in out.names("videos") if name.endswith(".mp4")]
    captions = set(out.names("videos"))
    for name in videos:
        stem = PurePosixPath(name).stem
        if f"{stem}.txt" not in captions:
            skipped.append(SkippedRow(name, "without a caption"))
        if not any(is_picture(out, f"control_{n}/{stem}.png") for n in range(1, MAX_PICTURES + 1)):
            skipped.append(SkippedRow(name, "without a reference in control_1, control_2 or control_3"))
        try:
            media = probe(out, f"videos/{name}")
            if (count := frames(media)) < 22:
                raise ValueError(f"{count} frames are taken, at least 22 wanted")
        except ValueError as error:
            skipped.append(SkippedRow(name, str(error)))
    return CheckResult(len(videos), skipped, [])


def frames(media: Media) -> int:
    """Return the number of frames that ai-toolkit takes with auto_frame_count: those within the duration, down to 17n+5."""
    available = int(media.frames / media.fps * FPS)
    return max(0, (available - 5) // 17 * 17 + 5)
