import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from model_zoo.a2 import encoders as a2_encoders  # noqa: E402
from model_zoo.a2 import objective, references, tiny  # noqa: E402

CAPTIONS = ["A red square drifts.", "A blue circle stands still."]


def clip(seed: int = 0, frames: int = 9) -> np.ndarray:
    """A smooth ground with a bright rectangle that moves by two pixels a frame."""
    ramp = np.linspace(40, 120 + 10 * seed, 48)
    shown = np.broadcast_to(ramp[None, None, :, None], (frames, 32, 48, 3)).astype(np.uint8).copy()
    for n, frame in enumerate(shown):
        frame[8:24, 4 + 2 * n : 16 + 2 * n] = (250, 240 - 40 * seed, 30)
    return shown


@pytest.fixture(scope="module")
def autoencoder():
    with torch.no_grad():
        return tiny.fit_autoencoder([clip(n) for n in range(4)])


def through(autoencoder, frames: np.ndarray) -> np.ndarray:
    video = references.as_tensor(frames).movedim(0, 1)[None]
    with torch.no_grad():
        made = autoencoder.decode(autoencoder.encode(video).latent_dist.mode()).sample
    return ((made[0].movedim(0, -1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def test_a_rectangle_comes_back_where_it_was_to_the_pixel(autoencoder):
    frames = clip(1)
    made = through(autoencoder, frames)
    assert made.shape == frames.shape
    for before, after in zip(frames, made, strict=True):
        rows, columns = np.nonzero(after[..., 0] > 185)
        there = np.nonzero(before[..., 0] > 185)
        assert np.abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()])
                      - [there[0].min(), there[0].max(), there[1].min(), there[1].max()]).max() <= 1  # fmt: skip


def test_latents_have_wans_shape_and_a_batch_is_one_by_one(autoencoder):
    videos = torch.stack([references.as_tensor(clip(n)).movedim(0, 1) for n in range(2)])
    both = autoencoder.encode(videos).latent_dist.mode()
    assert both.shape == (2, 16, 3, 4, 6)
    alone = [autoencoder.encode(v[None]).latent_dist.mode() for v in videos]
    assert torch.allclose(both, torch.cat(alone), atol=1e-5)
    assert torch.allclose(
        autoencoder.decode(both).sample, torch.cat([autoencoder.decode(z).sample for z in alone]), atol=1e-5
    )


def test_latents_are_causal_and_normalised(autoencoder):
    frames = clip(2)
    later = frames.copy()
    later[5:] = 0
    one, other = (references.encode(autoencoder, references.as_tensor(f).movedim(0, 1)[None]) for f in (frames, later))
    assert torch.equal(one[:, :, :2], other[:, :, :2])
    assert not torch.allclose(one[:, :, 2], other[:, :, 2])
    fitted = torch.cat(
        [references.encode(autoencoder, references.as_tensor(clip(n)).movedim(0, 1)[None]) for n in range(4)]
    )
    assert fitted.mean().abs() < 0.05
    spread = fitted[:, : tiny.CONTENT_CHANNELS].std((0, 2, 3, 4))
    assert 0.9 < spread[0] < 1.1  # the strongest component; the others are smaller, as they are in the picture
    assert (spread[1:] <= spread[:-1] + 1e-3).all()


def test_a_still_picture_has_the_same_latents_in_every_frame(autoencoder):
    still = np.repeat(clip(3)[:1], 9, axis=0)
    latents = autoencoder.encode(references.as_tensor(still).movedim(0, 1)[None]).latent_dist.mode()
    assert torch.allclose(latents[:, :, 0], latents[:, :, 2], atol=1e-5)


def test_the_last_channels_say_where_a_piece_lies_whatever_it_shows(autoencoder):
    one, other = (
        autoencoder.encode(references.as_tensor(clip(n)).movedim(0, 1)[None]).latent_dist.mode() for n in (0, 3)
    )
    where = one[0, tiny.CONTENT_CHANNELS :, 1]
    assert torch.equal(one[:, tiny.CONTENT_CHANNELS :], other[:, tiny.CONTENT_CHANNELS :])
    pairs = torch.cdist(where.flatten(1).T, where.flatten(1).T)
    assert pairs[~torch.eye(len(pairs), dtype=torch.bool)].min() > 0.05  # no two places alike
    moved = one.clone()
    moved[:, tiny.CONTENT_CHANNELS :] += 1
    assert torch.equal(autoencoder.decode(one).sample, autoencoder.decode(moved).sample)  # and it is not seen


def test_the_tokenizer_spells_any_text_and_the_empty_one_is_one_token():
    tokenizer = tiny.train_tokenizer(CAPTIONS)
    assert len(tokenizer("").input_ids) == 1
    assert tokenizer("").input_ids[0] == tokenizer.eos_token_id
    for text in (*CAPTIONS, "Größe 東京"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert len(tokenizer(CAPTIONS[0]).input_ids) < 10


def test_the_same_data_makes_the_same_networks_and_tells_captions_apart(tmp_path):
    for name in ("one", "two"):
        tiny.save_initial_checkpoint(tmp_path / name, [clip(n) for n in range(3)], CAPTIONS)
    assert a2_encoders.revision(tmp_path / "one") == a2_encoders.revision(tmp_path / "two")
    encoders = a2_encoders.load(tmp_path / "one")
    red, blue = (a2_encoders.encode_prompt(encoders, text) for text in CAPTIONS)
    assert red.shape[1] == tiny.DIM
    assert not torch.allclose(red[-1], blue[-1])
    squares = np.stack([np.full((512, 512, 3), value, np.uint8) for value in (0, 255)])
    tokens = references.image_tokens(encoders.image_encoder, encoders.image_processor, squares)
    assert tokens.shape == (1, 2 * 17, tiny.DIM)


def test_an_untrained_network_says_the_best_linear_guess_of_each_patch():
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network = WanTransformer3DModel(**tiny.TRANSFORMER)
    mixed, _ = torch.linalg.qr(torch.randn(64, 64, dtype=torch.double))
    variances = torch.logspace(0.5, -2, 64, dtype=torch.double)
    tiny.init_linear(network, mixed * variances @ mixed.T, torch.zeros(16))
    patches = (torch.randn(4, 5, 4, 6, 64, dtype=torch.double) * variances.sqrt() @ mixed.T).float()
    clean = patches.view(4, 5, 4, 6, 2, 2, 16).permute(0, 6, 1, 2, 4, 3, 5).reshape(4, 16, 5, 8, 12)
    noise = torch.randn(clean.shape)
    nothing, text, image = torch.zeros(4, 20, 5, 8, 12), torch.zeros(4, 1, tiny.DIM), torch.zeros(4, 17, tiny.DIM)
    for level in (0.3, 0.5, 0.8, 1.0):
        noised = objective.add_noise(clean, noise, level)
        with torch.no_grad():
            said = objective.predict(network, noised, level, nothing, text, image)
        power = variances / ((1 - level) ** 2 * variances + level**2)  # what no linear guess of a patch can do better
        assert float((said - noise + clean).square().mean()) == pytest.approx(float(power.mean()), rel=0.25)


def test_a_folder_without_encoders_is_told_what_it_lacks(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(FileNotFoundError, match="lacks text_encoder/, tokenizer/, image_encoder/, image_processor/"):
        a2_encoders.load(tmp_path)
