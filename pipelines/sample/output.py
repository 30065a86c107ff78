"""Output files of `a2data sample`: an mp4 with sound and embedded metadata, the metadata as JSON, and a contact sheet."""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from a2data.media import images, video
from a2data.media.contact_sheet import sheet, stills
from a2data.media.decode_limits import SOUND_FORMATS
from a2data.store.folder import Folder

RATE_HZ = 48_000  # sample rate of the mp4's sound, AAC, stereo
AAC_SAMPLES = 1024  # samples per AAC frame


def split_path(out: str) -> tuple[Folder, str]:
    """Return the folder of a file, local or at a URL, and its name in it."""
    folder, _, name = out.rpartition("/")
    return Folder(folder or "."), name


def sibling(name: str, suffix: str) -> str:
    return name.removesuffix(".mp4") + suffix


def is_done(out: str, key: str, preview: bool) -> bool:
    """Return whether `out` is the complete and unchanged video of the job with that key."""
    folder, name = split_path(out)
    data = folder.get(sibling(name, ".json"))
    try:
        record = json.loads(data) if data else {}
    except ValueError:
        return False
    mp4 = folder.get(name) if record.get("key") == key else None
    if mp4 is None or hashlib.sha256(mp4).hexdigest() != record.get("sha256"):
        return False
    return not preview or sibling(name, ".png") in folder.names()


def write(
    out: str, frames: np.ndarray, record: dict[str, Any], sound: tuple[str, float], sheet: np.ndarray | None
) -> None:
    """Write a video, (t, h, w, 3) uint8 RGB, and next to it its record and, if given, its contact sheet.

    Each file is written atomically; the record comes last, so that it never describes a missing video.
    sound: an audio file ("" for none) and the start in it, seconds.
    """
    folder, name = split_path(out)
    data = to_mp4(frames, record, sound)
    folder.put(data, name)
    if sheet is not None:
        folder.put(images.to_png(sheet), sibling(name, ".png"))
    result = {"frames_written": len(frames), "sha256": hashlib.sha256(data).hexdigest()}
    folder.put(json.dumps(record | result, indent=1, ensure_ascii=False).encode(), sibling(name, ".json"))


def to_mp4(frames: np.ndarray, record: dict[str, Any], sound: tuple[str, float]) -> bytes:
    """Return a video as mp4, with its record and sound; see `write`."""
    return embed_metadata(video.encode(frames, record["settings"]["fps"]), record, sound)


def embed_metadata(mp4: bytes, record: dict[str, Any], sound: tuple[str, float] = ("", 0.0)) -> bytes:
    """Return the mp4 with unchanged video packets, the record as its comment, and sound trimmed to its length."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file, av.open(io.BytesIO(mp4), "r") as source:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(file.name, "w", format="mp4", options=options) as target:
            target.metadata["comment"] = json.dumps(record, ensure_ascii=False)
            (video_stream,) = source.streams.video
            stream = target.add_stream_from_template(video_stream)
            audio_stream = (
                target.add_stream("aac", rate=RATE_HZ, layout="stereo", options={"b": "192k"}) if sound[0] else None
            )
            for packet in source.demux(video_stream):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
            if audio_stream is not None:
                assert video_stream.duration is not None
                assert video_stream.time_base is not None
                for frame in _read_audio(*sound, length_s=float(video_stream.duration * video_stream.time_base)):
                    target.mux(audio_stream.encode(frame))
                target.mux(audio_stream.encode(None))
        return file.read()


def _read_audio(path: str, start_s: float, length_s: float) -> Iterator[av.AudioFrame]:
    """Yield a file's sound from start_s as AAC-sized frames, for length_s or until the file ends."""
    resample = av.AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ)
    skip, num_samples = round(start_s * RATE_HZ), round(length_s * RATE_HZ)
    chunks: list[np.ndarray] = []
    count = 0
    with video.open_source(path, formats=SOUND_FORMATS) as (container, _):
        for packet_frame in container.decode(container.streams.audio[0]):
            chunks += [part.to_ndarray() for part in resample.resample(packet_frame)]
            count = sum(part.shape[1] for part in chunks)
            while chunks and skip >= chunks[0].shape[1]:
                skip -= chunks.pop(0).shape[1]
            if count - skip >= num_samples:
                break
    samples = np.concatenate(chunks, axis=1)[:, skip : skip + num_samples] if chunks else np.zeros((2, 0), np.float32)
    if samples.shape[1] == 0:
        raise ValueError(f"{path} has no sound at {start_s:g} s")
    for start in range(0, samples.shape[1], AAC_SAMPLES):
        part = np.ascontiguousarray(samples[:, start : start + AAC_SAMPLES])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, start
        yield frame


def sweep_sheet(outs: dict[str, str], references: Sequence[np.ndarray]) -> np.ndarray:
    """Return a contact sheet with a row of references and a row per video {label: mp4}."""
    rows: list[tuple[str, Sequence[np.ndarray]]] = [("references", references)]
    for label, out in outs.items():
        folder, name = split_path(out)
        data = folder.get(name)
        if data is None:
            raise FileNotFoundError(f"{out} does not exist any more")
        rows.append((label, stills(video.decode(data))))
    return sheet(rows)


def write_sheet(out: str, picture: np.ndarray) -> None:
    """Write a contact sheet as PNG."""
    folder, name = split_path(out)
    folder.put(images.to_png(picture), name)
