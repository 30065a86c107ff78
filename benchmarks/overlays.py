"""Logos and subtitles: those planted in real or rendered clips that are found, and false alarms on the clips as they are.

    python -m benchmarks.overlays WORK [WORK ...]

WORK: work folders in which segment has run. Subtitles are drawn into up to three clips of each video; a logo into all clips of
the videos that show enough different places, opaque and translucent. Nothing is encoded again. Prints found and all.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from a2data.records import ClipVideo
from a2data.store.tables import Store
from model_zoo import cards
from model_zoo.quality import overlays
from stages.logos import scenes
from stages.score import HELD_S, text
from stages.select import Select

Draw = Callable[[np.ndarray], np.ndarray]  # of an (h, w, 3) uint8 frame
SCALES = {"small": 1 / 30, "large": 1 / 18}  # height of capital letters, fraction of the picture's height
OPACITIES = (1.0, 0.5, 0.25)


def main(works: list[str]) -> None:
    model, subtitles, logos = cards.load("rapidocr"), Counter[str](), Counter[str]()
    alarms: list[str] = []
    for work in works:
        for video_id, clips in by_video(Store(work)):
            few = list(islice(clips, 24))
            for clip in few[:3]:
                for name, draw in planted_subtitles().items():
                    frames = np.stack([draw(frame) for frame in clip.frames])
                    value = text(model, frames, 2, round(HELD_S * clip.fps))["burnt_text"]
                    subtitles[name] += value > Select.max_burnt_text
                    subtitles[f"{name} of"] += 1
                    if name == "as it is" and value > Select.max_burnt_text:
                        alarms.append(f"{Path(work).name} {clip.clip_id}: burnt_text {value:.4f}")
            pictures = different(few)
            enough = len(overlays.places([overlays.gradient(grey) for grey in pictures])) >= overlays.MIN_PICTURES
            for opacity in (0.0, *OPACITIES) if enough else ():
                found = bool(overlays.marks([overlays.gradient(logo(grey, opacity)) for grey in pictures]))
                logos[f"{opacity:g}"] += found
                logos[f"{opacity:g} of"] += 1
                if found and not opacity:
                    alarms.append(f"{Path(work).name} {video_id}: logo")
            logos["videos"] += 1
    print(f"{'burnt-in text':28} clips  found")
    for name in planted_subtitles():
        print(f"{name:28} {subtitles[f'{name} of']:5} {subtitles[name]:6}")
    print(f"{'logo, opacity':28} videos found ({logos['videos']} videos in all; others show too few places)")
    for opacity in (0.0, *OPACITIES):
        print(f"{opacity or 'as it is':<28} {logos[f'{opacity:g} of']:5} {logos[f'{opacity:g}']:6}")
    print("as they are:", *(alarms or ["nothing"]), sep="\n  ")


def by_video(store: Store) -> Iterator[tuple[str, Iterator[ClipVideo]]]:
    for shard in store.shards("segment"):
        for video_id, rows in store.groups("segment", shard, ClipVideo, "video_id"):
            yield video_id, iter(rows)


def planted_subtitles() -> dict[str, Draw]:
    found: dict[str, Draw] = {"as it is": lambda frame: frame}
    for name, scale in SCALES.items():
        found[f"subtitle, {name}"] = lambda frame, scale=scale: letters(frame, "I told you not to come", scale, 0.92)
        found[f"caption at the top, {name}"] = lambda frame, scale=scale: letters(frame, "live from town", scale, 0.1)
    return found


def letters(frame: np.ndarray, words: str, scale: float, height: float) -> np.ndarray:
    """Return the frame with white type with a black edge, centred."""
    factor = scale * len(frame) / 22  # Hershey's capitals are 22 px high
    (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, factor, 1)
    where = (frame.shape[1] - width) // 2, round(height * len(frame))
    out = frame.copy()
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(out, words, where, cv2.FONT_HERSHEY_DUPLEX, factor, colour, thickness, cv2.LINE_AA)
    return out


def different(clips: list[ClipVideo]) -> list[np.ndarray]:
    """Return the pictures of a video in which `stages.logos` searches, (h, w) uint8 of one size."""
    return [cv2.resize(cv2.cvtColor(c.frames[n], cv2.COLOR_RGB2GRAY), (640, 360)) for c, n in scenes(clips)]


def logo(grey: np.ndarray, opacity: float) -> np.ndarray:
    mark = np.zeros(grey.shape, np.uint8)
    cv2.putText(mark, "TV9", (grey.shape[1] - 90, 40), cv2.FONT_HERSHEY_DUPLEX, 1.0, 255, 2, cv2.LINE_AA)
    share = mark / 255 * opacity
    return (grey * (1 - share) + 255 * share).astype(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1:])
