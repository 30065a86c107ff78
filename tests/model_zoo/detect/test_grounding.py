import numpy as np
import pytest

from model_zoo import cards
from model_zoo.detect import grounding

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 120, 160, 3)).astype(np.uint8)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "red", "cup", "dog", "bot", "##tle"]


@pytest.fixture(scope="module", params=["GroundingDino", "MMGroundingDino"])
def folder(request, tmp_path_factory):
    """A small network of the real class with the real processor, over a dozen words."""
    torch.manual_seed(0)
    t, path = transformers, tmp_path_factory.mktemp(request.param)
    shape = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64}
    text = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 32}
    config = getattr(t, f"{request.param}Config")(
        backbone_config=t.SwinConfig(**shape, out_indices=[2, 3, 4]),
        text_config=t.BertConfig(**text, intermediate_size=32),
        **layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=12,
        max_text_len=32,
        disable_custom_kernels=True,
    )
    getattr(t, f"{request.param}ForObjectDetection")(config).save_pretrained(path)
    reader = t.GroundingDinoImageProcessor(size={"height": 96, "width": 128})
    tokenizer = t.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    t.GroundingDinoProcessor(reader, tokenizer).save_pretrained(path)
    return path


@pytest.fixture
def everything(monkeypatch):
    """Random networks are sure of nothing: let whatever they say count."""
    monkeypatch.setattr(grounding, "CONFIDENCE", -1.0)


def test_what_is_found_is_called_by_one_of_the_phrases_and_lies_in_the_frame(folder, everything):
    found = cards.load(f"grounding-dino:{folder}")(FRAMES, ["red cup", "dog"])
    assert len(found) == 3
    for d in (d for here in found for d in here):
        assert d.label in ("red cup", "dog")
        assert 0 <= d.box[0] < d.box[2] <= 160
        assert 0 <= d.box[1] < d.box[3] <= 120
        assert 0 <= d.score <= 1
        assert (d.mask.shape, d.mask.dtype) == ((120, 160), bool)


def test_nothing_asked_is_nothing_found(folder):
    assert cards.load(f"grounding-dino:{folder}")(FRAMES, []) == [[], [], []]


def test_a_batch_is_its_frames_one_by_one(folder, everything, monkeypatch):
    model = cards.load(f"grounding-dino:{folder}")
    monkeypatch.setattr(grounding, "BATCH", 2)
    for frame, here in zip(FRAMES, model(FRAMES, ["dog", "bottle"]), strict=True):
        (alone,) = model(frame[None], ["dog", "bottle"])
        assert [d.label for d in alone] == [d.label for d in here]
        assert np.abs(np.subtract([d.box for d in alone], [d.box for d in here])).max() < 0.05


def test_the_phrases_are_the_text_that_the_processor_itself_makes_of_them(folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    tokens, spans = grounding.encode_phrases(processor.tokenizer, ["Red cup", "dog", "bottle"], 32)
    own = processor(images=FRAMES[0], text=[["Red cup", "dog", "bottle"]], return_tensors="pt")
    assert own["input_ids"].tolist() == [tokens["input_ids"]]
    assert own["token_type_ids"].tolist() == [tokens["token_type_ids"]]
    said = [[WORDS[tokens["input_ids"][at]] for at in span] for span in spans]
    assert said == [["red", "cup"], ["dog"], ["bot", "##tle"]]


def test_too_many_phrases_and_a_phrase_without_a_word_are_sentences(folder):
    model = cards.load(f"grounding-dino:{folder}")
    with pytest.raises(ValueError, match="20 phrases are 42 tokens, and the network takes 32"):
        model(FRAMES, ["dog"] * 20)
    with pytest.raises(ValueError, match="contains no word"):
        model(FRAMES, [" . "])


def test_a_query_stands_for_the_phrase_that_all_of_its_words_fit_and_doubles_are_one():
    fits = torch.tensor([[0, 0.9, 0.1, 0, 0.7, 0], [0, 0.9, 0.9, 0, 0.7, 0], [0, 0.8, 0.8, 0, 0, 0], [0] * 6])
    boxes = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.25, 0.25, 0.25, 0.5], [0.26, 0.25, 0.25, 0.5], [0.5, 0.5, 1, 1]])
    frame = np.zeros((120, 160, 3), np.uint8)
    found = grounding._read(frame, torch.logit(fits, 1e-6), boxes, ["red cup", "dog"], [[1, 2], [4]])
    assert [(d.label, d.box) for d in found] == [("red cup", (20, 0, 60, 60)), ("dog", (60, 30, 100, 90))]
    assert [d.score for d in found] == pytest.approx([0.9, 0.7], abs=1e-5)


def test_another_network_and_missing_weights_are_sentences(tmp_path, monkeypatch):
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a 'vit' network: this card supports Grounding DINO"):
        cards.load(f"grounding-dino:{tmp_path / 'vit'}")
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*llmdet_large"):
        cards.load("llmdet_large")
