from dataclasses import replace

import cv2
import numpy as np
import pytest

from a2data.media.images import from_png, from_rle
from a2data.records import Element, Kept, Reject
from stages.parse import Parse, fill_ratio, hair_colour, hull_ratio, opening_ratio

HEIGHT, WIDTH = 120, 160
KEPT = [Kept("clip", "video")]


def box_mask(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def embed(pictures, masks):
    assert all(p.shape[:2] == m.shape and (p[~m] == 255).all() for p, m in zip(pictures, masks, strict=True))
    return np.tile(np.float32([0, 1]), (len(pictures), 1))


class Halves:
    """A parser that calls the upper half of every crop the upper clothes and the rest the lower; keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, person, mask, face):
        self.shown.append((person, mask, face))
        upper = np.zeros(mask.shape, bool)
        upper[: len(mask) // 2] = True
        return {"upper": upper, "lower": ~upper, "face": upper}


@pytest.fixture
def scene(make_film, make_element):
    """A film that is yellow above and blue below, a person in the middle of it, and the person's head."""
    frames = np.full((6, HEIGHT, WIDTH, 3), (30, 60, 170), np.uint8)
    frames[:, : HEIGHT // 2] = (240, 200, 20)
    person = make_element(box_mask(40, 20, 100, 100), {2: (40.0, 20.0, 100.0, 100.0)})
    head = make_element(
        box_mask(60, 20, 80, 40),
        {0: (58.0, 20.0, 78.0, 40.0), 4: (62.0, 20.0, 82.0, 40.0)},
        name="face/0",
        kind="face",
        parent_id=person.element_id,
    )
    return make_film(frames), person, head


def run(stage, parser, scene):
    film, person, head = scene
    return list(stage.run((parser, embed), KEPT, [film], [person], [head]))


def test_clothes_are_named_by_their_colour_and_belong_to_their_person(scene):
    rows = run(Parse(), Halves(), scene)
    assert [(r.element_id, r.label, r.parent_id) for r in rows] == [
        ("clip/upper/0", "yellow upper clothes", "clip/human/0"),
        ("clip/lower/0", "blue lower clothes", "clip/human/0"),
    ]
    assert rows[0].attributes == ["colour=yellow"]
    assert rows[0].embedding == [0, 1]


def test_parts_stay_inside_the_persons_mask_and_their_pictures_show_just_them(scene):
    _, person, _ = scene
    upper, lower = run(Parse(), Halves(), scene)
    assert (from_rle(upper.mask) | from_rle(lower.mask) == from_rle(person.mask)).all()
    assert upper.box == (40, 20, 100, 60)
    assert lower.box == (40, 60, 100, 100)
    assert from_png(lower.image).shape == (40, 60, 4)
    assert (from_png(lower.image)[..., 3] == 255).all()


def test_the_model_sees_the_person_with_a_margin_and_the_head_where_it_is_in_that_frame(scene):
    parser = Halves()
    run(Parse(margin=0.1), parser, scene)
    ((crop, mask, head),) = parser.shown
    assert crop.shape == (96, 72, 3)
    assert mask.sum() == 60 * 80
    assert head == (60 - 34, 20 - 12, 80 - 34, 40 - 12)  # midway between frames 0 and 4, in pixels of the crop


def test_the_head_of_another_person_is_not_given_to_the_model(scene):
    film, person, head = scene
    parser = Halves()
    run(Parse(), parser, (film, person, replace(head, parent_id="clip/human/7")))
    assert parser.shown[0][2] is None


def test_a_head_last_seen_long_before_is_not_given_to_the_model(scene):
    film, person, head = scene
    parser = Halves()
    run(Parse(reach=1), parser, (film, person, replace(head, seen_frames=[0], seen_boxes=head.seen_boxes[:1])))
    assert parser.shown[0][2] is None


@pytest.mark.parametrize(
    ("stage", "detail"),
    [
        (Parse(min_part_px=2401), "2400 pixels, wanted 2401"),
        (Parse(min_part_share=0.6), "50.00% of the person, wanted 60.00%"),
    ],
)
def test_a_small_part_is_rejected_with_the_limit_it_missed(scene, stage, detail):
    rows = run(stage, Halves(), scene)
    assert rows[0] == Reject("clip/upper/0", "part too small", detail)
    assert not any(isinstance(r, Element) for r in rows)


def test_objects_do_not_have_clothes_and_a_clip_without_people_is_not_a_failure(scene):
    film, person, head = scene
    assert run(Parse(), Halves(), (film, replace(person, kind="object"), head)) == []


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((40, 38, 36), "dark"), ((200, 195, 185), "fair"), ((125, 123, 121), ""), ((120, 65, 25), "brown")],
)
def test_hair_is_called_by_colour_or_else_by_lightness(rgb, name):
    assert hair_colour(np.full((9, 3), rgb, np.uint8)) == name


def test_a_disk_is_solid_and_a_rim_and_rags_are_not():
    disk = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (80, 60), 40, 1, -1) > 0
    rim = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (80, 60), 40, 1, 3) > 0
    rags = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.6
    assert opening_ratio(disk) > 0.95
    assert opening_ratio(rim) < 0.1
    assert opening_ratio(rags & disk) < 0.1


def test_holes_are_not_filled_and_notches_leave_the_hull():
    square = box_mask(20, 20, 60, 60)
    assert (fill_ratio(square), hull_ratio(square)) == (1, 1)
    assert fill_ratio(square & ~box_mask(30, 30, 50, 50)) == pytest.approx(0.75)
    notched = square & ~box_mask(30, 20, 50, 60 - 10)
    assert fill_ratio(notched) == 1
    assert hull_ratio(notched) == pytest.approx(1 - 20 * 30 / 1600)


@pytest.mark.parametrize(
    ("kind", "mask", "why"),
    [
        ("upper", box_mask(40, 20, 100, 100), ""),
        ("upper", box_mask(40, 20, 100, 100) & ~box_mask(58, 40, 84, 78), "filled"),
        ("upper", box_mask(40, 20, 100, 100) & ~box_mask(60, 45, 84, 75), ""),
        ("shoes", box_mask(40, 20, 100, 100) & ~box_mask(60, 45, 84, 75), "filled"),
        ("hair", box_mask(60, 10, 90, 30), ""),
        ("hair", box_mask(60, 10, 72, 50), "span of the head"),
        ("hair", box_mask(50, 10, 90, 12), "solid"),
    ],
)
def test_a_part_of_an_unlikely_shape_says_what_is_wrong(kind, mask, why):
    said = Parse().reject_reason(kind, mask, (55.0, 10.0, 95.0, 60.0))
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_a_network_that_knows_shoes_and_accessories_has_them_cut_out_too(scene):
    def parser(person, mask, head):
        shoes, bag = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
        shoes[-24:-4, 8:28] = shoes[-24:-4, 34:54] = True
        bag[44:56, 20:40] = True
        return {"shoes": shoes, "accessory": bag, "face": bag}

    rows = run(Parse(min_part_px=100), parser, scene)
    assert [(r.kind, r.label) for r in rows] == [("shoes", "blue shoes"), ("accessory", "blue accessory")]


def test_the_trunk_that_bodypix_finds_in_real_footage_becomes_upper_clothes(corpus, make_film, make_element):
    from a2data.media.video import read

    frame = next(iter(read(str(corpus / "video" / "intel_asl_please.mkv")))).picture.to_ndarray(format="rgb24")
    person = np.zeros(frame.shape[:2], np.uint8)
    cv2.ellipse(person, (313, 86), (48, 72), 0, 0, 360, 1, -1)
    person[150:470, 180:420] = 1
    person = make_element(person > 0, {0: (180.0, 14.0, 420.0, 470.0)})
    stage = Parse(model=f"bodypix:{corpus / 'weights' / 'bodypix_mnv1_075_1280x720_24parts.tflite'}")
    model, _ = stage.load()
    rows = list(stage.run((model, embed), KEPT, [make_film(frame[None])], [person], []))
    (upper,) = [r for r in rows if isinstance(r, Element) and r.kind == "upper"]
    assert upper.embedder == "mobilenetv2"
    mask = from_rle(upper.mask)
    assert mask[200:400, 270:350].mean() > 0.9
    assert not mask[:110].any()
