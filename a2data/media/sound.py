"""The sound of clips, cut from their source by presentation time, as AAC in their mp4.

All sound is stereo float32, (2, samples). Mono and surround sound are mixed by FFmpeg's resampler, which keeps their energy.
"""

import io
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import numpy as np

from a2data.media import video
from a2data.media.decode_limits import LIMITS, SOUND_FORMATS, Limits, MemoryCeiling
from a2data.media.video import Opener

AAC_SAMPLES = 1024  # samples per AAC frame
JITTER_S = 0.01  # containers round times to milliseconds, so sound that is this late or early goes on without a gap
RESTART_S = 1.0  # a step back in time from which the clock of the file has restarted, as in `video.next_time`
MIN_RATE_HZ = 4000  # a file that claims less would grow a thousandfold when it is resampled


class Cut(NamedTuple):
    """The sound of a clip."""

    samples: np.ndarray | None  # None if the source does not have any sound at that time; gaps are silence
    problem: str  # what could not be decoded; "" if nothing


class Track:
    """The sound of a source, decoded once from start to end while clips are cut from it in order."""

    def __init__(self, packets: Iterator[av.Packet], rate_hz: int, ceiling: MemoryCeiling, problem: str = "") -> None:
        """problem: why there is nothing to decode; "" otherwise."""
        self.rate_hz, self.problem = rate_hz, problem
        self._packets, self._ceiling = packets, ceiling
        self._damage: deque[tuple[int, str]] = deque()  # place of a packet that cannot be decoded, and why
        self._made: deque[tuple[int, np.ndarray]] = deque()  # samples with their place on the clock of the video
        self._end = -(1 << 62)  # place after the last decoded sample
        self._parts = self._decode()

    def cut(self, start_s: float, length_s: float) -> Cut:
        """Return the sound from start_s on the clock of the video. Starts must not decrease from call to call."""
        start, count = round(start_s * self.rate_hz), round(length_s * self.rate_hz)
        while self._end < start + count and (made := next(self._parts, None)):
            self._made.append(made)
            self._drop_before(start)
        self._drop_before(start)
        samples, found = np.zeros((2, count), np.float32), False
        for place, part in self._made:
            low, high = max(place, start), min(place + part.shape[1], start + count)
            if low < high:
                samples[:, low - start : high - start] = part[:, low - place : high - place]
                found = True
        damage = [why for place, why in self._damage if place < start + count]
        problem = f"{len(damage)} packets of its sound cannot be decoded: {damage[0]}" if damage else self.problem
        return Cut(samples if found else None, problem)

    def _drop_before(self, start: int) -> None:
        while self._made and self._made[0][0] + self._made[0][1].shape[1] <= start:
            self._made.popleft()
        while self._damage and self._damage[0][0] < start:
            self._damage.popleft()

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the sound with its places, which never overlap. Each stretch without a gap has a resampler of its own."""
        resampler, kind, due_s, shift_s = None, None, 0.0, 0.0
        for frame in self._frames():
            time_s = due_s if frame.time is None else frame.time + shift_s
            if resampler and due_s - time_s > RESTART_S:
                shift_s, time_s = shift_s + due_s - time_s, due_s
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if resampler is None or now != kind or abs(time_s - due_s) > JITTER_S:
                if resampler:
                    yield from self._placed(resampler.resample(None))
                resampler, kind, due_s = av.AudioResampler("fltp", "stereo", self.rate_hz), now, time_s
                self._next = round(time_s * self.rate_hz)
            due_s += frame.samples / frame.sample_rate
            frame.pts = None  # the resampler would repeat the jitter
            yield from self._placed(resampler.resample(frame))
        if resampler:
            yield from self._placed(resampler.resample(None))

    def _placed(self, frames: list[av.AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        for frame in frames:
            samples, place = frame.to_ndarray(), self._next
            self._next += samples.shape[1]
            if self._next > self._end:
                fresh = max(0, self._end - place)
                self._end = self._next
                yield place + fresh, samples[:, fresh:]

    def _frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._packets:
            try:
                with self._ceiling.held():
                    frames = packet.decode()
            except (av.error.FFmpegError, MemoryError) as error:
                time_s = float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else 0.0
                self._damage.append((max(self._end, round(time_s * self.rate_hz)), str(error)))
                continue
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.sample_rate >= MIN_RATE_HZ:
                    yield frame


@contextmanager
def reading(path: str, opener: Opener | None, rate_hz: int, limits: Limits = LIMITS) -> Iterator[Track | None]:
    """Open the sound of a source: of its tracks the one that players choose. Yields None if it has none.

    Raises OSError or ValueError if the source cannot be opened.
    """
    with video.open_source(path, limits, SOUND_FORMATS, opener) as (container, ceiling):
        stream = container.streams.best("audio")
        if stream is None:
            known = bool(container.streams.audio)
            yield Track(iter(()), rate_hz, ceiling, "its sound has no decoder") if known else None
            return
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all  # not even read, where the format allows it
        stream.codec_context.thread_count = 1
        yield Track(_packets(container, stream), rate_hz, ceiling)


def _packets(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.Packet]:
    """Yield the packets of a stream up to where the file is damaged."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return


def with_sound(mp4: bytes, samples: np.ndarray, rate_hz: int) -> bytes:
    """Return the mp4 with unchanged video packets and the sound as AAC.

    Equal sound gives equal bytes with one version of FFmpeg on one kind of processor.
    """
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file, av.open(io.BytesIO(mp4), "r") as source:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(file.name, "w", format="mp4", options=options) as target:
            (pictures,) = source.streams.video
            stream = target.add_stream_from_template(pictures)
            # FFmpeg calls its fast coder the better one too above 64 kbit/s
            aac_options = {"b": "192k", "aac_coder": "fast"}
            track = target.add_stream("aac", rate=rate_hz, layout="stereo", options=aac_options)
            track.codec_context.flags |= av.codec.context.Flags.bitexact
            for packet in source.demux(pictures):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
            for start in range(0, samples.shape[1], AAC_SAMPLES):
                block = np.ascontiguousarray(samples[:, start : start + AAC_SAMPLES])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate_hz, start
                target.mux(track.encode(frame))
            target.mux(track.encode(None))
        return file.read()


def of_clip(mp4: bytes | memoryview, rate_hz: int, start_s: float, length_s: float) -> Cut:
    """Return the sound of a clip from start_s in it. Raises av.error.FFmpegError if the mp4 cannot be opened."""
    with video.open_bytes(mp4) as container:
        if not container.streams.audio:
            return Cut(None, "")
        packets = _packets(container, container.streams.audio[0])
        return Track(packets, rate_hz, MemoryCeiling(LIMITS.max_decoder_bytes)).cut(start_s, length_s)
