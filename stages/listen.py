"""The sound of a clip, without thresholds: loudness, silence, speech."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from a2data.media import sound
from a2data.records import ClipVideo, Sound, Span
from a2data.stage import Stage
from model_zoo import cards

RATE_HZ, VAD_HZ, VAD_STEP = 48_000, 16_000, 512
GATE_LUFS = -70.0  # absolute gate of BS.1770, below which nothing counts
FLOOR_DBFS = -120.0
BLOCK_S = 0.05  # of which silence is made


class Models(NamedTuple):
    """The result of `load`: the voice activity detector and the speech recogniser, or None."""

    vad: Callable[[np.ndarray], np.ndarray] | None
    asr: Callable[[np.ndarray], str] | None = None


@dataclass(frozen=True)
class Listen(Stage):
    """Clips -> the loudness, silence and speech of their sound."""

    reads = {"segment": ClipVideo}
    writes = Sound
    row_noun = "sounds"
    accounts_for = "clip_id"

    silence_dbfs: float = -60.0
    """level, RMS, below which 50 ms are silent"""
    vad_model: str = "silero-vad"
    """card of role vad; "" = speech is not measured"""
    speech_threshold: float = 0.5
    """probability from which speech begins, 0 to 1; it ends 0.15 below"""
    min_speech_s: float = 0.25
    """shortest speech, seconds"""
    min_pause_s: float = 0.1
    """shortest pause within speech, seconds"""
    asr_model: str = ""
    """card of role asr, for clips with speech; "" = speech is not transcribed"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return cards.gpus(self.asr_model) if self.asr_model else 0

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in (self.vad_model, self.asr_model) if name}

    def load(self) -> Models:
        device = cards.device()
        return Models(*(cards.load(name, device) if name else None for name in (self.vad_model, self.asr_model)))

    def run(self, models: Models, films: list[ClipVideo]) -> Iterator[Sound]:
        for film in films:
            length_s = len(film.source_frames) / film.fps
            clip_sound = sound.of_clip(film.video, RATE_HZ, 0.0, length_s)
            if clip_sound.problem:
                raise ValueError(f"the sound of the clip itself is damaged: {clip_sound.problem}")
            yield self.measure(film, clip_sound.samples, length_s, models)

    def measure(self, film: ClipVideo, samples: np.ndarray | None, length_s: float, models: Models) -> Sound:
        spans: list[Span] = []
        transcript = ""
        low_rate = sound.of_clip(film.video, VAD_HZ, 0.0, length_s).samples if any(models) else None
        if models.vad and low_rate is not None:
            probabilities = models.vad(mono(low_rate))
            spans = speech_spans(probabilities, length_s, self.speech_threshold, self.min_speech_s, self.min_pause_s)
        if models.asr and low_rate is not None and (spans or not models.vad):
            transcript = models.asr(mono(low_rate))
        return Sound(
            clip_id=film.clip_id,
            duration_s=0.0 if samples is None else length_s,
            loudness_lufs=GATE_LUFS if samples is None else loudness(samples),
            peak_dbfs=FLOOR_DBFS if samples is None else dbfs(float(np.abs(samples).max())),
            silence=1.0 if samples is None else silence(samples, self.silence_dbfs),
            speech=sum(span.end_s - span.start_s for span in spans) / length_s if models.vad else -1.0,
            speech_spans=spans,
            problem=film.sound_problem,
            transcript=transcript,
        )


def mono(samples: np.ndarray) -> np.ndarray:
    """Return stereo as mono: the reverse of what made mono sound stereo."""
    return (samples[0] + samples[1]) * np.float32(math.sqrt(0.5))


def dbfs(amplitude: float) -> float:
    """Return an amplitude in dB of full scale, at least FLOOR_DBFS.

    >>> dbfs(1.0), round(dbfs(0.5), 2), dbfs(0.0)
    (0.0, -6.02, -120.0)
    """
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def silence(samples: np.ndarray, below_dbfs: float) -> float:
    """Return the fraction of blocks of BLOCK_S of (2, n) samples whose RMS, over both channels, is below a level."""
    size = round(BLOCK_S * RATE_HZ)
    blocks = np.array_split(samples, range(size, samples.shape[1], size), axis=1)
    return float(np.mean([dbfs(float(np.sqrt(np.square(block).mean()))) < below_dbfs for block in blocks]))


def loudness(samples: np.ndarray) -> float:
    """Return the integrated loudness of (2, n) samples at RATE_HZ, LUFS, by FFmpeg's filter ebur128; at least GATE_LUFS."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE_HZ, format="fltp", layout="stereo", time_base=Fraction(1, RATE_HZ))
    meter, sink = graph.add("ebur128", "metadata=1:framelog=quiet"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = RATE_HZ, 0
    graph.push(frame)
    graph.push(None)
    lufs = GATE_LUFS
    while True:
        try:
            lufs = float(graph.pull().metadata.get("lavfi.r128.I", lufs))
        except (av.error.BlockingIOError, av.error.EOFError):
            return max(GATE_LUFS, lufs) if math.isfinite(lufs) else GATE_LUFS


def speech_spans(
    probabilities: np.ndarray, length_s: float, threshold: float, min_speech_s: float, min_pause_s: float
) -> list[Span]:
    """Return the stretches of speech in seconds: from the threshold up to where it is 0.15 below for min_pause_s.

    probabilities: (k,) of each VAD_STEP samples at VAD_HZ.
    """
    step_s, spans = VAD_STEP / VAD_HZ, list[Span]()
    begin, end = -1, -1  # of the present stretch; its last step with speech, exclusive
    for n, probability in enumerate([*probabilities.tolist(), *[0.0] * math.ceil(min_pause_s / step_s)]):
        if probability >= threshold and begin < 0:
            begin = n
        if begin >= 0 and probability >= threshold - 0.15:
            end = n + 1
        if begin >= 0 and (n + 1 - end) * step_s >= min_pause_s:
            if (end - begin) * step_s >= min_speech_s:
                spans.append(Span(begin * step_s, min(length_s, end * step_s)))
            begin = -1
    return spans
