"""Who speaks when: an estimate from the motion of mouths while there is speech. It does not compare lips with sounds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from a2data.media.images import Box
from a2data.records import ClipVideo, Element, Kept, Sound, Span, Speaker
from a2data.stage import Stage
from model_zoo import cards

MouthModel = Callable[[np.ndarray, Box], float]

WINDOW_S = 0.5  # about three syllables
MIN_LOOKS = 3  # frames of a window in which the mouth must be seen
MIN_PAUSE_S = 0.3  # without speech, to compare the mouth with itself


@dataclass(frozen=True)
class ActiveSpeaker(Stage):
    """Clips with speech and their faces -> when each face seems to speak.

    A face speaks while there is speech, its mouth moves, and it moves more than those of the other faces at that time; and if
    the clip has pauses, more than in those. The voice of a narrator is therefore not given to faces that keep still, but may be
    given to one that chews.
    """

    reads = {"select": Kept, "segment": ClipVideo, "listen": Sound, "faces": Element}
    writes = Speaker
    row_noun = "speakers"

    mouth_model: str = "mediapipe-mouth"
    """card of role mouth; "" = not estimated"""
    min_motion: float = 0.012
    """least motion of a mouth that speaks: standard deviation, over half a second, of its opening in distances of the eyes"""
    min_ratio: float = 1.5
    """least ratio of its motion in speech to that in pauses"""

    def models(self) -> dict[str, str]:
        return {self.mouth_model: cards.revision(self.mouth_model)} if self.mouth_model else {}

    def load(self) -> MouthModel | None:
        return cards.load(self.mouth_model, cards.device()) if self.mouth_model else None

    def run(
        self,
        model: MouthModel | None,
        kept: list[Kept],
        films: list[ClipVideo],
        sounds: list[Sound],
        faces: list[Element],
    ) -> Iterator[Speaker]:
        (film,), (sound,) = films, sounds
        if model is None or not sound.speech_spans or not faces:
            return
        voice = speech_frames(sound.speech_spans, len(film.source_frames), film.fps)
        motions = np.stack([motion(openings(model, film.frames, face), film.fps) for face in faces])
        speaks = speakers(motions, voice, self.min_motion, self.min_ratio, film.fps)
        for face, face_motion, speaking in zip(faces, motions, speaks, strict=True):
            yield Speaker(
                clip_id=film.clip_id,
                element_id=face.element_id,
                parent_id=face.parent_id,
                speech=float(speaking.sum() / voice.sum()) if voice.any() else 0.0,
                speech_spans=spans(speaking, film.fps),
                mouth_motion=mean(face_motion[voice]),
                mouth_motion_in_pauses=mean(face_motion[~voice]),
            )


def speech_frames(stretches: list[Span], count: int, fps: float) -> np.ndarray:
    """Return which frames, by their middle, are in a stretch of speech, (count,) bool."""
    middles = (np.arange(count) + 0.5) / fps
    return np.any([(s.start_s <= middles) & (middles < s.end_s) for s in stretches], axis=0)


def openings(model: MouthModel, frames: np.ndarray, face: Element) -> np.ndarray:
    """Return how far the mouth of a face is open in each frame, (t,); nan where it is not seen."""
    opening = np.full(len(frames), np.nan)
    boxes = np.array(face.seen_boxes)
    for n in range(face.seen_frames[0], face.seen_frames[-1] + 1):
        x0, y0, x1, y1 = (float(np.interp(n, face.seen_frames, side)) for side in boxes.T)
        opening[n] = model(frames[n], (x0, y0, x1, y1))
    return opening


def motion(opening: np.ndarray, fps: float) -> np.ndarray:
    """Return the standard deviation of an opening in the WINDOW_S around each frame, (t,); nan with too few looks."""
    half_window = max(1, round(WINDOW_S * fps / 2))
    padded = np.pad(opening, half_window, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half_window + 1)
    has_enough = np.isfinite(windows).sum(axis=1) >= MIN_LOOKS
    deviation = np.full(len(opening), np.nan)
    deviation[has_enough] = np.nanstd(windows[has_enough], axis=1)
    return deviation


def speakers(motions: np.ndarray, voice: np.ndarray, min_motion: float, ratio: float, fps: float) -> np.ndarray:
    """Return in which frames each face speaks, (faces, t) bool. motions: (faces, t), nan where unknown. voice: (t,) bool."""
    known = np.nan_to_num(motions, nan=-1.0)
    speaks = (known >= min_motion) & (known == known.max(axis=0)) & voice
    for face, face_motion in enumerate(motions):
        pauses = face_motion[~voice & np.isfinite(face_motion)]
        if len(pauses) >= MIN_PAUSE_S * fps and speaks[face].any():
            speaks[face] &= face_motion[speaks[face]].mean() >= ratio * pauses.mean()
    return speaks


def spans(flags: np.ndarray, fps: float) -> list[Span]:
    """Return the stretches of true frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [Span(float(a / fps), float(b / fps)) for a, b in edges.reshape(-1, 2)]


def mean(values: np.ndarray) -> float:
    """Return the mean of the known values; -1 without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else -1.0
