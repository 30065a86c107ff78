from types import SimpleNamespace

import numpy as np

from a2data.elements.build import (
    Limits,
    elements,
    majority,
    merge_duplicates,
    observe,
    quality,
    reject_reasons,
    sample_frames,
    track,
)
from model_zoo.roles import Detection

SHAPE = (120, 160)
LIMITS = Limits(min_area=0.005, max_area=0.9, min_side_px=40, min_track_coverage=0.3, max_elements=2)


def mean_colour(pictures, masks):
    rows = np.array([p[m].mean(0) + 1 for p, m in zip(pictures, masks, strict=True)], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def seen(frame, *boxes, kind="human", label="person", score=0.9):
    blank = np.full((*SHAPE, 3), 120, np.uint8)
    return observe(blank, frame, [Detection(kind, label, score, box, None) for box in boxes], mean_colour)


def test_samples_hold_the_first_and_the_last_frame():
    assert sample_frames(81, 5) == list(range(0, 81, 5))
    assert sample_frames(8, 3) == [0, 3, 6, 7]
    assert sample_frames(1, 5) == [0]


def one(frame, box):
    (sighting,) = observe(frame, 0, [Detection("human", "person", 0.9, box, None)], mean_colour)
    return sighting


def test_blur_borders_and_others_lower_the_quality_and_the_bottom_hardly_does():
    frame = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    box, area = (40, 30, 90, 100), 50 * 70 / 120 / 160
    best = quality(frame, one(frame, box), [], area)
    assert 0 < best <= 1
    blurred = np.repeat(np.repeat(frame[::8, ::8], 8, 0), 8, 1)
    assert quality(blurred, one(blurred, box), [], area) < best
    assert quality(frame, one(frame, box), [one(frame, (60, 20, 110, 110))], area) < 0.8 * best
    assert quality(frame, one(frame, box), [], 3 * area) < 0.8 * best
    at_left, at_bottom = (quality(frame, one(frame, b), [], area) for b in ((0, 30, 50, 100), (40, 50, 90, 120)))
    assert at_left < 0.7 * best < 0.85 * best < at_bottom < best


def test_a_detection_whose_mask_is_empty_is_not_a_sighting():
    frame = np.zeros((*SHAPE, 3), np.uint8)
    found = [Detection("object", "cup", 0.9, (10, 10, 60, 60), np.zeros(SHAPE, bool))]
    assert observe(frame, 0, found, mean_colour) == []


def test_a_person_and_a_thing_in_one_place_are_two_tracks_and_the_larger_comes_first():
    samples = [[*seen(n, (10, 10, 60, 60), kind="object", label="cup"), *seen(n, (10, 10, 60, 100))] for n in range(3)]
    tracks = track(samples)
    assert [(track[0].kind, len(track)) for track in tracks] == [("human", 3), ("object", 3)]


def test_a_tracker_is_given_the_boxes_and_scores_of_each_sample_of_one_kind_at_a_time():
    asked = []

    def tracker(boxes, scores):
        asked.append(([b.shape for b in boxes], [s.shape for s in scores]))
        return [[0] * len(b) for b in boxes]

    tracks = track([seen(0, (10, 10, 60, 60)), [], seen(2, (90, 10, 140, 60))], tracker)
    assert asked == [([(1, 4), (0, 4), (1, 4)], [(1,), (0,), (1,)]), ([(0, 4)] * 3, [(0,)] * 3)]
    assert [[s.frame for s in track] for track in tracks] == [[0, 2]]


def test_limits_exclude_elements_and_too_many_come_last():
    boxes = [(0, 0, 50, 50), (100, 0, 160, 60), (0, 60, 45, 110), (80, 80, 100, 100)]
    tracks = track([seen(n, *boxes) for n in range(3)])
    refusals = reject_reasons(tracks, 3, LIMITS)
    assert [why and why[0] for why in refusals] == [None, None, "too many", "too small"]
    assert refusals[2][1] == "3 elements, max_elements = 2"


def test_a_track_is_called_what_it_is_called_with_the_most_confidence():
    once, twice = seen(0, (0, 0, 50, 50), label="cup"), seen(5, (0, 0, 50, 50), label="bowl", score=0.5)
    assert majority([*once, *twice]) == "cup"
    assert majority([*once, *twice, *seen(10, (0, 0, 50, 50), label="bowl", score=0.5)]) == "bowl"


def cut(box):
    """A mask that does not fill its box."""
    x0, y0, x1, y1 = box
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    mask[y0 : y0 + 5, x0 : x0 + 5] = False
    return mask


def person(box, frames, level=120):
    picture = np.full((*SHAPE, 3), level, np.uint8)
    return [observe(picture, n, [Detection("human", "person", 0.9, box, cut(box))], mean_colour)[0] for n in frames]


def test_two_tracks_of_one_person_become_one_and_the_larger_mask_stays():
    whole, upper, beside = person((10, 10, 60, 110), (0, 1, 2)), person((12, 10, 58, 60), (1, 2, 3)), (90, 10, 140, 110)
    (joined, other) = merge_duplicates([whole, upper, person(beside, (0, 1, 2))])
    assert [(s.frame, s.box) for s in joined] == [
        (0, whole[0].box),
        (1, whole[1].box),
        (2, whole[2].box),
        (3, upper[2].box),
    ]
    assert other[0].box == beside


def test_a_track_that_goes_on_where_another_ended_is_the_same_person_unless_it_looks_or_stands_otherwise():
    box = (10, 10, 60, 110)
    before = person(box, (0, 1, 2))
    assert len(merge_duplicates([before, person(box, (9, 10))])) == 1
    assert len(merge_duplicates([before, person((90, 10, 140, 110), (9, 10))])) == 2
    other = [s._replace(embedding=np.array([1, 0, 0], np.float32)) for s in person(box, (9, 10))]
    assert len(merge_duplicates([before, other])) == 2


def test_boxes_of_two_people_one_in_front_of_the_other_are_not_joined():
    adult, child = seen(0, (10, 10, 100, 110)), seen(0, (30, 60, 60, 110))
    assert len(merge_duplicates([adult, child])) == 2


def test_a_mask_is_as_confident_as_its_detector_is_certain_unless_the_picture_says_more():
    sure = [s._replace(mask_confidence=0.8) for s in person((10, 10, 60, 110), (0, 1))]
    clip = SimpleNamespace(clip_id="v-0", frames=np.full((2, *SHAPE, 3), 120, np.uint8))

    def confidence(score_masks):
        (row,) = elements(clip, [sure], "looks", score_masks=score_masks)
        return row.mask_confidence

    assert [confidence(j) for j in (None, lambda *_: [[0.5, 0.5]], lambda *_: [[0.9, 0.9]])] == [0.8, 0.8, 0.9]
