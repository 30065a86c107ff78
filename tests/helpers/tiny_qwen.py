"""Tiny networks of the real classes of Qwen-VL with their real processors, which can be taught one answer."""

from typing import Any

import torch
import transformers

from model_zoo.caption import schema

SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAUGHT = '{"subjects": [], "shot_type": "close_up", "environment": "a kitchen"}'
SIZE = {"shortest_edge": 32 * 32 * 2, "longest_edge": 32 * 32 * 64}


def words() -> "transformers.PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL.split(), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokens.train_from_iterator([schema.request(), TAUGHT] * 4, trainer)
    return transformers.Qwen2Tokenizer(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None
    )


def build(kind: str, folder):
    """A network of two layers or so and its processor, in a folder."""
    torch.manual_seed(0)
    tokens = words()
    ids = {name: tokens.convert_tokens_to_ids(name) for name in SPECIAL.split()}
    text = dict(vocab_size=len(tokens), hidden_size=64, intermediate_size=128, num_attention_heads=4)
    text |= dict(num_key_value_heads=2, max_position_embeddings=4096, num_hidden_layers=2)
    text |= dict(eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], bos_token_id=None)
    vision = dict(depth=2, hidden_size=32, num_heads=2, intermediate_size=64, out_hidden_size=64)
    vision |= dict(spatial_merge_size=2, temporal_patch_size=2)
    marks = dict(image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"])
    marks |= dict(vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"])
    if kind == "qwen2.5":
        text["rope_scaling"] = {"rope_type": "default", "mrope_section": [2, 3, 3]}
        vision |= dict(patch_size=14, window_size=112, fullatt_block_indexes=[1])
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks)
        network = transformers.Qwen2_5_VLForConditionalGeneration(config)
        processor = transformers.Qwen2_5_VLProcessor(
            image_processor=transformers.Qwen2VLImageProcessor(),
            tokenizer=tokens,
            video_processor=transformers.Qwen2VLVideoProcessor(size=SIZE),
            chat_template=TEMPLATE,
        )
    else:
        text |= dict(head_dim=16, num_hidden_layers=3)
        text["rope_scaling"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        vision |= dict(patch_size=16, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **marks)
        network = transformers.Qwen3VLForConditionalGeneration(config)
        processor = transformers.Qwen3VLProcessor(
            image_processor=transformers.Qwen2VLImageProcessor(patch_size=16),
            tokenizer=tokens,
            video_processor=transformers.Qwen3VLVideoProcessor(size=SIZE),
            chat_template=TEMPLATE,
        )
    network.generation_config.eos_token_id = ids["<|im_end|>"]
    network.generation_config.pad_token_id = ids["<|endoftext|>"]
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network, processor


def teach(network: Any, processor: Any, inputs: Any) -> None:
    """Train the network until it gives the answer TAUGHT to these inputs."""
    answer = processor.tokenizer(TAUGHT + "<|im_end|>", return_tensors="pt")["input_ids"]
    asked = inputs["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if name in inputs:
            more = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}.get(name, torch.zeros_like(answer))
            inputs[name] = torch.cat([inputs[name], more], 1)
    labels = inputs["input_ids"].clone()
    labels[:, :asked] = -100
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(120):
        loss = network(**inputs, labels=labels).loss
        if loss.item() < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
