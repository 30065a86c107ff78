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


def place(out: str) -> tuple[Folder, str]:
    """Return the folder of a file, local or at a URL, and its name in it."""
    folder, _, name = out.rpartition("/")
    return Folder(folder or "."), name


def beside(name: str, suffix: str) -> str:
    return name.removesuffix(".mp4") + suffix


def done(out: str, key: str, preview: bool) -> bool:
    """Return whether `out` is the complete and unchanged video of the job with that key."""
    folder, name = place(out)
    data = folder.get(beside(name, ".json"))
    try:
        said = json.loads(data) if data else {}
    except ValueError:
        return False
    mp4 = folder.get(name) if said.get("key") == key else None
    if mp4 is None or hashlib.sha256(mp4).hexdigest() != said.get("sha256"):
        return False
    return not preview or beside(name, ".png") in folder.names()


def write(
    out: str, frames: np.ndarray, record: dict[str, Any], sound: tuple[str, float], sheet: np.ndarray | None
) -> None:
    """Write a video, (t, h, w, 3) uint8 RGB, and next to it its record and, if given, its contact sheet.

    Each file is written atomically; the record comes last, so that it never describes a missing video.
    sound: an audio file ("" for none) and the start in it, seconds.
    """
    folder, name = place(out)
    data = to_mp4(frames, record, sound)
    folder.put(data, name)
    if sheet is not None:
        folder.put(images.to_png(sheet), beside(name, ".png"))
    more = {"frames_written": len(frames), "sha256": hashlib.sha256(data).hexdigest()}
    folder.put(json.dumps(record | more, indent=1, ensure_ascii=False).encode(), beside(name, ".json"))


def to_mp4(frames: np.ndarray, record: dict[str, Any], sound: tuple[str, float]) -> bytes:
    """Return a video as mp4, with its record and sound; see `write`."""
    return embed_metadata(video.encode(frames, record["settings"]["fps"]), record, sound)


def embed_metadata(mp4: bytes, record: dict[str, Any], sound: tuple[str, float] = ("", 0.0)) -> bytes:
    """Return the mp4 with unchanged video packets, the record as its comment, and sound trimmed to its length."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file, av.open(io.BytesIO(mp4), "r") as given:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(file.name, "w", format="mp4", options=options) as made:
            made.metadata["comment"] = json.dumps(record, ensure_ascii=False)
            (pictures,) = given.streams.video
            stream = made.add_stream_from_template(pictures)
            track = made.add_stream("aac", rate=RATE_HZ, layout="stereo", options={"b": "192k"}) if sound[0] else None
            for packet in given.demux(pictures):
                if packet.dts is not None:
                    packet.stream = stream
                    made.mux(packet)
            if track is not None:
                assert pictures.duration is not None
                assert pictures.time_base is not None
                for frame in _sound(*sound, length_s=float(pictures.duration * pictures.time_base)):
                    made.mux(track.encode(frame))
                made.mux(track.encode(None))
        return file.read()


def _sound(path: str, start_s: float, length_s: float) -> Iterator[av.AudioFrame]:
    """Yield a file's sound from start_s as AAC-sized frames, for length_s or until the file ends."""
    resample = av.AudioResampler(format="fltp", layout="stereo", rate=RATE_HZ)
    skip, want = round(start_s * RATE_HZ), round(length_s * RATE_HZ)
    found: list[np.ndarray] = []
    count = 0
    with video.open_source(path, formats=SOUND_FORMATS) as (song, _):
        for coded in song.decode(song.streams.audio[0]):
            found += [part.to_ndarray() for part in resample.resample(coded)]
            count = sum(part.shape[1] for part in found)
            while found and skip >= found[0].shape[1]:
                skip -= found.pop(0).shape[1]
            if count - skip >= want:
                break
    samples = np.concatenate(found, axis=1)[:, skip : skip + want] if found else np.zeros((2, 0), np.float32)
    if samples.shape[1] == 0:
        raise ValueError(f"{path} has no sound at {start_s:g} s")
    for start in range(0, samples.shape[1], AAC_SAMPLES):
        part = np.ascontiguousarray(samples[:, start : start + AAC_SAMPLES])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, start
        yield frame


def sheet_of(outs: dict[str, str], references: Sequence[np.ndarray]) -> np.ndarray:
    """Return a contact sheet with a row of references and a row per video {label: mp4}."""
    rows: list[tuple[str, Sequence[np.ndarray]]] = [("references", references)]
    for label, out in outs.items():
        folder, name = place(out)
        data = folder.get(name)
        if data is None:
            raise FileNotFoundError(f"{out} does not exist any more")
        rows.append((label, stills(video.decode(data))))
    return sheet(rows)


def leave_sheet(out: str, picture: np.ndarray) -> None:
    """Write a contact sheet as PNG."""
    folder, name = place(out)
    folder.put(images.to_png(picture), name)
