from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from a2data.elements.tracks import associate, box_at, centre_distance, from_track_ids, mean_embedding, predict_box
from a2data.records import Element

RED, BLUE = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def at(x):
    return (x, 10.0, x + 20.0, 50.0)


def test_crossing_things_keep_their_tracks_by_their_looks():
    right, left = list(range(0, 100, 10)), list(range(90, -10, -10))
    boxes = [
        [at(float(a)), at(float(b))] if t % 2 else [at(float(b)), at(float(a))]
        for t, (a, b) in enumerate(zip(right, left, strict=True))
    ]
    looks = [np.stack([RED, BLUE] if t % 2 else [BLUE, RED]) for t in range(10)]
    tracks = associate(boxes, looks)
    assert [[int(looks[t][i][0]) for t, i in track] for track in tracks] == [[0] * 10, [1] * 10]


def test_a_track_survives_a_gap_but_not_a_long_one():
    looks = [np.stack([RED])] * 12
    seen = [[at(0.0)] if t in (0, 1, 5, 11) else [] for t in range(12)]
    assert associate(seen, [look[: len(s)] for look, s in zip(looks, seen, strict=True)], gap=3) == [
        [(0, 0), (1, 0), (5, 0)],
        [(11, 0)],
    ]


def test_things_that_neither_overlap_nor_look_alike_are_two():
    assert associate([[at(0.0)], [at(30.0)]], [RED[None], BLUE[None]]) == [[(0, 0)], [(1, 0)]]


def test_a_fast_thing_is_followed_by_its_looks_but_only_so_far():
    assert associate([[at(0.0)], [at(30.0)]], [RED[None], RED[None]]) == [[(0, 0), (1, 0)]]
    assert associate([[at(0.0)], [at(90.0)]], [RED[None], RED[None]]) == [[(0, 0)], [(1, 0)]]


@given(st.lists(st.lists(st.floats(0, 200), max_size=4), max_size=6))
def test_every_sighting_is_in_one_track_and_no_track_twice_in_a_sample(samples):
    boxes = [[at(x) for x in sample] for sample in samples]
    tracks = associate(boxes, [np.tile(RED, (len(b), 1)) for b in boxes])
    assert sorted(s for t in tracks for s in t) == [
        (t, i) for t, sample in enumerate(samples) for i in range(len(sample))
    ]
    assert all(a < b for track in tracks for (a, _), (b, _) in pairwise(track))


def test_distance_is_measured_in_sizes_of_the_larger():
    assert centre_distance((0, 0, 10, 10), (30, 40, 40, 50)) == 5.0


def test_the_mean_look_has_unit_length():
    assert np.allclose(mean_embedding([RED, BLUE]), [0.5**0.5] * 2)


THING = Element("c", "c/object/0", "object", "cup", "", 4, (0, 0, 1, 1), 1.0, b"", b"", "", [], "", 1.0, [], [], [])
THING = replace(THING, seen_frames=[4, 8], seen_boxes=[(0.0, 0.0, 10.0, 10.0), (8.0, 4.0, 18.0, 14.0)])


def test_a_box_that_was_seen_comes_back_as_it_was():
    assert box_at(THING, 4, extrapolate=0) == (0, 0, 10, 10)
    assert box_at(THING, 8, extrapolate=0) == (8, 4, 18, 14)


def test_between_two_sightings_a_box_moves_in_a_straight_line():
    assert box_at(THING, 6, extrapolate=0) == (4, 2, 14, 12)


def test_outside_its_sightings_a_box_stands_still_for_the_reach_and_is_then_gone():
    assert box_at(THING, 2, extrapolate=2) == (0, 0, 10, 10)
    assert box_at(THING, 10, extrapolate=2) == (8, 4, 18, 14)
    assert box_at(THING, 1, extrapolate=2) is None
    assert box_at(THING, 11, extrapolate=2) is None


def test_what_was_never_seen_has_no_box():
    assert box_at(replace(THING, seen_frames=[], seen_boxes=[]), 4, extrapolate=9) is None


def test_tracker_ids_define_tracks_and_a_detection_without_one_is_its_own_track():
    assert from_track_ids([[0, -1], [], [1, 0], [-1]]) == [[(0, 0), (2, 1)], [(0, 1)], [(2, 0)], [(3, 0)]]


def test_of_two_who_pass_one_another_each_keeps_their_track():
    """One walks to the right; of whom is behind, the mask spills to that side until both are seen again."""
    sides = (
        ((0, 158), (30, 223), (102, 293), (243, 464), (281, 529)),
        ((155, 335), (221, 552), (291, 626), (0, 260), (62, 282)),
    )
    walker, stands = ([(float(a), 30.0, float(b), 350.0) for a, b in one] for one in sides)
    looks = [np.array([[0.8, 0.6], [0.6, 0.8]], np.float32)] * 5
    for order in (slice(None), slice(None, None, -1)):
        boxes = [[a, b][order] for a, b in zip(walker, stands, strict=True)]
        tracks = associate(boxes, [look[order] for look in looks])
        shown = {tuple(boxes[t][i] for t, i in track) for track in tracks}
        assert shown == {tuple(walker), tuple(stands)}


def test_where_a_track_will_be_is_where_it_would_go_on_to():
    boxes = [[(0.0, 0.0, 10.0, 10.0)], [(4.0, 2.0, 14.0, 12.0)], []]
    assert predict_box(1, [(0, 0)], boxes) == (0, 0, 10, 10)
    assert predict_box(4, [(0, 0), (1, 0)], boxes) == (16, 8, 26, 18)
