"""VideoReward: Qwen2-VL-2B with LoRA, a linear head, and a token each for visual quality, motion quality and text alignment.

Liu et al. 2025, arXiv 2501.13918; VideoAlign (MIT). Its published folder has model_config.json and checkpoint-N/, with either
model.pth, or adapter_model.safetensors and non_lora_state_dict.pth. It needs the folder of Qwen2-VL-2B-Instruct besides, for
the tokenizer and the configuration. Weights in .pth files are read with torch's weights_only.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float

from model_zoo import weights

DIMENSIONS = ("VQ", "MQ", "TA")
TOKENS = [f"<|{name}_reward|>" for name in DIMENSIONS]
RANK, ALPHA = 64, 128
FPS = 2.0  # at which a video is sampled
AREA_PX = 200_704  # most pixels of a frame
LEFT_OUT = ("visual", "lm_head", "rm_head", "embed_tokens")  # without LoRA
# Our wording. The published weights were trained with VideoAlign's prompt_template.py, which may be put beside them (WORDING).
QUESTION = (
    "Rate the video. Visual quality, of single frames: <|VQ_reward|>\nMotion quality, stability, naturalness and amplitude of "
    "the motion: <|MQ_reward|>\nText alignment, with {text_prompt}: <|TA_reward|>"
)
WORDING = "question.txt"  # in the folder of a checkpoint: the text of the question, with {text_prompt}


class QwenReward(torch.nn.Module):
    """Qwen2-VL with a reward head. `network` has the parameter names of VideoReward, in transformers' current layout."""

    def __init__(self, network: Any, processor: Any, rank: int = RANK, alpha: int = ALPHA, dimension: str = "MQ"):
        from peft import LoraConfig, get_peft_model

        super().__init__()
        processor.tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
        self.processor, self.dimension, self.question = processor, DIMENSIONS.index(dimension), QUESTION
        self.special = processor.tokenizer.convert_tokens_to_ids(TOKENS)
        network.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
        config = network.config.get_text_config()
        network.rm_head = torch.nn.Linear(config.hidden_size, len(DIMENSIONS), bias=False, dtype=network.dtype)
        linear = [
            name
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and not any(part in name for part in LEFT_OUT)
        ]
        self.network: Any = get_peft_model(network, LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear))
        self.head.requires_grad_(True)
        # what training changes on the frozen embedding: its three new rows
        self.tokens = torch.nn.Parameter(self.embedding.weight[self.special].detach().clone())
        self.scale = torch.ones(len(DIMENSIONS)), torch.zeros(len(DIMENSIONS))  # deviation and mean of the raw rewards

    @property
    def head(self) -> torch.nn.Linear:
        return self.network.base_model.model.rm_head

    @property
    def embedding(self) -> torch.nn.Embedding:
        return self.network.base_model.model.get_input_embeddings()

    def inputs(self, frames: np.ndarray, fps: float, prompt: str) -> dict[str, torch.Tensor]:
        """Return tokens and patches of a video, sampled at 2 fps. The order of the dimensions hides the prompt from VQ and MQ."""
        from transformers.video_utils import VideoMetadata

        count = max(2, round(len(frames) / fps * FPS) // 2 * 2)
        shown = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
        height, width = shown.shape[1:3]
        shrink = min(1.0, (AREA_PX / (height * width)) ** 0.5)
        size = max(28, int(width * shrink)), max(28, int(height * shrink))
        shown = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in shown])
        content = [{"type": "video"}, {"type": "text", "text": self.question.replace("{text_prompt}", prompt)}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        times = VideoMetadata(
            total_num_frames=count,
            fps=FPS,
            frames_indices=list(range(count)),
            duration=count / FPS,
            width=size[0],
            height=size[1],
        )
        return dict(
            self.processor(
                text=[text], videos=[shown], video_metadata=[times], do_sample_frames=False, return_tensors="pt"
            )
        )

    def fit(self, inputs: Sequence[Any]) -> None:
        """Do nothing: the network has no standardisation."""

    def all_rewards(self, inputs: dict[str, torch.Tensor]) -> Float[torch.Tensor, " 3"]:
        """Return the rewards of one video for VQ, MQ and TA, normalised as the checkpoint says."""
        device = self.tokens.device
        given = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        ids = given["input_ids"]
        places = [(ids[0] == token).nonzero()[-1, 0] for token in self.special]
        handle = self.embedding.register_forward_hook(self._own_tokens)
        try:
            hidden = self.network.base_model.model.model(**given, use_cache=False).last_hidden_state
        finally:
            handle.remove()
        raw = self.head(hidden[0, places]).diagonal().float()
        deviation, mean = (each.to(device) for each in self.scale)
        return (raw - mean) / deviation

    def _own_tokens(self, _module: Any, ids: Any, out: torch.Tensor) -> torch.Tensor:
        for row, token in enumerate(self.special):
            out = torch.where((ids[0] == token)[..., None], self.tokens[row].to(out), out)
        return out

    def forward(self, inputs: Sequence[dict[str, torch.Tensor]]) -> Float[torch.Tensor, " n"]:
        """Return the reward of each video in the trained dimension, one video at a time: padding would change attention."""
        return torch.stack([self.all_rewards(one)[self.dimension] for one in inputs])

    def trained(self) -> dict[str, torch.Tensor]:
        """Return what a training changes, to save."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_published(self, folder: Path) -> None:
        """Load a checkpoint in VideoReward's layout. Raises FileNotFoundError for missing files, ValueError for other weights."""
        from safetensors.torch import load_file

        found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        if not found:
            raise FileNotFoundError(f"{folder} is not laid out as VideoReward: it has no checkpoint-N/")
        whole, lora, rest = (
            found[-1] / name for name in ("model.pth", "adapter_model.safetensors", "non_lora_state_dict.pth")
        )
        try:
            if whole.is_file():
                state = torch.load(whole, map_location="cpu", weights_only=True)
            else:
                adapters = {
                    re.sub(r"(lora_[AB])\.weight", r"\1.default.weight", n): t for n, t in load_file(lora).items()
                }
                state = torch.load(rest, map_location="cpu", weights_only=True) | adapters
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{found[-1]} lacks {Path(error.filename or lora).name}") from error
        try:
            wrong = self.network.load_state_dict({current(name): t for name, t in state.items()}, strict=False)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise ValueError(f"{found[-1]} has weights of another network: {reason}") from error
        missing = [name for name in wrong.missing_keys if whole.is_file() or "lora_" in name or "rm_head" in name]
        # Qwen2-VL-2B ties its output layer to the embedding, and older files have it twice
        if missing := [name for name in missing if "lm_head" not in name] or wrong.unexpected_keys:
            raise ValueError(f"{found[-1]} has weights of another network: {missing[0]} does not fit")
        if (folder / WORDING).is_file():
            self.question = (folder / WORDING).read_text()
        with torch.no_grad():
            self.tokens.copy_(self.embedding.weight[self.special])
        scale = json.loads((folder / "model_config.json").read_text()).get("inference_config") or {}
        self.scale = tuple(  # type: ignore[assignment]
            torch.tensor([float(scale.get(f"{name}_{part}", default)) for name in DIMENSIONS])
            for part, default in (("std", 1.0), ("mean", 0.0))
        )


def current(name: str) -> str:
    """Return a parameter's name in transformers 5, from that in 4.45, with which VideoReward was saved."""
    inner = "base_model.model."
    for old, new in (("model.", "model.language_model."), ("visual.", "model.visual.")):
        if name.startswith(inner + old) and not name.startswith(
            (f"{inner}model.language_model.", f"{inner}model.visual.")
        ):
            return inner + new + name.removeprefix(inner + old)
    return name


def reward(card: Any, device: str) -> QwenReward:
    """Qwen2-VL with LoRA and a new reward head. Raises FileNotFoundError if the weights are missing."""
    path = str(weights.find(card))
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    network: Any = Qwen2VLForConditionalGeneration.from_pretrained(path, local_files_only=True, dtype=dtype)
    return QwenReward(network, processor).to(device)
