from dataclasses import dataclass, field

import numpy as np
import pytest

from a2data.media.images import to_rle
from benchmarks import demo_truth
from benchmarks.demo_truth import find, in_clip, mask_at, reference_lines, shot_of, visible_in


@dataclass
class Clip:
    clip_id: str = "a"
    source_frames: list[int] = field(default_factory=lambda: list(range(30, 60)))
    crop: tuple = (0.0, 10.0, 40.0, 30.0)
    width: int = 80
    height: int = 40


@dataclass
class Element:
    frame: int
    mask: bytes
    kind: str = "object"


@dataclass
class Reference:
    kind: str
    clip_id: str
    element_id: str
    source_element_id: str


def square(x, y=12, side=8):
    mask = np.zeros((40, 40), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def noted(x, visible=1.0):
    return {"box": [x, 12, x + 8, 20], "mask": to_rle(square(x)).hex(), "visible": visible}


@pytest.fixture
def video():
    cup = {"id": "cup", "kind": "object", "frames": {"30": noted(4), "40": noted(14), "50": noted(24, 0.2)}}
    return {"shots": [{"start": 30, "end": 60, "entities": [cup]}]}


def test_a_frame_belongs_to_its_shot_or_to_none(video):
    assert shot_of(video, 59) is video["shots"][0]
    assert shot_of(video, 60) is None


def test_the_truth_between_two_frames_is_moved_there(video):
    cup = video["shots"][0]["entities"][0]
    assert np.array_equal(mask_at(cup, 33), square(7))
    assert np.array_equal(mask_at(cup, 40), square(14))
    assert mask_at(cup, 75) is None


def test_a_mask_is_cropped_and_scaled_as_the_clip_is():
    shown = in_clip(square(4), Clip())
    ys, xs = np.nonzero(shown)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (8, 24, 4, 20)


def test_an_element_is_the_entity_of_its_kind_that_it_overlaps(video):
    mask = to_rle(in_clip(square(7), Clip()))
    assert (find(Element(3, mask), Clip(), video).entity, find(Element(3, mask), Clip(), video).iou) == ("cup", 1.0)
    assert find(Element(3, mask, "human"), Clip(), video).entity == ""
    assert find(Element(20, mask), Clip(), video).entity == ""


def test_what_is_hidden_most_of_the_time_need_not_be_found(video):
    assert visible_in(Clip(), video, "object") == {"cup"}
    video["shots"][0]["entities"][0]["frames"]["40"]["visible"] = 0.1
    assert visible_in(Clip(), video, "object") == set()


def test_a_reference_to_an_unknown_entity_is_wrong_and_a_clip_without_partner_does_not_count():
    wanted = {"human": {"a": {"ann"}, "b": {"ann"}, "c": {"bea"}}, "object": {}}
    who = {"a/1": "ann", "b/1": "ann", "c/1": ""}
    references = [Reference("human", "a", "a/1", "b/1"), Reference("human", "c", "c/1", "c/1")]
    assert reference_lines(references, who, wanted) == [
        "human references: precision 1/2 = 0.50, recall 1/2 = 0.50",
        "object references: precision 0/0, recall 0/0",
    ]


def test_figures_below_their_floor_are_named():
    good = [
        "cuts: 12/12 = 1.00 exact, 0 false",
        "clips: 20, kept 20",
        "humans: recall 18/18 = 1.00, precision 18/18 = 1.00, mean IoU 0.911, least 0.64",
        "objects: recall 14/16 = 0.88, precision 14/14 = 1.00, mean IoU 0.903, least 0.51",
        "human references: precision 34/34 = 1.00, recall 17/17 = 1.00",
        "object references: precision 12/12 = 1.00, recall 12/16 = 0.75",
    ]
    assert demo_truth.shortfalls(good) == []
    worse = [line.replace("0 false", "1 false").replace("34/34", "33/34") for line in good]
    assert demo_truth.shortfalls(worse) == [
        "cuts without false ones: 0.000, at least 1.0 expected",
        "human references precision: 0.971, at least 1.0 expected",
    ]
    assert len(demo_truth.shortfalls([])) == len(demo_truth.FLOORS)
