"""Trackers by motion alone through ultralytics (AGPL-3.0): ByteTrack and BoT-SORT.

ByteTrack: Zhang et al. 2022 (arXiv 2110.06864); BoT-SORT: Aharon et al. 2022 (arXiv 2206.14651), here without its camera
compensation and its appearance model: a tracker is given boxes, not pictures.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from model_zoo import torchvision_shim
from model_zoo.detect.yolo import keep_offline
from model_zoo.roles import Card

LOST = 4  # samples after which a track that was not seen has ended
# As in the papers, but every box that comes is meant to be followed: the stage has dropped the unsure ones.
SETTINGS = {
    "track_high_thresh": 0.25,
    "track_low_thresh": 0.1,
    "new_track_thresh": 0.25,
    "track_buffer": LOST,
    "match_thresh": 0.8,
    "fuse_score": True,
    "gmc_method": "none",
    "proximity_thresh": 0.5,
    "appearance_thresh": 0.8,
    "with_reid": False,
}

Track = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[list[int]]]


def bytetrack(card: Card, device: str) -> Track:
    """ByteTrack (Zhang et al. 2022) of ultralytics. `model(boxes, scores) -> numbers`: boxes (n, 4) and scores (n,) of each
    sampled frame; numbers as in `_numbers`.
    """
    fresh = _classes()[0]
    return lambda boxes, scores: _numbers(fresh(SimpleNamespace(**SETTINGS)), boxes, scores)


def botsort(card: Card, device: str) -> Track:
    """BoT-SORT (Aharon et al. 2022) of ultralytics: as ByteTrack, with a Kalman filter over width and height."""
    fresh = _classes()[1]
    return lambda boxes, scores: _numbers(fresh(SimpleNamespace(**SETTINGS)), boxes, scores)


def _classes() -> tuple[Any, Any]:
    """Ultralytics' trackers. Raises ModuleNotFoundError where lap is missing, which ultralytics would try to install."""
    import lap  # noqa: F401

    keep_offline()
    torchvision_shim.install()
    from ultralytics.trackers import BOTSORT, BYTETracker

    return BYTETracker, BOTSORT


def _numbers(tracker: Any, boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> list[list[int]]:
    """The number of the track of each box of each frame, from 0; -1 for a box that is in no track.

    A box that appears after the first frame is in a track from its second sighting on: that is how ByteTrack keeps out what
    flickers.
    """
    from ultralytics.engine.results import Boxes

    found = []
    for here, sure in zip(boxes, scores, strict=True):
        rows = np.column_stack([np.reshape(here, (-1, 4)), sure, np.zeros(len(sure))]).astype(np.float32)
        tracked = tracker.update(Boxes(rows, (1, 1)))
        numbers = [-1] * len(rows)
        for row in np.reshape(tracked, (-1, 8)):
            numbers[int(row[7])] = int(row[4]) - 1
        found.append(numbers)
    return found
