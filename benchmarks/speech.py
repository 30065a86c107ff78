"""Precision and recall of voice activity and of the active speaker, by frames of 1/15 s.

python -m benchmarks.speech

The material does not show people who speak. Voices are vowels made of formants, at known times; with the package gradio
also recordings of its examples, three of people who speak and two of music, whose times are not known. Faces are a photograph
(scikit-image's astronaut, and the same mirrored) whose mouth is opened with the loudness of the voice; and the silent people of
the corpus of real footage (A2DATA_CORPUS), under the voice of a narrator, to whom no speech must be given.
"""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.signal import lfilter

from a2data.media import sound, video
from a2data.records import Span
from model_zoo import cards
from model_zoo.mediapipe import mesh
from stages.active_speaker import ActiveSpeaker, motion, openings, speakers, speech_frames
from stages.listen import Listen, mono, speech_spans

RATE_HZ = 16_000
# first three formants of [a], [i], [u], [e], [o] of a man, Hz (Peterson & Barney 1952)
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
BANDWIDTHS = (80, 100, 120)  # of the formants, Hz
SYLLABLE_S = 0.15


def voice(seconds: float, pitch_hz: float = 120.0, seed: int = 0) -> np.ndarray:
    """Return vowels, (n,) float32 at RATE_HZ: a pulse train of varying pitch through three formants. It is not real speech."""
    rng, count = np.random.default_rng(seed), round(seconds * RATE_HZ)
    pitch = pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 0.8 * np.arange(count) / RATE_HZ))
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE_HZ), prepend=0) + 0.003 * rng.standard_normal(count)
    made, step = np.zeros(count), round(SYLLABLE_S * RATE_HZ)
    state = [np.zeros(2)] * 3
    for start in range(0, count, step):
        part = pulses[start : start + step]
        for n, (formant, bandwidth) in enumerate(zip(VOWELS[(2 * start // step + seed) % 5], BANDWIDTHS, strict=True)):
            radius = np.exp(-np.pi * bandwidth / RATE_HZ)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE_HZ), radius**2]
            part, state[n] = lfilter([1 - radius], poles, part, zi=state[n])
        made[start : start + step] = part * np.sin(np.pi * np.arange(len(part)) / step) ** 0.3
    return (0.5 * made / np.abs(made).max()).astype(np.float32)


FPS, FRAMES = 15.0, 81
COUNT = round(FRAMES / FPS * RATE_HZ)
HEAD = (170.0, 60.0, 280.0, 180.0)  # of the astronaut
RECORDINGS = ("cate_blanch.mp3", "cate_blanch_2.mp3", "heath_ledger.mp3", "sax.wav", "cantina.wav")
SILENT = "intel_head-pose-face-detection-*.mp4"


class Tally(NamedTuple):
    """Frames by what was found and what is true."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def plus(self, found: np.ndarray, truth: np.ndarray) -> "Tally":
        counts = (found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()
        return Tally(*(a + int(b) for a, b in zip(self, counts, strict=True)))

    def __str__(self) -> str:
        precision, recall = (self.right / max(1, self.right + n) for n in (self.wrong, self.missed))
        return f"precision {precision:.3f}  recall {recall:.3f}  ({self.right + self.missed} frames of speech)"


def at(spans: list[Span], voices: list[np.ndarray]) -> np.ndarray:
    """Return a sound of a clip's length with voices at these times."""
    made = np.zeros(COUNT, np.float32)
    for span, one in zip(spans, voices, strict=True):
        start = round(span.start_s * RATE_HZ)
        made[start : start + len(one)] = one[: COUNT - start]
    return made


def heard(vad: Any, samples: np.ndarray) -> list[Span]:
    stage = Listen()
    return speech_spans(
        vad(samples), len(samples) / RATE_HZ, stage.speech_threshold, stage.min_speech_s, stage.min_pause_s
    )


def voices(vad: Any) -> None:
    """Print the figures of voice activity."""
    for snr_db in (30, 20, 10, 0):
        tally = Tally()
        for seed in range(12):
            rng = np.random.default_rng(seed)
            spans = [Span(a, a + rng.uniform(0.6, 1.6)) for a in (0.4, 2.3, 3.8)][: 1 + seed % 3]
            clean = at(spans, [voice(s.end_s - s.start_s, rng.choice([110, 150, 220]), seed) for s in spans])
            level = np.sqrt(np.square(clean[clean != 0]).mean()) * 10 ** (-snr_db / 20)
            noisy = clean + (level * rng.standard_normal(COUNT)).astype(np.float32)
            tally = tally.plus(speech_frames(heard(vad, noisy), FRAMES, FPS), speech_frames(spans, FRAMES, FPS))
        print(f"voice activity, vowels in white noise, {snr_db:2d} dB   {tally}")
    package = importlib.util.find_spec("gradio")
    if package is None or package.origin is None:
        return
    folder = Path(package.origin).parent / "media_assets" / "audio"
    for name in RECORDINGS:
        samples = recording(folder / name)
        found_s = sum(span.end_s - span.start_s for span in heard(vad, samples))
        print(f"voice activity, {name:17s} {found_s:.1f} of {len(samples) / RATE_HZ:.1f} s taken for speech")


def recording(path: Path) -> np.ndarray:
    with sound.reading(str(path), None, RATE_HZ) as track:
        assert track is not None
        samples = track.cut(0.0, 60.0).samples
    assert samples is not None
    return mono(samples)[: np.flatnonzero(samples.any(axis=0))[-1] + 1]


def opened(frame: np.ndarray, points: np.ndarray, gap_px: float) -> np.ndarray:
    """Return a face with its mouth opened: what is below the lips moves down, and between them it is dark."""
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(frame.shape[1]), np.arange(frame.shape[0])))
    lips = points[list(mesh.LIPS), :2].mean(axis=0)
    half = float(np.linalg.norm(points[mesh.MOUTH[1], :2] - points[mesh.MOUTH[0], :2])) / 2
    gap = gap_px * np.clip(1 - ((x - lips[0]) / half) ** 2, 0, 1)
    below = y - lips[1]
    moved = np.where(below > gap, y - gap * np.clip(1 - (below - gap) / (2.5 * half), 0, 1), y)
    made = cv2.remap(frame, x, moved.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    made[(below > 0) & (below < gap) & (gap > 0.5)] = (50, 15, 15)
    return made


def talking(samples: np.ndarray, points: np.ndarray, picture: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return the frames of a face that says what is heard, with a head that sways."""
    rng, envelope = np.random.default_rng(seed), [float(np.abs(part).max()) for part in np.array_split(samples, FRAMES)]
    sway, frames = rng.uniform(0, 2 * np.pi, 2), []
    for n, loud in enumerate(envelope):
        # an opening varies from syllable to syllable, here with frames of 67 ms
        shown = opened(picture, points, 14 * loud * rng.uniform(0.3, 1.0) * 2)
        shift = 3 * np.sin(2 * np.pi * np.array([0.5, 0.3]) * n / FPS + sway)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        frames.append(cv2.warpAffine(shown, matrix, shown.shape[1::-1], borderMode=cv2.BORDER_REPLICATE))
    return frames


def faces(vad: Any) -> None:
    """Print the figures of the active speaker."""
    from skimage.data import astronaut

    stage = ActiveSpeaker()
    model = cards.load(stage.mouth_model)
    find, look = cards.load("mediapipe-face-detection"), cards.load("mediapipe-face-mesh")
    picture = np.ascontiguousarray(astronaut()[20:220, 100:360])
    head = (HEAD[0] - 100, HEAD[1] - 20, HEAD[2] - 100, HEAD[3] - 20)
    seen = mesh.of_head(find, look, picture, head)
    assert seen is not None
    width, tally = picture.shape[1], Tally()
    for seed in range(4):
        spans = [[Span(0.4, 1.7), Span(3.9, 4.9)], [Span(2.2, 3.4)], [Span(5.0, 5.3)]]  # two in the picture, a narrator
        spans = spans if seed % 2 else [spans[1], spans[0], []]
        said = [at(s, [voice(p.end_s - p.start_s, 110 + 50 * n, seed) for p in s]) for n, s in enumerate(spans)]
        left = talking(said[0], seen.points, picture, seed)
        right = [frame[:, ::-1] for frame in talking(said[1], seen.points, picture, seed + 100)]
        shown = np.stack([np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)])
        frames = video.decode(video.encode(shown, FPS))
        mirrored = (2 * width - head[2], head[1], 2 * width - head[0], head[3])
        found = speaking(model, stage, frames, [head, mirrored], speech_frames(heard(vad, sum(said)), FRAMES, FPS))
        for face, mine in zip(found, spans, strict=False):
            tally = tally.plus(face, speech_frames(mine, FRAMES, FPS))
    print(f"active speaker, two drawn mouths               {tally}")
    corpus = Path(os.environ.get("A2DATA_CORPUS", "../shared/corpus"))
    narrated = speech_frames([Span(0.5, 2.5), Span(3.2, 5.2)], FRAMES, FPS)
    given = total = 0
    detect = cards.load("dlib")
    for path in sorted((corpus / "video").glob(SILENT)):
        frames = real(path)
        boxes = [box_of(face) for face in detect(frames[0])]
        if boxes:
            told = narrated[: len(frames)]
            given += int(speaking(model, stage, frames, boxes, told).any(axis=0).sum())
            total += int(told.sum())
    if total:
        print(f"active speaker, silent people, a narrator      {given} of {total} frames given to a face")


def speaking(
    model: Any,
    stage: ActiveSpeaker,
    frames: np.ndarray,
    heads: list[tuple[float, float, float, float]],
    voice: np.ndarray,
) -> np.ndarray:
    ends = [0, len(frames) - 1]
    tracks: list[Any] = [SimpleNamespace(seen_frames=ends, seen_boxes=[head, head]) for head in heads]
    motions = np.stack([motion(openings(model, frames, track), FPS) for track in tracks])
    return speakers(motions, voice, stage.min_motion, stage.min_ratio, FPS)


def real(path: Path) -> np.ndarray:
    """Return the first FRAMES frames of a film at about FPS."""
    found: list[np.ndarray] = []
    step = max(1, round(video.probe(str(path)).fps / FPS))
    for frame in video.read(str(path)):
        if frame.index % step == 0:
            found.append(cv2.resize(frame.picture.to_ndarray(format="rgb24"), None, fx=0.5, fy=0.5))
        if len(found) == FRAMES:
            break
    return np.stack(found)


def box_of(face: Any) -> tuple[float, float, float, float]:
    """Return a face's box with room for a head that moves."""
    x0, y0, x1, y1 = face.box
    more = 0.4 * (x1 - x0)
    return x0 - more, y0 - more, x1 + more, y1 + more


def main() -> None:
    vad = cards.load("silero-vad")
    voices(vad)
    faces(vad)


if __name__ == "__main__":
    main()
