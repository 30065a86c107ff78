"""VideoReward on a tiny random Qwen2-VL of the real class: scores, training, and the published layout with its old names."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from model_zoo import cards  # noqa: E402
from model_zoo.reward import bradley_terry, qwen2_vl  # noqa: E402

SPECIAL = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}{% if part.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, 56, 84, 3), np.uint8)
NAME = "base_model.model."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as of Qwen2-VL-2B-Instruct."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL.split(), initial_alphabet=alphabet)
    tokens.train_from_iterator([qwen2_vl.QUESTION] * 4, trainer)
    words = transformers.Qwen2Tokenizer(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None
    )
    ids = {
        name: words.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    text = dict(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2
    )
    text |= dict(num_hidden_layers=2, rope_scaling={"rope_type": "default", "mrope_section": [1, 1, 2]})
    vision = dict(depth=1, embed_dim=32, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=14)
    marks = dict(image_token_id=ids["image_pad"], video_token_id=ids["video_pad"])
    marks |= dict(vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"])
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **marks)
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(size={"shortest_edge": 784, "longest_edge": 100_000}),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def model(base):
    torch.manual_seed(1)
    return cards.load(f"qwen2-vl-reward:{base}", "cpu")


def old(name):
    """The name in transformers 4.45."""
    return name.replace(f"{NAME}model.language_model.", f"{NAME}model.").replace(
        f"{NAME}model.visual.", f"{NAME}visual."
    )


def test_a_video_has_a_reward_each_that_depends_on_its_frames(model):
    model.eval()
    a, b = (model.inputs(frames, 15.0, "a cup") for frames in (FRAMES, FRAMES[::-1]))
    with torch.no_grad():
        together, alone = model([a, b]), model([b])
    assert together.shape == (2,)
    assert together[0] != together[1]
    assert torch.equal(together[1:], alone)


def test_training_changes_lora_the_head_and_the_tokens_only(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    inputs = [model.inputs(frames, 15.0, "") for frames in (FRAMES, FRAMES[::-1])]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(8):
        chosen, rejected = model(inputs)
        loss = bradley_terry.loss(chosen[None], rejected[None], torch.tensor([False])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert all("lora_" in name or "rm_head" in name or name == "tokens" for name in changed)
    assert any("q_proj.lora_B" in name for name in changed)
    assert "tokens" in changed
    assert set(model.trained()) >= changed


def published(model, folder, whole):
    """VideoReward's folder, written from a model with random adapters and a norm."""
    torch.manual_seed(5)
    for name, p in model.network.named_parameters():
        if "lora_B" in name or "rm_head" in name:
            torch.nn.init.normal_(p, std=0.3)
    state = {old(name): t.clone() for name, t in model.network.state_dict().items()}
    there = folder / "checkpoint-7"
    there.mkdir(parents=True)
    if whole:
        torch.save(state, there / "model.pth")
    else:
        lora = {n.replace(".default.", "."): t for n, t in state.items() if "lora_" in n}
        save_file(lora, there / "adapter_model.safetensors")
        torch.save(
            {n: t for n, t in state.items() if "rm_head" in n or "visual" in n}, there / "non_lora_state_dict.pth"
        )
    norm = {"VQ_mean": 0.0, "VQ_std": 1.0, "MQ_mean": 0.5, "MQ_std": 2.0, "TA_mean": 0.0, "TA_std": 1.0}
    (folder / "model_config.json").write_text(json.dumps({"inference_config": norm}))
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_the_published_layout_gives_the_same_rewards_normalised(base, model, tmp_path, whole):
    folder = published(model, tmp_path, whole)
    model.eval()
    inputs = model.inputs(FRAMES, 15.0, "")
    with torch.no_grad():
        model.tokens.copy_(model.embedding.weight[model.special])
        raw = model.all_rewards(inputs)
    torch.manual_seed(1)  # the new rows of the embedding are not in the split layout
    other = cards.load(f"qwen2-vl-reward:{base}", "cpu").eval()
    other.load_published(folder)
    with torch.no_grad():
        assert torch.allclose(other.all_rewards(inputs), torch.stack([raw[0], (raw[1] - 0.5) / 2, raw[2]]), atol=1e-5)


def test_other_weights_are_refused_by_name(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint-N/"):
        model.load_published(tmp_path)
    folder = published(model, tmp_path / "one", True)
    state = torch.load(folder / "checkpoint-7/model.pth", weights_only=True)
    torch.save({n: t for n, t in state.items() if "layers.1.mlp" not in n}, folder / "checkpoint-7/model.pth")
    with pytest.raises(ValueError, match=r"layers\.1\.mlp"):
        model.load_published(folder)
    torch.save({n: t.new_zeros(3) for n, t in state.items()}, folder / "checkpoint-7/model.pth")
    with pytest.raises(ValueError, match="another network"):
        model.load_published(folder)


def test_code_in_a_published_file_is_not_run(model, tmp_path):
    folder = published(model, tmp_path, True)
    torch.save({"x": SimpleNamespace(a=1)}, folder / "checkpoint-7/model.pth")
    with pytest.raises(Exception, match=r"(?i)weights_only|unpickl"):
        model.load_published(folder)
