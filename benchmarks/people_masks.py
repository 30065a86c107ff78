"""Masks of people on real footage: each detector against outlines in frames of the corpus.

    A2DATA_CORPUS=<folder> python -m benchmarks.people_masks [DETECTOR ...]      (default: builtin-detect)

Truth is benchmarks/real_outlines.json: file -> frame -> people -> polygons in pixels, by a YOLOv8n-seg that the builtin profile
does not use, each looked at over its frame beside the masks of BodyPix and DeepLab; people who take less than 1 % of the picture
are left out. A detector sees the frame and seven frames before it, five apart, as in the pipeline. Printed for the tuning half
and the held-out half of the films: how many of the people have a mask with an IoU of at least 0.5 and of 0.85, the mean IoU, how
much of the masks lies outside the outlines, and how many detections are false. A rim of 0.8 % of the picture counts for neither.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from a2data.media import video
from benchmarks.corpus import CORPUS, NO_CORPUS, available
from model_zoo import cards

STEP, BEFORE = 5, 7  # frames
RIM = 0.008
HELD_OUT = (
    "learn",
    "milk",
    "night",
    "no",
    "please",
    "school",
    "want",
    "female-and-male",
    "bedroom",
    "store",
    "worker",
    "images",
)


def scenes() -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """Yield (file, the frames that the detector sees, the masks of the people in the last of them)."""
    for file, by_frame in json.loads(Path(__file__).with_name("real_outlines.json").read_text()).items():
        if file.startswith("images/"):
            frames = [cv2.imread(str(CORPUS / file), cv2.IMREAD_COLOR_RGB)]
        else:
            frames = [f.picture.to_ndarray(format="rgb24") for f in video.read(str(CORPUS / file))]
        for number, people in by_frame.items():
            n = int(number)
            seen = np.stack([frames[i] for i in range(max(n % STEP, n - STEP * BEFORE), n + 1, STEP)])
            masks = [np.zeros(seen.shape[1:3], np.uint8) for _ in people]
            for mask, polygons in zip(masks, people, strict=True):
                cv2.fillPoly(mask, [np.array(p, np.int32) for p in polygons], 1)
            yield file, seen, [mask > 0 for mask in masks]


def judged(found: list[np.ndarray], people: list[np.ndarray]) -> tuple[list[float], list[float], int]:
    """Return the best IoU of each person, the share of each matched mask outside the outline, and how many masks are false."""
    ious, leaks, matched = [], [], set()
    for person in people:
        overlaps = [float((mask & person).sum() / (mask | person).sum()) for mask in found]
        best = int(np.argmax(overlaps)) if overlaps else -1
        ious.append(overlaps[best] if overlaps else 0.0)
        if ious[-1] >= 0.5:
            matched.add(best)
            side = 2 * round(RIM * max(person.shape)) + 1
            near = cv2.dilate(person.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
            leaks.append(float((found[best] & ~near).sum() / found[best].sum()))
    all_people = np.any(people, axis=0)
    false = sum((mask & all_people).sum() < 0.3 * mask.sum() for i, mask in enumerate(found) if i not in matched)
    return ious, leaks, int(false)


def main() -> None:
    if not available():
        print(NO_CORPUS)
        return
    for name in sys.argv[1:] or ["builtin-detect"]:
        model = cards.load(name)
        rows: dict[str, tuple[list[float], list[float], list[int]]] = {
            half: ([], [], []) for half in ("tuning", "held out")
        }
        spent, count = 0.0, 0
        for file, frames, people in scenes():
            began = time.process_time()
            last = model(frames)[-1]
            spent, count = spent + time.process_time() - began, count + len(frames)
            half = "held out" if any(word in file for word in HELD_OUT) else "tuning"
            ious, leaks, false = judged([d.mask for d in last if d.kind == "human" and d.mask is not None], people)
            for total, part in zip(rows[half], (ious, leaks, [false]), strict=True):
                total.extend(part)
        for half, (ious, leaks, falses) in rows.items():
            values = np.array(ious)
            shares = f"found {(values >= 0.5).mean():.2f}, IoU from 0.85 {(values >= 0.85).mean():.2f}"
            masks = f"mean IoU {values.mean():.3f}, outside {np.mean(leaks):.3f}"
            print(f"{name}, {half}: {len(values)} people, {shares}, {masks}, false {sum(falses)}")
        print(f"{name}: {spent / count * 1000:.0f} ms of CPU per frame")


if __name__ == "__main__":
    main()
