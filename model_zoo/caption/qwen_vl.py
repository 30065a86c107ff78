"""Local vision-language models of the Qwen-VL family through transformers: SkyCaptioner-V1, Qwen2.5-VL, Qwen3-VL.

Frames are a video at their true aspect ratio with their times; decoding is greedy, so that answers are reproducible. Qwen2.5-VL
(Bai et al. 2025, arXiv 2502.13923); Qwen3-VL (2025, arXiv 2511.21631); SkyCaptioner-V1 (arXiv 2504.13074).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from model_zoo import weights
from model_zoo.caption import schema as structured
from model_zoo.caption import skycaptioner as sky_request
from model_zoo.caption.fusion_llm import fusion as llm_fusion
from model_zoo.caption.schema import Ask, Completion

MAX_TOKENS = 2048  # longest answer; a caption of four subjects has about 500
# Sampling that the authors recommend for videos (video processors of Qwen2.5-VL and Qwen3-VL).
FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768  # frames


def captioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """A base captioner through transformers, Qwen2.5-VL or Qwen3-VL: a whole caption in one answer."""
    return structured.captioner(chat_client(card, device), num_sampled_frames)


def skycaptioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """SkyCaptioner-V1 through transformers, asked as in its training: model_zoo/caption/skycaptioner.py."""
    return sky_request.captioner(chat_client(card, device))


def fusion(card: Any, device: str) -> Callable[[dict[str, Any]], str]:
    """Fusion by its language model, without pictures."""
    return llm_fusion(chat_client(card, device))


def chat_client(card: Any, device: str) -> Ask:
    """Return `ask(messages, schema) -> Completion` over a card's weights. The schema is not enforced: answers must be checked.

    Raises FileNotFoundError if the weights are missing.
    """
    path = str(weights.find(card))
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    # frames are at most AREA_PX large
    if getattr(processor.video_processor, "cap_pixels_per_frame", False) is None:
        processor.video_processor.cap_pixels_per_frame = False
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True, dtype=dtype)
    model = model.to(device).eval()
    for name in ("temperature", "top_p", "top_k"):  # sampling parameters, about which greedy search warns
        setattr(model.generation_config, name, None)

    def ask(messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> Completion:
        inputs = prepare_inputs(processor, messages).to(device)
        with torch.inference_mode():
            output_ids = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        new_tokens = output_ids[0, inputs["input_ids"].shape[1] :]
        eos_ids = model.generation_config.eos_token_id
        is_complete = len(new_tokens) < MAX_TOKENS or int(new_tokens[-1]) in (
            eos_ids if isinstance(eos_ids, list) else [eos_ids]
        )
        return Completion(processor.decode(new_tokens, skip_special_tokens=True), is_complete)

    return ask


def num_sampled_frames(frames: int, fps: float) -> int:
    """Return how many frames the network sees of a clip with so many at that rate: two a second, at least 4."""
    return min(max(int(frames / fps * FPS), MIN_FRAMES), MAX_FRAMES, frames)


def prepare_inputs(processor: Any, messages: list[dict[str, Any]]) -> Any:
    """Return the network's input for these messages: tokens, and the frames in patches with their times."""
    videos: list[Any] = []
    chat: list[Any] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        videos += [part for part in parts if part["type"] == "frames"]
        chat.append(
            {
                "role": message["role"],
                "content": [{"type": "video"} if p["type"] == "frames" else p for p in parts],
            }
        )
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    if not videos:
        return processor(text=[text], return_tensors="pt")
    return processor(
        text=[text],
        videos=[video["frames"] for video in videos],
        video_metadata=[_times(video["frames"], video["seconds"]) for video in videos],
        do_sample_frames=False,
        return_tensors="pt",
    )


def _times(frames: np.ndarray, seconds: list[float]) -> Any:
    """Return the times of the frames as transformers' metadata. They are evenly spaced."""
    from transformers.video_utils import VideoMetadata

    count, height, width = frames.shape[:3]
    duration_s = seconds[-1] - seconds[0]
    fps = (count - 1) / duration_s if duration_s > 0 else 1.0
    return VideoMetadata(
        total_num_frames=count,
        fps=fps,
        frames_indices=list(range(count)),
        duration=count / fps,
        width=width,
        height=height,
    )
