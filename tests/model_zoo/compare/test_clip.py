"""Tiny networks of open_clip's own classes: one trained for seconds on coloured squares, others with random weights."""

import json
import logging
import shutil

import numpy as np
import pytest
import tiny_clip
from tiny_clip import COLOURS, square

from model_zoo import cards
from model_zoo.compare import clip

pytest.importorskip("open_clip")

PHRASES = [f"a {name} square" for name in COLOURS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip.trained_on_squares(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def match(folder):
    return cards.load(f"openclip:{folder}")


def words(folder):
    """A tokenizer of a few words, saved as the hub has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["[PAD]", "[UNK]", "a", "an", "photo", "of", "on", "white", "background", "red", "blue", "square", "object"]
    one = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    one.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=one, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def test_a_square_fits_the_phrase_of_its_colour_better_than_a_neutral_one_and_no_other_phrase(match):
    found = match(PHRASES, [square(name, side) for name in COLOURS for side in (18, 26)])
    assert found.shape == (4, 8)
    assert found.dtype == np.float32
    own = np.eye(4, dtype=bool).repeat(2, 1)
    assert found[own].min() > 0.8
    assert found[~own].max() < 0.2


def test_a_neutral_phrase_says_no_more_than_itself(match):
    found = match(list(clip.NEUTRAL), [square("red"), square("blue")])
    assert found.max(0) == pytest.approx([0.5, 0.5], abs=1e-5)
    assert (found >= 0).all()


def test_a_pair_has_the_same_value_alone_in_company_and_in_any_order(match):
    pictures = [square(name, 20 + n) for n in range(5) for name in COLOURS]  # more than a batch
    found = match(PHRASES, pictures)
    alone = np.array([[match([p], [picture])[0, 0] for picture in pictures[:5]] for p in PHRASES[:2]])
    assert np.allclose(found[:2, :5], alone, atol=1e-4)
    assert np.allclose(match(PHRASES[::-1], pictures[::-1]), found[::-1, ::-1], atol=1e-4)


def test_no_phrase_or_no_picture_gives_an_empty_table(match):
    assert match([], [square("red")]).shape == (0, 1)
    assert match(PHRASES, []).shape == (4, 0)


def test_a_phrase_too_long_is_cut_at_a_word_and_the_log_says_so(match, caplog):
    long = "a red square " + "extraordinarily " * 12
    with caplog.at_level(logging.WARNING):
        found = match([long], [square("red")])
    assert "16 tokens" in caplog.text
    assert "was cut to 'a red square extraordinarily" in caplog.text
    assert np.isfinite(found).all()


@pytest.mark.parametrize("count", [1, 5, 30])
def test_what_is_kept_of_a_phrase_is_its_beginning_and_fits_the_template(count):
    import open_clip

    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    phrase = " ".join(["a", "cup", "with", "flowers", "on", "it"] * count)
    kept = clip.fitting(phrase, "{} on a white background", tokenizer)
    assert phrase.startswith(kept)
    assert len(tokenizer.encode(f"{kept} on a white background")) + 2 <= 16
    if kept != phrase:
        more = phrase[: len(kept) + 1 + len(phrase[len(kept) + 1 :].split()[0])]
        assert len(tokenizer.encode(f"{more} on a white background")) + 2 > 16


def test_embeddings_are_of_unit_length_know_the_colour_and_not_the_background(folder):
    embed = cards.load(f"openclip-embed:{folder}")
    pictures = [square("red"), square("red", 20), square("blue"), square("red")]
    pictures[3][:8] = (0, 200, 0)  # outside of the mask
    masks = [(picture != 255).any(2) for picture in pictures]
    masks[3] = masks[0]
    rows = embed(pictures, masks)
    assert rows.shape == (4, 32)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(rows[0], rows[3])
    assert rows[0] @ rows[1] > 0.9 > rows[0] @ rows[2]
    alone = np.concatenate([embed([p], [m]) for p, m in zip(pictures, masks, strict=True)])
    assert np.allclose(rows, alone, atol=1e-5)
    assert embed([], []).shape == (0, 32)


def test_pixels_are_normalised_as_the_folder_says(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    said = json.loads((folder / "open_clip_config.json").read_text())
    said["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    one, other = (
        cards.load(f"openclip-embed:{f}")([square("red")], [np.ones((40, 40), bool)]) for f in (folder, tmp_path)
    )
    assert abs(one - other).max() > 1e-3


def test_a_square_picture_gets_the_pixels_that_open_clip_itself_makes_of_it(folder):
    import open_clip
    from PIL import Image

    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    side, seen = clip._side(network), []
    network.encode_image = lambda pixels: seen.append(pixels) or pixels.mean((2, 3))
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    clip._encode(network, [picture], 3, "cpu")
    assert np.abs(seen[0][0].numpy() - preprocess(Image.fromarray(picture)).numpy()).max() < 1e-5


def test_a_siglip_reads_with_the_tokenizer_beside_it_and_matches_by_its_logits(tmp_path):
    network = tiny_clip.new(tiny_clip.SIGLIP)
    tiny_clip.save(network, tiny_clip.SIGLIP, tmp_path)
    words(tmp_path)
    match = cards.load(f"openclip:{tmp_path}")
    found = match(["a red square", "a blue square"], [square("red"), square("blue")])
    assert found.shape == (2, 2)
    assert ((found > 0) & (found < 1)).all()

    import torch

    with torch.no_grad():
        network.logit_bias += 7  # the prior of a training batch tells nothing about a clip
    tiny_clip.save(network, tiny_clip.SIGLIP, tmp_path)
    again = cards.load(f"openclip:{tmp_path}")(["a red square", "a blue square"], [square("red"), square("blue")])
    assert np.array_equal(found, again)


def test_a_siglip_without_its_tokenizer_is_a_sentence(tmp_path):
    tiny_clip.save(tiny_clip.new(tiny_clip.SIGLIP), tiny_clip.SIGLIP, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer .* copy the files of 'nobody/nowhere' beside"):
        cards.load(f"openclip:{tmp_path}")


def test_a_file_of_weights_alone_is_refused_with_what_is_missing(folder):
    with pytest.raises(FileNotFoundError, match=r"open_clip_config.json is missing; .* openclip:FOLDER loads your own"):
        cards.load(f"openclip:{folder / 'open_clip_model.safetensors'}")


def test_a_text_tower_of_another_repository_is_refused(folder, tmp_path):
    said = json.loads((folder / "open_clip_config.json").read_text())
    said["model_cfg"]["text_cfg"] = {"hf_model_name": "xlm-roberta-base"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="text tower 'xlm-roberta-base' is another repository"):
        cards.load(f"openclip:{tmp_path}")


def test_a_folder_without_weights_is_rejected(folder, tmp_path):
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    with pytest.raises(RuntimeError, match="pretrained weights"):
        cards.load(f"openclip:{tmp_path}")


@pytest.mark.slow
def test_the_card_of_vit_b_32_loads_weights_of_its_real_architecture(tmp_path):
    import open_clip

    real = open_clip.get_model_config("ViT-B-32")
    tiny_clip.save(open_clip.create_model("ViT-B-32"), real, tmp_path)
    found = cards.load(f"ViT-B-32:{tmp_path}")(["a red square"], [square("red")])
    assert found.shape == (1, 1)
    assert 0 < found[0, 0] < 1


@pytest.mark.parametrize("name", ["PE-Core-L-14-336", "ViT-SO400M-16-SigLIP2-384", "ViT-L-14", "ViT-B-32"])
def test_a_card_bears_the_name_of_an_architecture_that_open_clip_has_and_there_is_one_for_embeddings(name):
    import open_clip

    assert name in open_clip.list_models()
    one, other = cards.base_card(name), cards.base_card(f"{name}-embed")
    assert (one.role, other.role, one.weights) == ("match", "embed", other.weights)
    assert one.use == "permissive"
