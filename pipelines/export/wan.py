"""Trainers of Wan: VideoX-Fun VACE, RefAlign, and DiffSynth-Studio's VACE. All read clips frame by frame, whatever their rate.

Sources: aigc-apps/VideoX-Fun videox_fun/data/dataset_image_video.py (ImageVideoControlDataset) and
scripts/wan2.1_vace/{README_TRAIN.md,train.py}; gudaochangsheng/RefAlign diffsynth/trainers/utils.py (VideoDataset);
modelscope/DiffSynth-Studio diffsynth/core/data/operators.py and examples/wanvideo/model_training/lora/Wan2.1-VACE-1.3B.sh.
"""

from collections.abc import Callable, Sequence
from typing import Any

from a2data.store.folder import Folder
from pipelines.export.probe import Media, is_picture, probe, read_json, root, to_json, to_jsonl
from pipelines.export.target import CheckResult, Exported, SkippedRow

FRAMES = 81  # --video_sample_n_frames and --num_frames of the examples
VIDEOX_PICTURES = 4


def write_videox(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the metadata of VideoX-Fun VACE.

    `object_file_path` is opened without `--train_data_dir`, so it is absolute. `control_file_path` must be there, and null is
    "no control".
    """
    folder = root(out)
    entries = [
        {
            "file_path": row.video,
            "text": row.prompt,
            "type": "video",
            "control_file_path": None,
            "height": row.height,
            "width": row.width,
            "object_file_path": [f"{folder}/{each.path}" for each in row.pictures],
        }
        for row in rows
    ]
    out.put(to_json(entries), "metadata.json")
    return ["metadata.json"]


def check_videox(out: Folder) -> CheckResult:
    """Run VideoX-Fun's arithmetic over every row. It replaces a row that it cannot read by another one, at random."""
    folder = root(out)

    def row_problems(row: dict[str, Any]) -> list[str]:
        found = [] if "control_file_path" in row else ["control_file_path is missing"]
        paths = [path.removeprefix(f"{folder}/") for path in row["object_file_path"]]
        found += [f"{path} does not exist" for path in paths if path.startswith("/") or not is_picture(out, path)]
        if len(paths) > VIDEOX_PICTURES:
            found.append(f"{len(paths)} references, of which the trainer takes {VIDEOX_PICTURES} at random")
        media = probe(out, row["file_path"])
        if (media.width, media.height) != (row["width"], row["height"]):
            found.append(f"{media.width} x {media.height} px, the metadata says {row['width']} x {row['height']}")
        return found + _too_short(videox_frames(media))

    notes = [
        f"VideoX-Fun takes every --video_sample_stride-th frame: give 1, since clips are at 16 fps; {FRAMES} frames"
    ]
    return _check_rows(out, "metadata.json", row_problems, notes)


def videox_frames(media: Media, frames: int = FRAMES, stride: int = 1) -> int:
    """Return the number of frames that VideoX-Fun trains on: those of the sample, cut to 4n+1."""
    count = min(frames, media.frames // stride)
    return (count - 1) // 4 * 4 + 1 if count else 0


def write_refalign(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the metadata of RefAlign, whose `subject_image` is a folder of pictures in natural order."""
    entries = [
        {
            "video": row.video,
            "prompt": row.prompt,
            "subject_image": row.pictures[0].path.rpartition("/")[0] if row.pictures else "",
        }
        for row in rows
    ]
    out.put(to_json(entries), "metadata.json")
    return ["metadata.json"]


def check_refalign(out: Folder) -> CheckResult:
    """Run RefAlign's arithmetic over every row."""

    def row_problems(row: dict[str, Any]) -> list[str]:
        pictures = [name for name in out.names(row["subject_image"]) if name.endswith(".png")]
        found = [] if pictures else [f"the folder {row['subject_image']} does not have any pictures"]
        media = probe(out, row["video"])
        return found + _too_short(refalign_frames(media)) + _sides(media)

    return _check_rows(out, "metadata.json", row_problems, ["RefAlign: --data_file_keys video,subject_image"])


def refalign_frames(media: Media, num_frames: int = FRAMES) -> int:
    """Return the number of frames that RefAlign and DiffSynth-Studio read: num_frames, or fewer, 4n+1."""
    count = num_frames
    if media.frames < count:
        count = media.frames
        while count > 1 and count % 4 != 1:
            count -= 1
    return count


def write_diffsynth(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write the metadata of DiffSynth-Studio's VACE, which takes one reference."""
    entries = []
    for row in rows:
        fields = {"video": row.video, "prompt": row.prompt}
        entries.append(fields | ({"vace_reference_image": row.pictures[0].path} if row.pictures else {}))
    out.put(to_jsonl(entries), "metadata.jsonl")
    return ["metadata.jsonl"]


def check_diffsynth(out: Folder) -> CheckResult:
    """Run DiffSynth-Studio's arithmetic over every row."""

    def row_problems(row: dict[str, Any]) -> list[str]:
        path = row.get("vace_reference_image")
        found = (
            [] if isinstance(path, str) and is_picture(out, path) else [f"vace_reference_image {path!r} does not exist"]
        )
        media = probe(out, row["video"])
        return found + _too_short(refalign_frames(media)) + _sides(media)

    notes = ["DiffSynth-Studio: --data_file_keys video,vace_reference_image --extra_inputs vace_reference_image"]
    return _check_rows(out, "metadata.jsonl", row_problems, notes)


def _too_short(frames: int) -> list[str]:
    return [] if frames >= 5 else [f"{frames} frames are taken, at least 5 wanted"]


def _sides(media: Media) -> list[str]:
    odd = media.width % 16 or media.height % 16
    return [f"{media.width} x {media.height} px are not multiples of 16"] if odd else []


def _check_rows(
    out: Folder, name: str, problems: Callable[[dict[str, Any]], list[str]], notes: list[str]
) -> CheckResult:
    rows = read_json(out, name)
    skipped = []
    for number, row in enumerate(rows, 1):
        try:
            reasons = problems(row)
        except ValueError as error:
            reasons = [str(error)]
        skipped += [SkippedRow(f"{name} row {number}", reason) for reason in reasons]
    return CheckResult(len(rows), skipped, notes)
