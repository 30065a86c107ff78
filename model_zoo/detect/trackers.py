"""Motion-only trackers through ultralytics (AGPL-3.0): ByteTrack and BoT-SORT.

ByteTrack: Zhang et al. 2022 (arXiv 2110.06864); BoT-SORT: Aharon et al. 2022 (arXiv 2206.14651), here without camera compensation
and appearance model, since a tracker receives boxes, not pictures.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from model_zoo.detect.yolo import keep_offline
from model_zoo.roles import Card

TRACK_BUFFER = 4  # samples without a detection after which a track ends
# As in the papers, except that every box is tracked: the stage has already dropped low scores.
SETTINGS = {
    "track_high_thresh": 0.25,
    "track_low_thresh": 0.1,
    "new_track_thresh": 0.25,
    "track_buffer": TRACK_BUFFER,
    "match_thresh": 0.8,
    "fuse_score": True,
    "gmc_method": "none",
    "proximity_thresh": 0.5,
    "appearance_thresh": 0.8,
    "with_reid": False,
}

Track = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[list[int]]]


def bytetrack(card: Card, device: str) -> Track:
    """ByteTrack (Zhang et al. 2022) of ultralytics.

    `model(boxes, scores) -> numbers`: boxes (n, 4) and scores (n,) of each sampled frame; numbers as in `_numbers`.
    """
    tracker_class = _classes()[0]
    return lambda boxes, scores: _track_ids(tracker_class(SimpleNamespace(**SETTINGS)), boxes, scores)


def botsort(card: Card, device: str) -> Track:
    """BoT-SORT (Aharon et al. 2022) of ultralytics: like ByteTrack, with a Kalman filter over width and height."""
    tracker_class = _classes()[1]
    return lambda boxes, scores: _track_ids(tracker_class(SimpleNamespace(**SETTINGS)), boxes, scores)


def _classes() -> tuple[Any, Any]:
    """Return ultralytics' trackers. Raises ModuleNotFoundError without lap, which ultralytics would try to install."""
    import lap  # noqa: F401

    keep_offline()
    from ultralytics.trackers import BOTSORT, BYTETracker

    return BYTETracker, BOTSORT


def _track_ids(tracker: Any, boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> list[list[int]]:
    """Return the track id of each box of each frame, from 0; -1 for a box without a track.

    A box that appears after the first frame is in a track from its second sighting on: this is how ByteTrack suppresses flicker.
    """
    from ultralytics.engine.results import Boxes

    track_ids = []
    for frame_boxes, frame_scores in zip(boxes, scores, strict=True):
        rows = np.column_stack([np.reshape(frame_boxes, (-1, 4)), frame_scores, np.zeros(len(frame_scores))]).astype(
            np.float32
        )
        tracked = tracker.update(Boxes(rows, (1, 1)))
        frame_ids = [-1] * len(rows)
        for row in np.reshape(tracked, (-1, 8)):
            frame_ids[int(row[7])] = int(row[4]) - 1
        track_ids.append(frame_ids)
    return track_ids
