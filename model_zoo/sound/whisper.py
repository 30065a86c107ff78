"""Speech as text by Whisper (Radford et al. 2022, arXiv 2212.04356) and networks of its class."""

from collections.abc import Callable

import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

RATE_HZ = 16_000
WINDOW_S = 30  # that the network sees at a time


def whisper(card: Card, device: str = "cpu") -> Callable[[np.ndarray], str]:
    """Whisper of transformers, greedy. It finds the language itself."""
    weights = find(card)
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(weights, local_files_only=True)
    network = WhisperForConditionalGeneration.from_pretrained(weights, local_files_only=True).to(device).eval()

    @torch.inference_mode()
    def model(samples: np.ndarray) -> str:
        parts = []
        for start in range(0, len(samples), WINDOW_S * RATE_HZ):
            piece = samples[start : start + WINDOW_S * RATE_HZ]
            seen = processor.feature_extractor(piece, sampling_rate=RATE_HZ, return_tensors="pt").input_features
            tokens = network.generate(seen.to(device), do_sample=False, num_beams=1)
            parts.append(processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
        return " ".join(part for part in parts if part)

    return model
