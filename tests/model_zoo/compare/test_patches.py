"""Tiny networks of the real classes; one of them passes pixels through unchanged, so that what is alike is known."""

import json

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.compare import mobilenet, patches

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SMALL = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
DINOV2 = {
    "hidden_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "mlp_ratio": 1,
    "patch_size": 4,
    "image_size": 64,
}


def network(kind: str):
    """A network of that kind with random weights and patches of 4 px."""
    torch.manual_seed(0)
    if kind == "dinov3-vitb16":
        config = transformers.DINOv3ViTConfig(**SMALL, patch_size=4, image_size=64, num_register_tokens=4)
        return transformers.DINOv3ViTModel(config)
    if kind == "dinov2-base":
        return transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2))
    text = {**SMALL, "hidden_size": 32, "vocab_size": 100, "max_position_embeddings": 16}
    seen = {**SMALL, "patch_size": 4, "num_patches": 256}
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=seen))


@pytest.fixture(scope="module", params=["dinov3-vitb16", "dinov2-base", "siglip2-naflex"])
def models(request, tmp_path_factory):
    """The similarity and the embedding of one network."""
    folder = tmp_path_factory.mktemp(request.param)
    network(request.param).save_pretrained(folder)
    return cards.load(f"{request.param}-patches:{folder}"), cards.load(f"{request.param}:{folder}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """DINOv2 whose features are the pixels of each patch, whitened: no attention, no position, the identity as convolution."""
    folder, net = tmp_path_factory.mktemp("plain"), network("dinov2-base")
    with torch.no_grad():
        for layer in net.encoder.layer:
            layer.layer_scale1.lambda1.zero_()
            layer.layer_scale2.lambda1.zero_()
        net.embeddings.position_embeddings.zero_()
        net.embeddings.patch_embeddings.projection.weight.copy_(torch.eye(48).reshape(48, 3, 4, 4))
        net.embeddings.patch_embeddings.projection.bias.zero_()
    net.save_pretrained(folder)
    return cards.load(f"dinov2-base-patches:{folder}"), cards.load(f"dinov2-base:{folder}")


def thing(seed: int, at: tuple[int, int] = (20, 40), cell_px: int = 8, ground: int = 90):
    """8 x 8 cells of coarse noise, in the colours of its seed, at (y, x) on a ground of one grey; and their mask."""
    rng = np.random.default_rng(seed)
    picture, mask = np.full((160, 200, 3), ground, np.uint8), np.zeros((160, 200), bool)
    side, (y, x) = 8 * cell_px, at
    cells = rng.integers(0, 256, (8, 8, 3)) * np.roll([1.0, 0.5, 0.0], seed)
    picture[y : y + side, x : x + side] = np.kron(cells, np.ones((cell_px, cell_px, 1)))
    mask[y : y + side, x : x + side] = True
    return picture, mask


def several(count: int):
    return zip(*(thing(n, (n, 2 * n)) for n in range(count)), strict=True)


def test_similarities_are_symmetric_and_one_with_oneself(models):
    pictures, masks = several(4)
    found = models[0](pictures, masks)
    assert found.shape == (4, 4)
    assert found.dtype == np.float32
    assert np.array_equal(found, found.T)
    assert found.diagonal() == pytest.approx(1, abs=1e-5)
    assert (np.abs(found) <= 1).all()


def test_a_batch_is_its_pictures_one_by_one(models):
    pictures, masks = several(patches.BATCH + 2)
    compare, look = models
    rows, alike = look(pictures, masks), compare(pictures, masks)
    assert rows.shape == (patches.BATCH + 2, 48)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.allclose(rows, np.concatenate([look([p], [m]) for p, m in zip(pictures, masks, strict=True)]), atol=1e-5)
    assert np.allclose(
        alike[[0, -1]][:, [0, -1]], compare([pictures[0], pictures[-1]], [masks[0], masks[-1]]), atol=1e-5
    )


def test_the_background_does_not_enter(models):
    (a, mask), (b, _) = thing(1, ground=0), thing(1, ground=255)
    rows = models[1]([a, b], [mask, mask])
    assert np.array_equal(rows[0], rows[1])


def test_nothing_gives_an_empty_table_and_an_empty_mask_is_like_nothing(models):
    compare, look = models
    assert compare([], []).shape == (0, 0)
    assert look([], []).shape == (0, 48)
    picture, mask = thing(1)
    assert compare([picture, picture], [mask, ~mask & False]).tolist() == [[pytest.approx(1), 0], [0, 0]]
    assert np.isfinite(look([picture], [mask & False])).all()


@pytest.mark.parametrize(("cell_px", "at"), [(8, (70, 100)), (16, (10, 60)), (4, (20, 30))])
def test_a_thing_moved_and_scaled_is_more_like_itself_than_another_thing(plain, cell_px, at):
    pictures, masks = zip(thing(1), thing(1, at, cell_px, ground=10), thing(2), strict=True)
    found = plain[0](pictures, masks)
    assert found[0, 1] > 0.95
    assert found[0, 1] > found[0, 2] + 0.1


def test_the_similarity_is_the_mean_of_the_best_cosines_both_ways(plain):
    pictures, masks = zip(thing(1), thing(2), strict=True)
    features = []
    for picture, mask in zip(pictures, masks, strict=True):  # another way to the same patches
        pixels = (mobilenet.alone(picture, mask, 64) / 255 - mobilenet.MEAN) / mobilenet.STD
        rows = [
            pixels[y : y + 4, x : x + 4].transpose(2, 0, 1).ravel() for y in range(0, 64, 4) for x in range(0, 64, 4)
        ]
        white = [(row - row.mean()) / np.sqrt(row.var() + 1e-6) for row in rows]
        features.append(np.array([row / np.linalg.norm(row) for row in white]))
    cosines = features[0] @ features[1].T
    expected = (np.mean([max(row) for row in cosines]) + np.mean([max(row) for row in cosines.T])) / 2
    assert plain[0](pictures, masks)[0, 1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((64, 64), slice(0, 16), slice(0, 16)),
        ((32, 64), slice(4, 12), slice(0, 16)),
        ((128, 32), slice(0, 16), slice(6, 10)),
        ((20, 40), slice(4, 12), slice(0, 16)),
    ],
)
def test_the_patches_of_a_drawn_rectangle_are_where_it_is_shown(shape, rows, columns):
    mask = np.zeros((200, 200), bool)
    mask[31 : 31 + shape[0], 57 : 57 + shape[1]] = True
    expected = np.zeros((16, 16), bool)
    expected[rows, columns] = True
    assert np.array_equal(patches.own_patches(mask, 4).reshape(16, 16), expected)
    shown = mobilenet.alone(np.zeros((200, 200, 3), np.uint8), mask, 64)
    assert np.array_equal((shown[..., 0] == 0), expected.repeat(4, 0).repeat(4, 1))


def test_a_thing_too_thin_for_any_patch_has_one_and_nothing_has_none():
    mask = np.zeros((300, 300), bool)
    mask[100, :] = True
    assert patches.own_patches(mask, 4).any()
    assert not patches.own_patches(mask & False, 4).any()


def test_patches_lie_as_the_processor_of_siglip_2_lays_them():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    theirs = transformers.Siglip2ImageProcessor(patch_size=4, max_num_patches=256)(picture, return_tensors="np")
    pixels = ((picture.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    assert np.asarray(theirs["spatial_shapes"]).tolist() == [[16, 16]]
    assert np.allclose(patches.patchify(pixels, 4), np.asarray(theirs["pixel_values"]), atol=1e-5)


@pytest.mark.parametrize(
    ("card", "reader"), [("dinov2-base", "BitImageProcessor"), ("dinov3-vitb16", "DINOv3ViTImageProcessor")]
)
def test_the_network_sees_the_pixels_of_its_authors_processor(card, reader, tmp_path, monkeypatch):
    """Of a square picture: ImageNet's mean and deviation, as in the README of DINOv3 (weights of LVD-1689M)."""
    net, seen = network(card), []
    net.save_pretrained(tmp_path)
    monkeypatch.setattr(
        type(net), "forward", lambda self, pixel_values: seen.append(pixel_values) or _same(self, pixel_values)
    )
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cards.load(f"{card}:{tmp_path}")([picture], [np.ones((64, 64), bool)])
    normal = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_center_crop": False}
    theirs = getattr(transformers, reader)(**normal, do_resize=False)(picture, return_tensors="pt")["pixel_values"]
    assert torch.abs(seen[0] - theirs).max() < 1e-5


def _same(net, pixels):
    before = 1 + getattr(net.config, "num_register_tokens", 0)
    return type("Output", (), {"last_hidden_state": torch.ones(len(pixels), before + 256, 48)})


def test_an_incomplete_checkpoint_is_rejected(tmp_path):
    from safetensors.torch import load_file, save_file

    network("dinov2-base").save_pretrained(tmp_path)
    file = str(tmp_path / "model.safetensors")
    save_file({k: v for k, v in load_file(file).items() if "layernorm" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="is missing layernorm"):
        cards.load(f"dinov2-base-patches:{tmp_path}")


def test_another_kind_of_network_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="has a 'bert'; supported are dinov2"):
        cards.load(f"dinov2-base:{tmp_path}")


def test_an_unmeasured_threshold_is_not_claimed():
    names = [n for n, c in cards_of("patches", "embed") if n != "mobilenetv2"]
    assert len(names) == 11
    assert all(cards.base_card(name).match_threshold == 0 for name in names)


def cards_of(*roles: str):
    from model_zoo.catalogue.compare import CARDS

    return [(name, card) for name, card in CARDS.items() if card.role in roles]
