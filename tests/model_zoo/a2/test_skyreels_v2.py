"""SkyReels-V2 through diffusers, on a tiny random folder of the real classes: all frames, or a sentence."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from tiny_skyreels_v2 import write  # noqa: E402

from model_zoo.a2 import skyreels_v2  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("skyreels"))


@pytest.fixture(scope="module")
def pipe(folder):
    return skyreels_v2.load(folder, dtype=torch.float32)


def made(pipe, seed=0, **lengths):
    steps = []
    video = skyreels_v2.sample(
        pipe, "a", height=32, width=32, num_inference_steps=2, guidance_scale=1.0, on_step=lambda: steps.append(1),
        generator=torch.Generator().manual_seed(seed), **lengths,
    )  # fmt: skip
    return video, len(steps)


def noise(frames):
    return np.random.default_rng(frames).integers(0, 256, (frames, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("lengths", "steps"),
    [({"num_frames": 13}, 2), ({"num_frames": 25, "window": 17, "history": 5}, 4)],
)
def test_all_frames_are_sampled_in_one_window_and_in_more(pipe, lengths, steps):
    video, taken = made(pipe, **lengths)
    assert video.shape == (lengths["num_frames"], 32, 32, 3)
    assert np.isfinite(video).all()
    assert taken == steps


def test_noise_on_the_history_is_the_seeds_too(pipe):
    lengths = {"num_frames": 17, "window": 13, "history": 5}
    torch.manual_seed(1)
    (first, _), before = made(pipe, **lengths), torch.get_rng_state()
    torch.manual_seed(2)
    again, _ = made(pipe, **lengths)
    assert np.array_equal(first, again)
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())  # and torch's own generator is where it was


def test_a_video_begins_with_its_first_frame(pipe):
    picture = noise(1)[0]
    video, _ = made(pipe, num_frames=13, first_frame=picture)
    with torch.no_grad():
        x = torch.from_numpy(picture).movedim(2, 0)[None, :, None].float() / 127.5 - 1
        known = pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample
    assert video.shape == (13, 32, 32, 3)
    assert np.abs(video[0] - (known[0, :, 0].movedim(0, 2).numpy() / 2 + 0.5).clip(0, 1)).max() < 1e-4
    other, _ = made(pipe, num_frames=13, first_frame=255 - picture)
    assert np.abs(video[-1] - other[-1]).max() > 1e-4  # what follows sees it


@pytest.mark.parametrize(("window", "steps"), [(0, 2), (13, 4)])
def test_a_given_video_continues_behind_its_last_frame(pipe, window, steps):
    given, lengths = noise(14), {"num_frames": 13, "window": window, "history": 5}
    video, taken = made(pipe, init_video=given, **lengths)
    assert video.shape == (14 + 13 + 3, 32, 32, 3)
    assert np.array_equal((video[:14] * 255).round().astype(np.uint8), given)
    assert np.isfinite(video).all()
    assert taken == steps
    seen = np.concatenate([noise(9), given[-5:]])  # other frames before the history change nothing
    assert np.array_equal(made(pipe, init_video=seen, **lengths)[0][14:], video[14:])
    assert not np.array_equal(made(pipe, init_video=given[::-1], **lengths)[0][14:], video[14:])


def test_a_video_shorter_than_the_history_does_not_go_on(pipe):
    with pytest.raises(ValueError, match="has 4 frames, fewer than the history of 5"):
        made(pipe, init_video=noise(4), num_frames=13, history=5)


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ((18, 0, 17, 0), "frames is 18; SkyReels-V2 takes 4 n"),
        ((33, 17, 17, 0), "a window of 17 frames has no room for 17 of history"),
        ((17, 0, 17, 2), "blocks of 2: a window has 5 latent frames"),
        ((29, 17, 5, 5), "would leave frames that do not fill a block as noise"),
        ((17, 0, 5, 5, True), "a first frame does not fill a block"),
        ((9, 17, 17, 0, False, True), "a window of 17 frames has no room for 17 of history"),
        ((17, 0, 9, 2, False, True), "blocks of 2: a window has 8 latent frames, 3 of them history"),
    ],
)
def test_lengths_whose_last_frames_would_stay_noise_are_a_sentence(lengths, sentence):
    with pytest.raises(ValueError, match=sentence):
        skyreels_v2.check_frames(*lengths)


def test_lengths_that_fill_their_blocks_are_taken():
    skyreels_v2.check_frames(29, 0, 17, 4)
    skyreels_v2.check_frames(257, 97, 17, 5)


def test_a_folder_is_known_by_what_it_says_and_told_what_it_lacks(folder, tmp_path):
    assert skyreels_v2.is_checkpoint(folder)
    assert not skyreels_v2.is_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="it lacks transformer/, vae/"):
        skyreels_v2.check(tmp_path)
