import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from torch.nn import functional

from model_zoo import cards
from model_zoo.text_video import scorers

SMALL = {"width": 64, "layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def towers():
    torch.manual_seed(0)
    return tuple(tower.eval() for tower in scorers.networks(SMALL, SMALL))


def layer_norm(x, weights, name):
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def blocks(x, weights, heads, mask=0.0):
    """CLIP's transformer from the paper's description: (n, width) -> (n, width), attention written out."""
    for n in range(2):
        mine = {k.removeprefix(f"transformer.resblocks.{n}."): v for k, v in weights.items()}
        q, k, v = (layer_norm(x, mine, "ln_1") @ mine["attn.in_proj_weight"].T + mine["attn.in_proj_bias"]).chunk(3, -1)
        heard = []
        for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
            heard.append(torch.softmax(a @ b.T / a.shape[-1] ** 0.5 + mask, -1) @ c)
        x = x + torch.cat(heard, -1) @ mine["attn.out_proj.weight"].T + mine["attn.out_proj.bias"]
        inner = layer_norm(x, mine, "ln_2") @ mine["mlp.c_fc.weight"].T + mine["mlp.c_fc.bias"]
        inner = inner * torch.sigmoid(1.702 * inner)
        x = x + inner @ mine["mlp.c_proj.weight"].T + mine["mlp.c_proj.bias"]
    return x


def test_the_video_tower_is_clips_over_all_patches_of_all_frames(towers):
    tower, _ = towers
    with torch.no_grad():
        tower.temporal_positional_embedding.normal_()
        weights = tower.state_dict()
        video = torch.randn(1, 3, 8, 224, 224)
        tokens = [weights["class_embedding"] + weights["positional_embedding"][0]]
        for t in range(8):
            patches = (
                functional.conv2d(video[0, :, t][None], weights["conv1.weight"][:, :, 0], stride=14)[0].flatten(1).T
            )
            tokens += list(
                patches + weights["positional_embedding"][1:] + weights["temporal_positional_embedding"][0, t]
            )
        seen = blocks(layer_norm(torch.stack(tokens), weights, "ln_pre"), weights, 2)
        expected = layer_norm(seen[0], weights, "ln_post") @ weights["proj"]
        assert torch.allclose(tower(video)[0], expected, atol=1e-4)


def test_the_text_tower_reads_up_to_the_end_of_the_text(towers):
    _, tower = towers
    import open_clip

    tokens = open_clip.SimpleTokenizer(context_length=32)(["a cat on a mat", "word " * 60])
    assert tokens.shape == (2, 32)
    with torch.no_grad():
        weights = tower.state_dict()
        later = torch.full((32, 32), float("-inf")).triu(1)
        made = tower(tokens)
        for row, number in zip(tokens, made, strict=True):
            x = weights["token_embedding.weight"][row] + weights["positional_embedding"]
            read = layer_norm(blocks(x, weights, 2, later), weights, "ln_final")[row.argmax()]
            assert torch.allclose(number, read @ weights["text_projection"], atol=1e-4)
        assert not torch.allclose(made[0], made[1], atol=1e-2)


def test_a_checkpoint_of_viclip_is_read_by_its_names(tmp_path, monkeypatch, towers):
    state = {f"vision_encoder.{k}": v for k, v in towers[0].state_dict().items()}
    state |= {f"text_encoder.{k}": v for k, v in towers[1].state_dict().items()} | {"temp": torch.ones(())}
    torch.save({"model": state}, tmp_path / "viclip.pth")
    monkeypatch.setattr(scorers, "VIDEO", SMALL)
    monkeypatch.setattr(scorers, "TEXT", SMALL)
    model = cards.load(f"viclip:{tmp_path / 'viclip.pth'}")
    frames = np.random.default_rng(0).integers(0, 256, (8, 60, 90, 3), np.uint8)
    with torch.no_grad():
        seen = towers[0](scorers.prepared(frames))
        import open_clip

        meant = towers[1](open_clip.SimpleTokenizer(context_length=32)(["a cat"]))
    assert model(frames, "a cat") == pytest.approx(float(functional.cosine_similarity(seen, meant)[0]), abs=1e-5)
    with pytest.raises(ValueError, match="needs 8 frames, got 5"):
        model(frames[:5], "a cat")
    del state["vision_encoder.proj"]
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no weights of ViCLIP"):
        cards.load(f"viclip:{tmp_path / 'other.pth'}")


def test_frames_are_prepared_as_vbench_does():
    frames = np.zeros((8, 90, 160, 3), np.uint8)
    frames[:, :, 100:] = 255
    made = scorers.prepared(frames)
    assert made.shape == (1, 3, 8, 224, 224)
    middle = made[0, :, 0, 112]  # the middle 90 of 160 columns: 35 to 125; white begins at (100 - 35) / 90 of the width
    dark = [(0 - m) / s for m, s in zip(scorers.MEAN, scorers.STD, strict=True)]
    assert middle[:, 0].tolist() == pytest.approx(dark, abs=1e-4)
    assert int((middle[0] > 0).nonzero()[0]) == pytest.approx(224 * 65 / 90, abs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP of open_clip with random weights."""
    pytest.importorskip("open_clip")
    return tiny_clip.save(tiny_clip.new(tiny_clip.CLIP), tiny_clip.CLIP, tmp_path_factory.mktemp("clip") / "random")


def test_clipsim_is_the_mean_cosine_over_frames(folder):
    import open_clip

    network, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    frames = np.stack([tiny_clip.square(name, 24) for name in ("red", "blue", "green")])
    with torch.no_grad():
        meant = network.encode_text(open_clip.SimpleTokenizer(context_length=16)(["a red square"]))[0]
        seen = [network.encode_image(prepare(Image.fromarray(frame))[None])[0] for frame in frames]
        expected = np.mean([float(functional.cosine_similarity(one, meant, dim=0)) for one in seen])
    assert cards.load(f"clipsim-b32:{folder}")(frames, "a red square") == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_less_of_a_video_shows_what_the_text_says_the_lower(tmp_path):
    """By a CLIP that has learned four colours; frames of another one are put in."""
    model = cards.load(f"clipsim-b32:{tiny_clip.trained_on_squares(tmp_path, steps=60)}")
    red, blue = (tiny_clip.square(name, 24) for name in ("red", "blue"))
    values = [model(np.stack([blue] * n + [red] * (8 - n)), "a red square") for n in (0, 2, 5, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.2
    frames = np.stack([red] * 8)
    assert model(frames, "a red square") > max(
        model(frames, f"a {name} square") for name in ("green", "blue", "yellow")
    )


def test_clip_iqa_is_the_share_of_good_against_bad(folder):
    pictures, texts = scorers.towers(cards.card(f"clipsim-b32:{folder}"), "cpu")
    frames = np.stack([tiny_clip.square("red"), tiny_clip.square("green")])
    logits = 100 * pictures(list(frames)) @ texts(["Good photo.", "Bad photo."]).T
    expected = (np.exp(logits[:, 0]) / np.exp(logits).sum(1)).mean()
    found = cards.load(f"clip-iqa:{folder}")(frames, 8)["image_quality"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_folder_that_is_none_of_open_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not an open_clip folder"):
        cards.load(f"clipsim-b32:{tmp_path}")
