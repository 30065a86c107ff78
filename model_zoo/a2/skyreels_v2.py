"""SkyReels-V2 (arXiv 2504.13074) diffusion forcing with diffusers' pipelines: from text, a first frame or a video to extend.

Its checkpoints do not take references. This module adds what diffusers lacks: a check of the checkpoint folder before loading, an
error where diffusers' loop would leave frames as noise, seeded history noise, and an extended video without a repeated end.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

CLASS = "SkyReelsV2DiffusionForcingPipeline"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
STRIDE = 4  # video frames per latent frame, after the first


def is_checkpoint(folder: str | Path) -> bool:
    """Return whether a folder's model_index.json declares a SkyReels-V2 diffusion-forcing checkpoint for text-to-video."""
    path = Path(folder) / "model_index.json"
    return path.is_file() and json.loads(path.read_text()).get("_class_name") == CLASS


def check(folder: str | Path) -> Path:
    """Return the folder as a path. Raises FileNotFoundError with the missing parts."""
    root = Path(folder)
    missing = [f"{part}/" for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} is not a complete SkyReels-V2 checkpoint: it lacks {', '.join(missing)}")
    return root


def check_frames(
    frames: int, window: int, history: int, block: int, first_frame: bool = False, extend_video: bool = False
) -> None:
    """Raise ValueError for lengths with which diffusers would not sample all frames, or not keep the known ones.

    Its schedule uses whole blocks of latent frames. Silently, a remainder in a window stays noise, and known frames that do not
    fill a block are sampled again.
    """
    for name, value in (("frames", frames), ("window", window or frames), ("history", history)):
        if value % STRIDE != 1:
            raise ValueError(f"{name} is {value}; SkyReels-V2 takes 4 n + 1")
    history_latents = _latents(history)
    total = _latents(frames) + (history_latents if extend_video else 0)
    window_latents = min(total, _latents(window)) if window else total
    if (window_latents < total or extend_video) and history_latents >= window_latents:
        raise ValueError(f"a window of {window} frames has no room for {history} of history and a new one")
    if first_frame and block > 1:
        raise ValueError(
            f"blocks of {block}: a first frame does not fill a block, and SkyReels-V2 would not keep it: remove "
            "--causal-block-size"
        )
    lengths, num_sampled = [window_latents], window_latents
    while num_sampled < total:
        lengths.append(min(total - num_sampled + history_latents, window_latents))
        num_sampled += lengths[-1] - history_latents
    for length in lengths:
        if block and (length % block or ((len(lengths) > 1 or extend_video) and history_latents % block)):
            raise ValueError(
                f"blocks of {block}: a window has {length} latent frames, {history_latents} of them history, and SkyReels-V2 "
                f"would leave frames that do not fill a block as noise: choose frames, window and history of 4 x {block} n - 3"
            )


def _latents(frames: int) -> int:
    return (frames - 1) // STRIDE + 1


def load(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return the pipeline of a folder in diffusers' layout. Nothing is downloaded. Raises FileNotFoundError like `check`."""
    from diffusers import AutoencoderKLWan, SkyReelsV2DiffusionForcingPipeline

    root = check(folder)
    vae = AutoencoderKLWan.from_pretrained(root / "vae", torch_dtype=torch.float32, local_files_only=True)
    pipe = SkyReelsV2DiffusionForcingPipeline.from_pretrained(root, vae=vae, torch_dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def sample(
    pipe: Any,
    prompt: str,
    *,
    height: int,
    width: int,
    num_frames: int,
    generator: torch.Generator,
    first_frame: UInt8[np.ndarray, "height width 3"] | None = None,
    init_video: UInt8[np.ndarray, "f height width 3"] | None = None,
    window: int = 0,
    history: int = 17,
    causal_block_size: int = 0,
    ar_step: int = 0,
    addnoise_condition: int = 20,
    on_step: Callable[[], None] = lambda: None,
    **settings: Any,
) -> np.ndarray:
    """Return a video, (num_frames, height, width, 3) float32, 0 to 1. settings: those of diffusers' pipelines.

    With `first_frame`, an image, the video starts with its VAE reconstruction. With `init_video`, a video, the result is that
    video, unchanged, followed by num_frames + 3 new frames conditioned on its last `history` frames. Lengths are as in
    model_zoo.a2.long: window and history in video frames, causal_block_size in latent frames, ar_step in steps. Raises
    ValueError like `check_frames`, and for an init_video shorter than the history.
    """
    check_frames(num_frames, window, history, causal_block_size, first_frame is not None, init_video is not None)
    if init_video is not None and len(init_video) < history:
        raise ValueError(f"the video to extend has {len(init_video)} frames, fewer than the history of {history}")
    selected_pipe, image_kwargs = _select_pipeline(
        pipe, first_frame, None if init_video is None else init_video[-history:]
    )
    total = num_frames if init_video is None else history + num_frames + STRIDE - 1
    is_windowed = init_video is not None or 0 < window < total

    def on_step_end(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors

    pipe.transformer._set_ar_attention(causal_block_size or 1)
    with _seed_global_rng(generator, pipe._execution_device):
        video = selected_pipe(
            prompt=prompt,
            height=height,
            width=width,
            num_frames=total,
            base_num_frames=min(window or total, total),
            overlap_history=history if is_windowed else None,
            addnoise_condition=addnoise_condition if is_windowed else 0,
            ar_step=ar_step,
            causal_block_size=causal_block_size or None,
            output_type="np",
            generator=generator,
            callback_on_step_end=on_step_end,
            **image_kwargs,
            **settings,
        ).frames[0]
    # diffusers returns the history twice: as given, then its VAE reconstruction
    if init_video is not None:
        video = np.concatenate([init_video.astype(np.float32) / 255, video[2 * history :]])
    expected = num_frames if init_video is None else len(init_video) + num_frames + STRIDE - 1
    if len(video) != expected:
        raise ValueError(f"SkyReels-V2 returned {len(video)} of {expected} frames")
    return video


def _select_pipeline(pipe: Any, first_frame: Any, context_frames: Any) -> tuple[Any, dict[str, Any]]:
    """Return the diffusers pipeline for these inputs, sharing the networks, and its keyword arguments."""
    from diffusers import (
        SkyReelsV2DiffusionForcingImageToVideoPipeline,
        SkyReelsV2DiffusionForcingVideoToVideoPipeline,
    )

    if first_frame is None and context_frames is None:
        return pipe, {}
    if context_frames is None:
        selected_pipe = SkyReelsV2DiffusionForcingImageToVideoPipeline(**pipe.components)
        image_kwargs = {"image": Image.fromarray(first_frame)}
    else:
        selected_pipe = SkyReelsV2DiffusionForcingVideoToVideoPipeline(**pipe.components)
        image_kwargs = {"video": context_frames[None].astype(np.float32) / 255}
    selected_pipe.set_progress_bar_config(disable=True)
    return selected_pipe, image_kwargs


@contextmanager
def _seed_global_rng(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators within the context: diffusers draws the noise on the history from them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield
