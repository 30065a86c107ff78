import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.parse.bodypix import NOTHING, at_pixels, by_cover


@pytest.fixture(scope="module")
def parse(corpus):
    pytest.importorskip("ai_edge_litert")
    return cards.load(f"bodypix:{corpus / 'weights' / 'bodypix_mnv1_075_1280x720_24parts.tflite'}")


@pytest.fixture(scope="module")
def scrfd(corpus):
    return cards.load(f"insightface:{corpus / 'weights' / 'models' / 'insightface_mini'}")


def first_frame(corpus, name: str) -> np.ndarray:
    from a2data.media.video import read

    return next(iter(read(str(corpus / "video" / name)))).picture.to_ndarray(format="rgb24")


def silhouette(frame: np.ndarray, face, shoulders: tuple[int, int]) -> np.ndarray:
    """About where the person is: an ellipse round the head, and below it all between two columns."""
    x0, y0, x1, y1 = face
    mask = np.zeros(frame.shape[:2], np.uint8)
    middle, half = (round((x0 + x1) / 2), round((y0 + y1) / 2 - 0.1 * (y1 - y0))), (0.75 * (x1 - x0), 0.85 * (y1 - y0))
    cv2.ellipse(mask, middle, tuple(round(v) for v in half), 0, 0, 360, 1, -1)
    mask[round(y1 + 0.25 * (y1 - y0)) :, shoulders[0] : shoulders[1]] = 1
    return mask > 0


@pytest.mark.parametrize(
    ("name", "shoulders"), [("intel_asl_no.mkv", (165, 455)), ("intel_asl_please.mkv", (180, 420))]
)
def test_in_real_footage_the_face_is_where_the_face_is_and_the_clothes_are_below(corpus, parse, scrfd, name, shoulders):
    frame = first_frame(corpus, name)
    box = scrfd(frame)[0].box
    x0, y0, x1, y1 = (round(v) for v in box)
    found = parse(frame, silhouette(frame, box, shoulders), None)
    assert found["face"][y0:y1, x0:x1].mean() > 0.85
    x, y, width, height = cv2.boundingRect(found["face"].astype(np.uint8))
    assert (x, x + width) == pytest.approx((x0, x1), abs=0.35 * (x1 - x0))
    assert y + height == pytest.approx(y1, abs=0.35 * (y1 - y0))
    rows = np.flatnonzero(found["upper"].any(1))
    assert rows[0] > (y0 + y1) / 2
    assert found["upper"][y1 + (y1 - y0) : y1 + 2 * (y1 - y0), x0:x1].mean() > 0.9
    assert sum(mask.astype(int) for mask in found.values()).max() == 1


def test_bare_arms_are_not_clothes_but_long_sleeves_are(corpus, parse, scrfd):
    """One person in short sleeves and one in long ones: what lies beside the trunk at the height of their forearms."""
    shares = {}
    for word, shoulders, forearm in (
        ("please", (180, 420), np.s_[285:360, 187:210]),
        ("no", (165, 455), np.s_[285:360, 172:200]),
    ):
        frame = first_frame(corpus, f"intel_asl_{word}.mkv")
        box = scrfd(frame)[0].box
        shares[word] = parse(frame, silhouette(frame, box, shoulders), box)["upper"][forearm].mean()
    assert shares["please"] < 0.5
    assert shares["no"] > 0.9


def test_parts_stay_in_the_mask_and_a_crop_of_another_shape_keeps_the_places(corpus, parse, scrfd):
    frame = first_frame(corpus, "intel_asl_no.mkv")
    mask = silhouette(frame, scrfd(frame)[0].box, (165, 455))
    found = parse(frame, mask, None)
    assert not any((part & ~mask).any() for part in found.values())
    moved, there = np.full((700, 900, 3), 128, np.uint8), np.zeros((700, 900), bool)
    moved[100:580, 50:690], there[100:580, 50:690] = frame, mask
    again = parse(moved, there, None)
    for part in ("face", "upper"):
        same = again[part][100:580, 50:690]
        assert (same & found[part]).sum() > 0.85 * (same | found[part]).sum()


def test_a_cell_is_at_its_pixel_and_between_cells_is_between():
    cells = np.zeros((3, 4, 2), np.float32)
    cells[1, 2, 1] = 8
    grown = at_pixels(cells, np.float32([16, 8]), (17, 49))
    assert grown.shape == (2, 17, 49)
    assert not grown[0].any()
    assert np.unravel_index(grown[1].argmax(), (17, 49)) == (8, 32)
    assert grown[1, 8, 40] == pytest.approx(4, abs=0.1)
    assert grown[1, 12, 32] == pytest.approx(4, abs=0.1)


def test_without_a_face_the_trunk_alone_is_clothes():
    body = np.full((60, 40), NOTHING, np.uint8)
    body[10:40, 10:30] = 12
    body[10:40, 30:36] = 2
    found = by_cover(np.full((60, 40, 3), 90, np.uint8), body, body != NOTHING, None)
    assert set(found) == {"upper"}
    assert (found["upper"] == (body == 12)).all()


def test_a_limb_of_the_faces_colour_is_bare_and_one_of_another_is_covered():
    skin, cloth = (205, 150, 125), (30, 90, 60)
    person = np.full((160, 80, 3), cloth, np.uint8)
    body = np.full((160, 80), NOTHING, np.uint8)
    areas = {0: np.s_[5:35, 30:50], 12: np.s_[40:90, 25:55], 2: np.s_[40:90, 10:24], 4: np.s_[40:90, 56:70]}
    areas |= {14: np.s_[92:140, 25:38], 16: np.s_[92:140, 42:55], 22: np.s_[142:155, 25:38], 23: np.s_[142:155, 42:55]}
    for part, area in areas.items():
        body[area] = part
    for bare in (0, 4, 16):
        person[areas[bare]] = skin
    person = np.clip(person + np.random.default_rng(0).integers(-4, 5, person.shape), 0, 255).astype(np.uint8)
    found = by_cover(person, body, body != NOTHING, None)
    assert found["upper"][areas[2]].mean() > 0.9
    assert found["upper"][areas[4]].mean() < 0.05
    assert found["lower"][areas[14]].mean() > 0.9
    assert found["lower"][areas[16]].mean() < 0.05
    assert found["shoes"].sum() == (np.isin(body, (22, 23))).sum()
    assert (found["face"] == (body == 0)).all()
