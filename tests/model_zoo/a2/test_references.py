"""References on their way into A2: to the pixel, to the frame, to the channel."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jaxtyping")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from model_zoo.a2 import references as refs  # noqa: E402
from model_zoo.a2.references import Reference  # noqa: E402

RED = (200, 10, 20)


def plain(height: int, width: int, colour=RED) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_a_wide_picture_is_padded_with_white_above_and_below():
    out = refs.padded(plain(100, 400), 200, 400)
    assert (out[:49] == 255).all()
    assert (out[-49:] == 255).all()
    assert (out[52:148] == RED).all()


def test_a_tall_picture_is_padded_with_white_left_and_right():
    out = refs.padded(plain(400, 100), 400, 200)
    assert (out[:, :49] == 255).all()
    assert (out[:, -49:] == 255).all()
    assert (out[:, 52:148] == RED).all()


def test_a_place_is_cropped_in_the_middle_and_gets_no_border():
    picture = plain(100, 400)
    picture[:, 100:300] = (0, 0, 255)
    assert (refs.cropped(picture, 200, 400) == (0, 0, 255)).all()
    assert (refs.cropped(picture.transpose(1, 0, 2), 400, 200) == (0, 0, 255)).all()


@given(st.integers(16, 300), st.integers(16, 300), st.integers(1, 12), st.integers(1, 12))
def test_every_picture_gets_the_size_asked_for(h, w, height, width):
    for fit in (refs.padded, refs.cropped):
        assert fit(plain(h, w), 16 * height, 16 * width).shape == (16 * height, 16 * width, 3)


def test_a_picture_of_the_right_size_stays_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    assert np.array_equal(refs.padded(picture, 32, 48), picture)
    assert np.array_equal(refs.cropped(picture, 32, 48), picture)


def test_people_come_before_things_and_things_before_places_whatever_was_given_first():
    given_ = [("background", 1), ("object", 2), ("human", 3), ("object", 4), ("human", 5)]
    made = refs.prepare([Reference(role, plain(32, 48, (v,) * 3)) for role, v in given_], 32, 48)
    assert made.frames[:, 0, 0, 0].tolist() == [3, 5, 2, 4, 1]
    assert made.squares.shape == (5, 512, 512, 3)


def test_only_places_are_cropped():
    person, place = refs.prepare(
        [Reference("background", plain(10, 90)), Reference("human", plain(10, 90))], 32, 48
    ).frames
    assert (person[0] == 255).all()
    assert (place == RED).all()


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ([], "no reference"),
        ([Reference("dog", plain(32, 32))], "the unknown role 'dog'; the roles are human, object, background"),
        ([Reference("human", np.zeros((32, 32), np.uint8))], r"\(h, w, 3\) uint8"),
        ([Reference("human", np.zeros((32, 32, 4), np.uint8))], r"\(h, w, 3\) uint8"),
    ],
)
def test_an_invalid_reference_is_rejected_with_an_error_message(given_, sentence):
    with pytest.raises(ValueError, match=sentence):
        refs.prepare(given_, 32, 48)


def test_each_reference_has_a_frame_of_latents_to_itself():
    pictures = torch.stack([torch.full((3, 2, 2), float(v)) for v in (0.1, 0.2, 0.3)])
    video = refs.lay_out(pictures, 17)[0, 0, :, 0, 0]
    assert [round(v, 1) for v in video.tolist()] == [0.1] + [0.2] * 4 + [0.3] * 4 + [0.0] * 8
    given_ = refs.mask(3, 17, 2, 2)
    assert given_.shape == (1, 4, 5, 2, 2)
    assert given_[0, :, :, 0, 0].T.tolist() == [[1] * 4] * 3 + [[0] * 4] * 2


def test_without_repeats_the_mask_of_three_references_is_four_two_none():
    assert refs.mask(3, 13, 1, 1, repeat=False)[0, :, :, 0, 0].sum(0).tolist() == [4, 2, 0, 0]
    assert refs.slots(3, repeat=False) == [1, 1, 1]


def test_references_that_leave_no_frame_are_refused():
    with pytest.raises(ValueError, match="2 references take 8 of 5 frames"):
        refs.lay_out(torch.zeros(2, 3, 4, 4), 5)


class Means:
    """A VAE whose latents are the mean colour of each frame of latents, so that one sees where what went."""

    device, dtype = torch.device("cpu"), torch.float32

    class config:  # noqa: N801
        latents_mean, latents_std = [0.5] * 16, [2.0] * 16

    def encode(self, video):
        first, rest = video[:, :, :1], video[:, :, 1:].unflatten(2, (-1, 4)).mean(3)
        small = torch.nn.functional.avg_pool2d(torch.cat([first, rest], 2).flatten(0, 1), 8).unflatten(
            0, video.shape[:2]
        )
        pooled = small.repeat(1, 6, 1, 1, 1)[:, :16]
        return type(
            "Out",
            (),
            {"latent_dist": type("Dist", (), {"mode": lambda _: pooled, "sample": lambda _, g: pooled + 1})()},
        )


def test_the_condition_is_mask_then_normalised_latents_sampled_only_with_a_generator():
    pictures = torch.stack([torch.full((3, 16, 16), v) for v in (0.2, 0.4)])
    mode = refs.condition(Means(), pictures, 9)
    assert mode.shape == (1, 4 + 16, 3, 2, 2)
    assert mode[0, 0, :, 0, 0].tolist() == [1, 1, 0]
    assert torch.allclose(mode[0, 4, :, 0, 0], (torch.tensor([0.2, 0.4, 0.0]) - 0.5) / 2)
    sampled = refs.condition(Means(), pictures, 9, torch.Generator())
    assert torch.allclose(sampled[:, 4:], mode[:, 4:] + 0.5)


def test_combined_after_the_vae_the_area_outside_references_is_zero_and_not_grey():
    pictures = torch.stack([torch.full((3, 16, 16), v) for v in (0.2, 0.4)])
    after = refs.condition(Means(), pictures, 9, reference_order="after")
    assert torch.allclose(after[0, 4, :, 0, 0], torch.tensor([(0.2 - 0.5) / 2, (0.4 - 0.5) / 2, 0.0]))
    assert after[0, :4, :, 0, 0].sum(0).tolist() == [4, 4, 0]
    with pytest.raises(ValueError, match="'before' or 'after'"):
        refs.condition(Means(), pictures, 9, reference_order="between")
