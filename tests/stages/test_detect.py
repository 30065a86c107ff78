from dataclasses import replace

import numpy as np
import pytest

from a2data import images
from a2data.elements import quality, sampled, sighted
from a2data.records import Element, Film, Kept, Reject
from model_zoo.cards import Detection
from stages.detect import Detect

SHAPE = (120, 160)
RED, BLUE = (200, 30, 30), (30, 40, 190)


class Clip(Film):
    """A film whose frames are given, not decoded: what was drawn is there to the pixel."""

    @property
    def frames(self):
        return self.video


def film(frames, clip_id="v-00000000"):
    t, h, w, _ = frames.shape
    return Clip(clip_id, "v", 0, 0, t, "start", 15.0, w, h, [], [], (0, 0, w, h), 0.0, [], [], [], b"", frames)


def drawn(boxes_by_colour, t=21):
    """Frames on grey with a noisy rectangle of each colour at box(frame), in the order given."""
    frames = np.full((t, *SHAPE, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    for colour, box in boxes_by_colour.items():
        for n in range(t):
            if box(n):
                x0, y0, x1, y1 = box(n)
                frames[n, y0:y1, x0:x1] = np.clip(colour + rng.normal(0, 8, (y1 - y0, x1 - x0, 3)), 0, 255)
    return frames


def of_colours(*colours, kind="human"):
    """A detector that finds whatever has nearly one of these colours."""

    def detector(frames):
        near = [[np.abs(f.astype(int) - c).max(2) < 60 for c in colours] for f in frames]
        return [[Detection(kind, "person", 0.9, (0, 0, 1, 1), m) for m in here if m.any()] for here in near]

    return detector


def mean_colour(pictures, masks):
    rows = np.array([p[m].mean(0) for p, m in zip(pictures, masks, strict=True)], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def run(stage, detector, frames):
    rows = list(stage.run((detector, mean_colour), [Kept("v-00000000", "v")], [film(frames)]))
    return [r for r in rows if isinstance(r, Element)], [r for r in rows if isinstance(r, Reject)]


def walking(n):
    return 20 + 3 * n, 30, 60 + 3 * n, 100


def test_a_walking_rectangle_is_found_again_to_the_pixel():
    frames = drawn({RED: walking})
    ((element,), rejects) = run(Detect(), of_colours(RED), frames)
    x0, y0, x1, y1 = walking(element.frame)
    truth = np.zeros(SHAPE, bool)
    truth[y0:y1, x0:x1] = True
    assert element.box == (x0, y0, x1, y1)
    assert np.array_equal(images.from_rle(element.mask), truth)
    rgba = images.from_png(element.image)
    assert np.array_equal(rgba[..., :3], frames[element.frame, y0:y1, x0:x1])
    assert (rgba[..., 3] == 255).all()
    assert element.image_sha256 == images.sha16(element.image)
    assert (element.element_id, element.kind, element.label) == ("v-00000000/human/0", "human", "person")
    assert element.seen_frames == [0, 5, 10, 15, 20]
    assert element.seen_boxes == [walking(n) for n in element.seen_frames]
    assert element.attributes == ["colour=red", f"size={40 * 70 / 120 / 160:.2f}"]
    assert np.linalg.norm(element.embedding) == pytest.approx(1, abs=1e-5)
    assert rejects == []


def test_people_who_cross_keep_their_elements():
    def back(n):
        return 100 - 3 * n, 30, 140 - 3 * n, 100

    elements, _ = run(Detect(), of_colours(BLUE, RED), drawn({RED: walking, BLUE: back}))
    assert sorted(e.attributes[0] for e in elements) == ["colour=blue", "colour=red"]
    for element in elements:
        way = back if element.attributes[0] == "colour=blue" else walking
        assert element.seen_frames == [0, 5, 10, 15, 20]
        for n, (x0, _, x1, _) in zip(element.seen_frames, element.seen_boxes, strict=True):
            assert way(n)[0] <= x0 < x1 <= way(n)[2]  # one stands before the other for a while


def test_what_flickers_is_rejected_by_name():
    frames = drawn({RED: walking, BLUE: lambda n: (5, 5, 60, 60) if n == 10 else None})
    elements, rejects = run(Detect(), of_colours(RED, BLUE), frames)
    assert [e.attributes[0] for e in elements] == ["colour=red"]
    assert rejects == [Reject("v-00000000/human@10", "flicker", "seen in 1 of 5 samples, min_seen = 0.3")]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [({"min_area": 0.2}, "too small"), ({"min_side_px": 41}, "too small"), ({"max_area": 0.1}, "too large")],
)
def test_what_is_too_small_or_too_large_is_rejected(setting, reason):
    elements, rejects = run(Detect(**setting), of_colours(RED), drawn({RED: walking}))
    assert (elements, [r.reason for r in rejects]) == ([], [reason])


def test_the_longest_and_largest_stay_when_there_are_too_many():
    frames = drawn({BLUE: lambda n: (0, 0, 44, 44), RED: walking})
    (element,), (reject,) = run(Detect(max_elements=1), of_colours(RED, BLUE), frames)
    assert element.attributes[0] == "colour=red"
    assert reject.reason == "too many"


def test_kinds_are_numbered_each_for_itself():
    def both(frames):
        things = of_colours(BLUE, kind="object")(frames)
        return [a + b for a, b in zip(things, of_colours(RED)(frames), strict=True)]

    elements, _ = run(Detect(), both, drawn({BLUE: lambda n: (0, 0, 44, 44), RED: walking}))
    assert [e.element_id for e in elements] == ["v-00000000/human/0", "v-00000000/object/0"]


def test_unsure_detections_and_an_empty_clip_give_nothing():
    frames = drawn({RED: walking})
    assert run(Detect(min_score=0.95), of_colours(RED), frames) == ([], [])
    assert run(Detect(), lambda frames: [[] for _ in frames], frames) == ([], [])


def test_a_detector_without_masks_gives_its_boxes():
    detector = lambda frames: [[Detection("object", "cup", 0.8, (10.2, 20.0, 69.5, 80.0), None)] for _ in frames]  # noqa: E731
    (element,), _ = run(Detect(), detector, drawn({}))
    assert element.box == (10, 20, 70, 80)


def test_a_clip_of_one_frame_can_have_elements():
    elements, _ = run(Detect(), of_colours(RED), drawn({RED: walking}, t=1))
    assert [e.seen_frames for e in elements] == [[0]]


def test_two_runs_give_the_same_rows():
    frames = drawn({RED: walking, BLUE: lambda n: (5, 5, 60, 60)})
    assert run(Detect(), of_colours(RED, BLUE), frames) == run(Detect(), of_colours(RED, BLUE), frames)


def test_samples_hold_the_first_and_the_last_frame():
    assert sampled(81, 5) == list(range(0, 81, 5))
    assert sampled(8, 3) == [0, 3, 6, 7]
    assert sampled(1, 5) == [0]


def one(frame, box):
    (sighting,) = sighted(frame, 0, [Detection("human", "person", 0.9, box, None)], mean_colour)
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


def test_the_models_are_part_of_the_resume_key():
    assert set(Detect().models()) == {"builtin-detect", "mobilenetv2"}
    assert replace(Detect(), every=3) != Detect()
