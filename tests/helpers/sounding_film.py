"""Films with sound of every kind: several tracks, late or short ones, gaps, surround sound."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

HEIGHT, WIDTH = 64, 96
RATE_HZ = 48_000


class Sound(NamedTuple):
    """A track of sound."""

    samples: np.ndarray  # (channels, n) float32
    start_s: float = 0.0
    layout: str = "mono"
    codec: str = "pcm_s16le"
    rate_hz: int = RATE_HZ
    default: bool = True


def tone(seconds: float, hz: float = 440.0, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.tile((0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32), (channels, 1))


def clicks(seconds: float, at_s: list[float], rate_hz: int = RATE_HZ) -> np.ndarray:
    """Silence with bursts of 5 ms, each of which begins at a time."""
    samples = np.zeros((1, round(seconds * rate_hz)), np.float32)
    for time_s in at_s:
        start = round(time_s * rate_hz)
        samples[:, start : start + rate_hz // 200] = 0.9
    return samples


def write(path: Path, frames: list[np.ndarray], times_s: list[float], *sounds: Sound) -> Path:
    """A film, mkv, whose frames, (h, w, 3) uint8, are shown at these times."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        tracks = [file.add_stream(s.codec, rate=s.rate_hz, layout=s.layout) for s in sounds]
        for track, sound in zip(tracks, sounds, strict=True):
            track.disposition = av.stream.Disposition.default if sound.default else av.stream.Disposition(0)
        for picture, time_s in zip(frames, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            for packet in _packets(track, sound):
                file.mux(packet)
    return path


def _packets(track, sound):
    offset, planar = round(sound.start_s * sound.rate_hz), sound.codec == "aac"
    for start in range(0, sound.samples.shape[1], 1024):
        part = np.ascontiguousarray(sound.samples[:, start : start + 1024])
        if not planar:
            part = (part.T.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(part, format="fltp" if planar else "s16", layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, offset + start, Fraction(1, sound.rate_hz)
        yield from track.encode(frame)
    yield from track.encode(None)


def blank(count: int) -> list[np.ndarray]:
    return [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * count


def moving(count: int) -> list[np.ndarray]:
    """A camera that pans over stripes."""
    wide = np.random.default_rng(1).integers(20, 235, (HEIGHT // 8, (WIDTH + count) // 8 + 2, 3), np.uint8)
    wide = wide.repeat(8, axis=0).repeat(8, axis=1)
    return [np.ascontiguousarray(wide[:, n : n + WIDTH]) for n in range(count)]
