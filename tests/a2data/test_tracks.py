from dataclasses import replace

from a2data.records import Element
from a2data.tracks import box_at

THING = Element("c", "c/object/0", "object", "cup", "", 4, (0, 0, 1, 1), 1.0, b"", b"", "", [], "", 1.0, [], [], [])
THING = replace(THING, seen_frames=[4, 8], seen_boxes=[(0.0, 0.0, 10.0, 10.0), (8.0, 4.0, 18.0, 14.0)])


def test_a_box_that_was_seen_comes_back_as_it_was():
    assert box_at(THING, 4, reach=0) == (0, 0, 10, 10)
    assert box_at(THING, 8, reach=0) == (8, 4, 18, 14)


def test_between_two_sightings_a_box_moves_in_a_straight_line():
    assert box_at(THING, 6, reach=0) == (4, 2, 14, 12)


def test_outside_its_sightings_a_box_stands_still_for_the_reach_and_is_then_gone():
    assert box_at(THING, 2, reach=2) == (0, 0, 10, 10)
    assert box_at(THING, 10, reach=2) == (8, 4, 18, 14)
    assert box_at(THING, 1, reach=2) is None
    assert box_at(THING, 11, reach=2) is None


def test_what_was_never_seen_has_no_box():
    assert box_at(replace(THING, seen_frames=[], seen_boxes=[]), 4, reach=9) is None
