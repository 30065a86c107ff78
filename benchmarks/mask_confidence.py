"""Accuracy of the confidence of masks: each cue of model_zoo.detect.mask_confidence against the ground truth of rendered films.

    python -m benchmarks.mask_confidence FILMS WORK [FILMS WORK ...]

FILMS: a set made by `a2data triplet-bench make`; WORK: the tables of a finished run over it. `detect` runs again on the kept
clips. A mask is right if a reference with it would be clean (docs/triplet-bench.md). The script prints the area under the ROC
curve of each cue, of the certainty of the detector, and of the confidence, which is the larger of the product of the cues and the
certainty, over all observations, and for some thresholds how many right and wrong pictures would be kept.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from a2data import records
from a2data.elements import build
from a2data.media import images
from a2data.store.tables import Store
from model_zoo.detect.mask_confidence import MaskCues, cues_of
from pipelines.bench.triplets import match_truth, pictures
from pipelines.bench.triplets.predictions import Prediction, Ref, SourceMask, rows
from pipelines.films import truth
from stages.detect import Detect

NOTHING = Prediction({}, {}, [])
THRESHOLDS = (0.0, 0.55, 0.6, 0.63, 0.67, 0.7, 0.75)


class Judged(NamedTuple):
    """An observation, and whether its mask is right."""

    kind: str
    cues: MaskCues
    quality: float
    right: bool
    certainty: float = -1.0  # of the detector

    @property
    def confidence(self) -> float:
        return max(self.cues.confidence, self.certainty)


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths or len(paths) % 2:
        sys.exit(__doc__)
    tracks = [track for films, work in zip(paths[::2], paths[1::2], strict=True) for track in judged(films, work)]
    print("\n".join(table(tracks)))


def judged(films: Path, work: Path) -> Iterator[list[Judged]]:
    """Yield each track of the clips that a run kept."""
    known, store, stage = truth.load(films), Store(work), Detect()
    files = {video.video_id: Path(video.path).name for video in rows(store, "ingest", records.Video)}
    kept = {row.clip_id for row in rows(store, "select", records.Kept)}
    models = stage.load()
    for film in rows(store, "segment", records.ClipVideo):
        if film.clip_id in kept:
            tracks = stage.tracks(models, film)[0]
            cues = cues_of(film.frames, [[(s.frame, s.mask) for s in track] for track in tracks])
            for n, track in enumerate(tracks):
                others = [s for other in tracks if other is not track for s in other]
                marks = build.qualities(film.frames, track, others)
                yield [
                    Judged(s.kind, cue, mark, is_right(known, film, files[film.video_id], s), s.mask_confidence)
                    for s, cue, mark in zip(track, cues[n], marks, strict=True)
                ]


def is_right(known: truth.Truth, film: records.ClipVideo, file: str, sighting: build.Observation) -> bool:
    """Return whether a reference with this mask would be clean; False if the mask does not match an entity."""
    seen = SourceMask(file, film.source_frames[sighting.frame], images.to_rle(sighting.mask), film.crop)
    ref = Ref(sighting.kind, "", -1, "", "", seen)
    clean = pictures.cleanliness(
        match_truth.GroundTruthMatcher(known, NOTHING), ref, match_truth.match_entity(known, seen, sighting.kind)
    )
    return clean is not None and clean.clean


def auc(values: np.ndarray, right: np.ndarray) -> float:
    """Return the area under the ROC curve; nan if all values are of one class."""
    if right.all() or not right.any():
        return float("nan")
    a, b = values[right][:, None], values[~right][None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def table(tracks: list[list[Judged]]) -> Iterator[str]:
    """Yield the lines of the report."""
    seen = [s for track in tracks for s in track]
    right = np.array([s.right for s in seen])
    human = np.array([s.kind == "human" for s in seen])
    yield f"{len(seen)} observations of {len(tracks)} tracks, {right.sum()} right"
    yield "| cue | all | people | objects |\n|---|---|---|---|"
    columns = {name: np.array([getattr(s.cues, name) for s in seen]) for name in MaskCues._fields}
    columns |= {name: np.array([getattr(s, name) for s in seen]) for name in ("certainty", "confidence")}
    for name, values in (columns | {"quality": np.array([s.quality for s in seen])}).items():
        areas = [auc(values[of], right[of]) for of in (human | ~human, human, ~human)]
        yield f"| {name} | {' | '.join(f'{area:.2f}' for area in areas)} |"
    best = [max(track, key=lambda s: s.quality) for track in tracks]
    chosen = [max(track, key=lambda s: s.quality * s.confidence) for track in tracks]
    yield f"chosen by quality: {sum(s.right for s in best)} right; by quality and confidence: {sum(s.right for s in chosen)}"
    for low in THRESHOLDS:
        kept = [s.right for s in chosen if s.confidence >= low]
        yield f"confidence from {low}: {sum(kept)} right, {len(kept) - sum(kept)} wrong"


if __name__ == "__main__":
    main()
