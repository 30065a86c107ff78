"""Properties of written files, as trainers read them."""

import json
import os
from typing import Any, NamedTuple

import av

from a2data.media import video
from a2data.store.folder import Folder


class Media(NamedTuple):
    """Properties of an exported mp4."""

    frames: int  # decoded
    fps: float
    width: int
    height: int
    sound_samples: int  # decoded, at sound_hz; 0 without sound
    sound_hz: int


def probe(out: Folder, path: str) -> Media:
    """Decode an exported mp4 and return its properties. Raises ValueError if it is missing or damaged."""
    data = out.get(path)
    if data is None:
        raise ValueError(f"{path} does not exist")
    try:
        with video.open_bytes(data) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            fps = float(stream.average_rate or 0)
            width, height = stream.width, stream.height
        samples = rate = 0
        with video.open_bytes(data) as container:
            if container.streams.audio:
                rate = container.streams.audio[0].rate
                samples = sum(frame.samples for frame in container.decode(container.streams.audio[0]))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded: {error}") from error
    return Media(frames, fps, width, height, samples, rate)


def root(out: Folder) -> str:
    """Return the absolute path of the export, or its URL."""
    return os.path.abspath(out.base) if out.local else out.root


def is_picture(out: Folder, path: str) -> bool:
    return (out.get(path) or b"").startswith(b"\x89PNG")


def to_json(value: Any) -> bytes:
    """Return a list of rows as JSON, one row on each line."""
    return ("[\n" + ",\n".join(line(row) for row in value) + "\n]\n").encode()


def to_jsonl(rows: Any) -> bytes:
    return "".join(line(row) + "\n" for row in rows).encode()


def line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False)


def read_json(out: Folder, name: str) -> list[dict[str, Any]]:
    """Return the rows of an exported JSON or JSON Lines file. Raises ValueError if it is missing."""
    data = out.get(name)
    if data is None:
        raise ValueError(f"{out.path(name)} does not exist: export first")
    if name.endswith(".jsonl"):
        return [json.loads(each) for each in data.splitlines() if each.strip()]
    return json.loads(data)
