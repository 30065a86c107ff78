"""The sound of a clip, cut from its source by presentation time, as AAC in the exported mp4."""

import io
import tempfile

import av
import numpy as np

from a2data.media import video
from a2data.media.decode_limits import SOUND_FORMATS
from a2data.media.video import Opener

AAC_SAMPLES = 1024  # samples per AAC frame
RUN_UP_S = 1.0  # decoded before the start, since a seek lands on any packet


def cut_sound(path: str, opener: Opener | None, start_s: float, length_s: float, rate_hz: int) -> np.ndarray | None:
    """Return the sound of a source, (2, samples) float32, from start_s on the clock of its video; None if there is none.

    Gaps and a missing end are silence. Raises OSError or ValueError if the source cannot be read.
    """
    want = round(length_s * rate_hz)
    out = np.zeros((2, want), np.float32)
    with video.open_source(path, formats=SOUND_FORMATS, opener=opener) as (container, _):
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        try:
            found = _decoded(container, stream, start_s, rate_hz, out)
        except av.error.FFmpegError as error:
            raise ValueError(f"{path}: its sound cannot be decoded: {error}") from error
    return out if found else None


def _decoded(
    container: av.container.InputContainer, stream: av.AudioStream, start_s: float, rate_hz: int, out: np.ndarray
) -> bool:
    """Fill `out` with the samples from start_s; return whether there are any."""
    if start_s > RUN_UP_S and stream.time_base:
        container.seek(int((start_s - RUN_UP_S) / stream.time_base), stream=stream)
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate_hz)
    found = False
    for coded in container.decode(stream):
        if coded.time is not None and coded.time > start_s + out.shape[1] / rate_hz:
            break
        for part in resampler.resample(coded):
            found |= _place(part, start_s, rate_hz, out)
    for part in resampler.resample(None):
        found |= _place(part, start_s, rate_hz, out)
    return found


def _place(part: av.AudioFrame, start_s: float, rate_hz: int, out: np.ndarray) -> bool:
    """Copy the samples of a decoded frame to their place; return whether any is inside."""
    samples = part.to_ndarray()
    at = round(((part.time or 0.0) - start_s) * rate_hz)
    low, high = max(0, at), min(out.shape[1], at + samples.shape[1])
    if low >= high:
        return False
    out[:, low:high] = samples[:, low - at : high - at]
    return True


def with_sound(mp4: bytes, samples: np.ndarray, rate_hz: int) -> bytes:
    """Return the mp4 with unchanged video packets and the sound, (2, samples) float32, as AAC stereo."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file, av.open(io.BytesIO(mp4), "r") as given:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(file.name, "w", format="mp4", options=options) as made:
            (pictures,) = given.streams.video
            stream = made.add_stream_from_template(pictures)
            # FFmpeg calls its fast coder the better one too above 64 kbit/s
            how = {"b": "192k", "aac_coder": "fast"}
            track = made.add_stream("aac", rate=rate_hz, layout="stereo", options=how)
            track.codec_context.flags |= av.codec.context.Flags.bitexact
            for packet in given.demux(pictures):
                if packet.dts is not None:
                    packet.stream = stream
                    made.mux(packet)
            for start in range(0, samples.shape[1], AAC_SAMPLES):
                part = np.ascontiguousarray(samples[:, start : start + AAC_SAMPLES])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate_hz, start
                made.mux(track.encode(frame))
            made.mux(track.encode(None))
        return file.read()
