"""A Whisper of the real class, small and random, whose tokens are bytes."""

from pathlib import Path


def write(folder: Path) -> Path:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocab = {token: n for n, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    end, start, _ = (vocab[token] for token in special)
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, max_target_positions=24, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, decoder_start_token_id=start, begin_suppress_tokens=None, init_std=1.0,
        suppress_tokens=sorted({*range(len(tokenizer))} - {*range(33, 59)}), **sides,
    )  # fmt: skip
    network = WhisperForConditionalGeneration(config)
    network.generation_config.max_length = 12
    network.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder
