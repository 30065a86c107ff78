from dataclasses import replace

import numpy as np
import pytest

import model_zoo.cards
from a2data.media import images
from a2data.records import ClipVideo, Element, Kept, Reject
from model_zoo.roles import Detection
from stages.detect import Detect

SHAPE = (120, 160)
RED, BLUE = (200, 30, 30), (30, 40, 190)


class Clip(ClipVideo):
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
    assert rejects == [Reject("v-00000000/human@10", "flicker", "seen in 1 of 5 samples, min_track_coverage = 0.3")]


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
    assert run(Detect(confidence=0.95), of_colours(RED), frames) == ([], [])
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


def test_the_models_are_part_of_the_resume_key():
    assert set(Detect().models()) == {"builtin-detect", "mobilenetv2"}
    assert replace(Detect(), frame_stride=3) != Detect()


def painter(mask):
    """A model that draws this mask whatever box it is given, and keeps the boxes."""

    def model(frame, boxes):
        model.asked = boxes
        return np.repeat(mask[None], len(boxes), 0)

    return model


def recut(mask, **settings):
    stage, models = Detect(mask_model="sam", **settings), (of_colours(RED), mean_colour, painter(mask))
    (row,) = stage.run(models, [Kept("v-00000000", "v")], [film(drawn({RED: walking}))])
    return row, models[2]


def test_a_mask_model_draws_the_mask_of_the_best_picture_and_of_no_other():
    (plain,), _ = run(Detect(), of_colours(RED), drawn({RED: walking}))
    x0, y0, x1, y1 = walking(plain.frame)
    smaller = np.zeros(SHAPE, bool)
    smaller[y0 + 2 : y1, x0 + 1 : x1] = True
    row, model = recut(smaller)
    assert model.asked.tolist() == [[x0, y0, x1, y1]]
    assert np.array_equal(images.from_rle(row.mask), smaller)
    assert row.box == (x0 + 1, y0 + 2, x1, y1)
    assert row.attributes[-1] == "mask=sam"
    assert row.seen_boxes == [row.box if n == row.frame else walking(n) for n in row.seen_frames]
    assert images.from_png(row.image).shape == (y1 - y0 - 2, x1 - x0 - 1, 4)


@pytest.mark.parametrize("drawn_mask", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
def test_a_mask_that_is_empty_or_elsewhere_is_not_taken_and_that_is_said(drawn_mask):
    (plain,), _ = run(Detect(), of_colours(RED), drawn({RED: walking}))
    row, _ = recut(drawn_mask)
    overlap = 40 * 70 / 120 / 160 if drawn_mask.any() else 0
    assert row == replace(plain, attributes=[*plain.attributes, "mask=detector", f"sam-iou={overlap:.2f}"])
    assert recut(drawn_mask, min_mask_iou=0.1)[0].mask != plain.mask or not drawn_mask.any()


def test_a_tracker_says_which_sightings_are_one_and_what_it_leaves_alone_flickers():
    frames = drawn({RED: walking, BLUE: lambda n: (5, 5, 60, 60)})
    by_hand = lambda boxes, scores: [[0 if i == 0 else -1 for i in range(len(b))] for b in boxes]  # noqa: E731
    stage = Detect(tracker="bytetrack")
    rows = list(
        stage.run(
            (of_colours(RED, BLUE), mean_colour, None, by_hand), [Kept("v-00000000", "v")], [film(frames, "v-00000000")]
        )
    )
    assert [r.attributes[0] for r in rows if isinstance(r, Element)] == ["colour=red"]
    assert [r.reason for r in rows if isinstance(r, Reject)] == ["flicker"] * 5


def test_the_picture_is_taken_where_the_mask_is_most_confident_and_the_confidence_is_noted():
    frames = drawn({RED: walking})
    asked = []

    def judge(shown, tracks):
        asked.append((shown.shape, [[(number, mask.sum()) for number, mask in track] for track in tracks]))
        return [[0.9 if number == 15 else 0.3 for number, _ in track] for track in tracks]

    def chosen(judge, masks=None):
        models = (of_colours(RED), mean_colour, masks, None, judge)
        (element,) = Detect().run(models, [Kept("v-00000000", "v")], [film(frames)])
        return element

    assert (chosen(judge).frame, chosen(judge).mask_confidence) == (15, 0.9)
    assert asked[0] == (frames.shape, [[(n, 40 * 70) for n in (0, 5, 10, 15, 20)]])
    assert chosen(None).mask_confidence == -1.0
    redraw = lambda frame, boxes: np.ones((1, *SHAPE), bool) * [[[x < 100 for x in range(160)]]]  # noqa: E731
    whole = Detect(min_mask_iou=0.1)
    models = (of_colours(RED), mean_colour, redraw, None, judge)
    (element,) = whole.run(models, [Kept("v-00000000", "v")], [film(frames)])
    assert element.mask_confidence == -1.0  # the refined mask was not rated


def test_only_outlines_grown_from_colours_are_judged():
    assert Detect().load().mask_scorer is not None
    assert not model_zoo.cards.base_card("yolo").grown_from_colour


def test_what_is_not_asked_for_is_not_loaded_and_what_is_asked_for_is_part_of_the_key():
    assert Detect().load()[2:4] == (None, None)
    with pytest.raises(FileNotFoundError, match=r"sam2\.1-hiera-tiny"):
        Detect(mask_model="sam2.1-hiera-tiny").models()
    assert set(Detect(tracker="bytetrack").models()) == {"builtin-detect", "mobilenetv2", "bytetrack"}
    assert Detect(model="yolo:/nowhere/best.pt", mask_model="sam:/nowhere").gpus == 0.5
