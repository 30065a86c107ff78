"""A person drawn by the canon of 7.5 heads, taken apart again."""

import cv2
import mediapipe_networks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.data import astronaut

from model_zoo.mediapipe import people
from model_zoo.parse import builtin
from model_zoo.parse.builtin import Marks, ellipse, pieces

HEAD, WIDTH, HEIGHT = 40, 160, 330
TOP, MIDDLE = 15, 80
BOX = (MIDDLE - 15.0, float(TOP), MIDDLE + 15.0, float(TOP + HEAD))
SKIN, DARK, YELLOW, BLUE, WHITE = (215, 165, 140), (40, 30, 25), (230, 190, 30), (40, 60, 150), (235, 235, 235)


def heads(number: float) -> int:
    """The row that is so many head heights below the crown."""
    return round(TOP + number * HEAD)


def draw(hair=DARK, shirt=YELLOW, trousers=BLUE, shoes=WHITE, waist=3.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A standing person on grey with the mask of each part; a colour of None leaves the part out of the masks as bare skin."""
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    names = ["background", "skin", "hair", "face", "upper", "lower", "shoes"]

    def paint(name, colour, shape):
        area = np.zeros_like(label)
        shape(area)
        picture[area > 0] = colour or SKIN
        label[area > 0] = names.index(name if colour else "skin")

    def block(x0, x1, y0, y1):
        return lambda a: cv2.rectangle(a, (MIDDLE + x0, heads(y0)), (MIDDLE + x1 - 1, heads(y1) - 1), 1, -1)

    paint("skin", SKIN, block(-6, 6, 0.8, 1.3))
    paint("upper", shirt, block(-28, 28, 1.2, waist))
    paint("lower", trousers, block(-22, -2, waist, 7.0))
    paint("lower", trousers, block(2, 22, waist, 7.0))
    paint("shoes", shoes, block(-24, -2, 7.0, 7.5))
    paint("shoes", shoes, block(2, 24, 7.0, 7.5))
    paint("skin", SKIN, block(10, 22, 2.0, 2.4))  # a hand before the chest
    paint("hair", hair, lambda a: cv2.ellipse(a, (MIDDLE, heads(0.5)), (15, 20), 0, 0, 360, 1, -1))
    paint("face", SKIN, lambda a: cv2.ellipse(a, (MIDDLE, heads(0.6)), (12, 16), 0, 0, 360, 1, -1))
    noise = np.random.default_rng(0).integers(-3, 4, picture.shape)
    masks = {n: label == i for i, n in enumerate(names) if (label == i).any()}
    return (picture + noise).clip(0, 255).astype(np.uint8), masks


def parse(picture: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The parts with the marks of the drawn face and hips."""
    face, cheeks = (ellipse(BOX, mask.shape, *size) for size in ((0.6, 0.4, 0.4), (0.62, 0.22, 0.12)))
    return builtin.parse(picture, mask, BOX, Marks(face, cheeks, heads(3.2)))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_every_part_of_a_drawn_person_is_found_where_it_was_drawn():
    picture, masks = draw()
    parts = parse(picture, ~masks["background"])
    assert set(parts) == {"face", "hair", "upper", "lower", "shoes"}
    measured = {name: overlap(part, masks[name]) for name, part in parts.items()}
    assert min(measured[n] for n in ("upper", "lower", "shoes")) > 0.9, measured
    assert min(measured[n] for n in ("face", "hair")) > 0.75, measured


def test_hands_and_neck_are_not_clothes():
    picture, masks = draw()
    parts = parse(picture, ~masks["background"])
    inner = cv2.erode(masks["skin"].astype(np.uint8), np.ones((3, 3))) > 0  # without the blurred edge
    hand = inner & (np.arange(HEIGHT) > heads(1.8))[:, None]
    assert hand.sum() > 50
    assert not (parts["upper"] & hand).any()


@pytest.mark.parametrize("waist", [2.6, 3.0, 3.4])
def test_the_waist_is_where_the_colour_changes(waist):
    picture, masks = draw(waist=waist)
    lower = parse(picture, ~masks["background"])["lower"]
    assert abs(np.flatnonzero(lower.any(1))[0] - heads(waist)) <= 0.1 * HEAD


def test_a_bald_head_has_no_hair():
    picture, masks = draw(hair=SKIN)
    assert "hair" not in parse(picture, ~masks["background"])


def test_a_jacket_that_a_desk_hides_below_the_collar_is_found():
    picture, masks = draw(shirt=DARK)
    end = heads(1.5)
    upper = parse(picture[:end], ~masks["background"][:end])["upper"]
    assert overlap(upper, masks["upper"][:end]) > 0.8
    assert not (upper & masks["skin"][:end])[heads(1.0) :].any()


def test_a_collar_alone_is_not_a_garment():
    picture, masks = draw()
    end = heads(1.3)
    assert "upper" not in parse(picture[:end], ~masks["background"][:end])


def test_a_lanyard_of_the_colour_of_skin_does_not_part_the_garment():
    picture, masks = draw()
    lanyard = masks["upper"] & (np.abs(np.arange(WIDTH) - MIDDLE + 8) < 2)
    upper = parse(np.where(lanyard[..., None], np.uint8(SKIN), picture), ~masks["background"])["upper"]
    assert upper[lanyard].mean() > 0.9


def test_one_colour_from_neck_to_foot_is_not_divided():
    picture, masks = draw(trousers=YELLOW, shoes=YELLOW)
    parts = parse(picture, ~masks["background"])
    assert set(parts) == {"face", "hair", "upper"}
    assert not (parts["upper"] & (np.arange(HEIGHT) > heads(3.3))[:, None]).any()


def test_shoes_that_cannot_be_told_from_trousers_are_left_out():
    picture, masks = draw(shoes=BLUE)
    assert "shoes" not in parse(picture, ~masks["background"])


def test_a_portrait_that_ends_at_the_waist_has_no_lower_clothes():
    picture, masks = draw()
    end = heads(2.9)
    parts = parse(picture[:end], ~masks["background"][:end])
    assert set(parts) == {"face", "hair", "upper"}


def test_a_bare_chest_is_not_called_clothes():
    picture, masks = draw(shirt=None, trousers=None, shoes=None)
    assert set(parse(picture, ~masks["background"])) == {"face", "hair"}


def test_a_portrait_is_parsed_by_the_networks_and_what_has_no_face_is_not():
    parse_portrait, picture = mediapipe_networks.network("builtin-parse"), astronaut()
    ((person,),) = people.track_people(people.load(), [picture])
    mask = person.mask(*picture.shape[:2]) > 0.5
    parts = parse_portrait(picture, mask, (160.0, 20.0, 290.0, 195.0))
    assert parts["face"][110, 225]  # the nose
    assert parts["hair"][40, 225]
    assert parts["upper"][300:400, 150:300].mean() > 0.9
    assert parse_portrait(picture, mask, None) == {}
    assert parse_portrait(picture, mask, (20.0, 380.0, 100.0, 490.0)) == {}


@given(hnp.arrays(np.uint8, (24, 16, 3)), hnp.arrays(bool, (24, 16)), st.integers(-4, 12), st.integers(-4, 8))
@settings(max_examples=60, deadline=None)
def test_parts_are_disjoint_not_empty_and_inside_the_mask_whatever_the_picture(picture, mask, x, y):
    head = (float(x), float(y), x + 6.0, y + 8.0)
    face, cheeks = (ellipse(head, mask.shape, 0.6, across, down) for across, down in ((0.4, 0.4), (0.22, 0.12)))
    parts = builtin.parse(picture, mask, head, Marks(face, cheeks, y + 20.0))
    total = np.sum([p.astype(int) for p in parts.values()], axis=0) if parts else np.zeros(mask.shape)
    assert total.max(initial=0) <= 1
    assert not (total > 0)[~mask].any()
    assert all(p.any() and p.dtype == bool for p in parts.values())


def test_specks_are_dropped_and_large_pieces_kept():
    mask = np.zeros((20, 40), bool)
    mask[2:12, 2:12] = mask[2:7, 20:25] = mask[15, 30:35] = True  # 100, 25 and 5 pixels
    kept = pieces(mask)
    assert kept.sum() == 125
    assert not kept[15].any()
    assert not pieces(np.zeros((4, 4), bool)).any()


def test_a_badge_on_the_chest_belongs_to_the_garment():
    picture, masks = draw()
    badge = np.zeros((HEIGHT, WIDTH), bool)
    badge[heads(1.7) : heads(1.7) + 5, 60:67] = True
    parts = parse(np.where(badge[..., None], np.uint8(SKIN), picture), ~masks["background"])
    assert parts["upper"][badge].all()
