"""Semantic duplicates planted among real or rendered clips: those found, and clips dropped by mistake.

    python -m benchmarks.semantic_duplicates WORK [WORK ...] [--embedder mobilenetv2] [--videos N]

WORK: work folders in which segment has run. At most one clip per shot, three of a video. Of a planted fraction of the clips an
edited copy is added: encoded again at a low rate, cropped by a tenth on each side, mirrored, recoloured, or at 1.25 times the
speed. Prints for each threshold and edit the copies found, and the originals dropped though nothing was planted of them: other
takes of one scene, which the footage has, count as mistakes.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from itertools import islice

import cv2
import numpy as np
import pyarrow as pa

from a2data.media import video
from a2data.records import ClipEmbedding
from a2data.store.schema import to_table
from a2data.store.tables import Store
from benchmarks.overlays import by_video
from model_zoo import cards
from stages.curate import Curate
from stages.embed import Embed, embedding

RATES = (0.05, 0.2, 0.5)
THRESHOLDS = (0.93, 0.95, 0.97, 0.98)


def crop(frames: np.ndarray) -> np.ndarray:
    _, h, w, _ = frames.shape
    return frames[:, h // 10 : h - h // 10, w // 10 : w - w // 10]


def recolour(frames: np.ndarray) -> np.ndarray:
    """Warmer, with more contrast."""
    return np.clip((frames.astype(np.float32) - 128) * 1.2 + 128 + np.array([12, 0, -12]), 0, 255).astype(np.uint8)


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "encoded again": lambda frames: video.decode(video.encode(frames, 15.0, crf=36)),
    "cropped": crop,
    "mirrored": lambda frames: frames[:, :, ::-1],
    "recoloured": recolour,
    "faster": lambda frames: frames[np.arange(0, len(frames), 1.25).astype(int)],
    "half size": lambda frames: np.stack(
        [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("works", nargs="+")
    parser.add_argument("--videos", type=int, default=1000, help="most videos of each work folder")
    parser.add_argument("--embedder", default="mobilenetv2")
    options = parser.parse_args()
    embed, originals, copies = cards.load(options.embedder), {}, defaultdict(dict)
    for work in options.works:
        for _, clips in islice(by_video(Store(work)), options.videos):
            by_shot = {clip.shot: clip for clip in islice(clips, 12)}
            for clip in list(by_shot.values())[:3]:
                frames = clip.frames
                originals[clip.clip_id] = embedding(embed, frames, Embed.frames)
                for name, edit in EDITS.items():
                    copies[name][clip.clip_id] = embedding(embed, np.ascontiguousarray(edit(frames)), Embed.frames)
    print(f"{len(originals)} clips, {options.embedder}: copies found / planted; originals dropped / all")
    order = np.random.default_rng(0).permutation(sorted(originals)).tolist()
    for least in THRESHOLDS:
        print(f"similarity {least}: without copies {len(dropped(originals, least))} / {len(originals)} dropped")
        for name in EDITS:
            line = []
            for rate in RATES:
                planted = {f"{key}~copy": copies[name][key] for key in order[: max(1, round(rate * len(order)))]}
                gone = dropped(originals | planted, least)
                line.append(
                    f"{rate:.0%}: {len(gone & planted.keys()):3} / {len(planted):3}; {len(gone - planted.keys())}"
                )
            print(f"  {name:14}", "   ".join(line))


def dropped(vectors: dict[str, np.ndarray], least: float) -> set[str]:
    rows: pa.Table = to_table(ClipEmbedding, [ClipEmbedding(key, "", row.tolist()) for key, row in vectors.items()])
    return set(Curate(duplicate_similarity=least).duplicates(rows, None))


if __name__ == "__main__":
    main()
