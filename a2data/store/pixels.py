"""Verification of the pictures and clips in a table, for tables written before parts had checksums."""

import hashlib
from typing import Any

import pyarrow as pa

from a2data.media import video
from a2data.store.parquet import DamagedError


def check(table: pa.Table, path: str) -> None:
    """Raise DamagedError, with the row, for a picture that does not match its sha256 or a clip that cannot be decoded.

    path: path of the rows' part. Tables without pixels pass.
    """
    names = set(table.column_names)
    if {"image", "image_sha256", "element_id"} <= names:
        for row in table.select(["element_id", "image", "image_sha256"]).to_pylist():
            if hashlib.sha256(row["image"]).hexdigest()[:16] != row["image_sha256"]:
                raise DamagedError(path, f"the picture of {row['element_id']} does not match its sha256")
    if {"video", "clip_id", "source_frames"} <= names:
        for row in table.select(["clip_id", "video", "source_frames"]).to_pylist():
            check_clip(row["video"], row["clip_id"], len(row["source_frames"]), path)


def check_clip(data: bytes, clip_id: str, frames: int, path: str) -> None:
    """Raise DamagedError for an mp4 that does not decode to `frames` frames."""
    try:
        found = len(video.decode(data))
    except Exception as error:  # decoders may raise any exception for damaged bytes
        raise DamagedError(path, f"the video of {clip_id} cannot be decoded: {_first_line(error)}") from error
    if found != frames:
        raise DamagedError(path, f"the video of {clip_id} has {found} of {frames} frames")


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
