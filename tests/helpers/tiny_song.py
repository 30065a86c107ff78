"""A sound that is known."""

import av
import numpy as np


def song(path, seconds=3.0, rate_hz=44_100):
    """A file of sound, mono: silence in the first second, then a tone of 440 Hz."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = (np.sin(2 * np.pi * 440 * t) * 0.5 * (t >= 1)).astype(np.float32)
    with av.open(str(path), "w") as file:
        track = file.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return str(path)
