"""SkyReels-V2 (arXiv 2504.13074), text to long video by diffusion forcing, through diffusers' own pipeline.

Its checkpoints take no references. What is here is what diffusers lacks: a look at a checkpoint folder before it is loaded, and a
sentence where its loop would leave the last frames as noise.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

CLASS = "SkyReelsV2DiffusionForcingPipeline"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
STRIDE = 4  # frames of video to one of latents, behind the first


def is_one(folder: str | Path) -> bool:
    """Whether a folder says of itself that it is a diffusion-forcing checkpoint of SkyReels-V2, for text alone."""
    path = Path(folder) / "model_index.json"
    return path.is_file() and json.loads(path.read_text()).get("_class_name") == CLASS


def check(folder: str | Path) -> Path:
    """The folder as a path. Raises FileNotFoundError naming the parts that it lacks."""
    root = Path(folder)
    missing = [f"{part}/" for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} is no whole checkpoint of SkyReels-V2: it lacks {', '.join(missing)}")
    return root


def check_frames(frames: int, window: int, history: int, block: int) -> None:
    """Raises ValueError for lengths of which diffusers would not sample the last frames.

    Its schedule counts whole blocks of frames of latents: what is left over in a window stays noise, in silence.
    """
    for name, value in (("frames", frames), ("window", window or frames), ("history", history)):
        if value % STRIDE != 1:
            raise ValueError(f"{name} {value}: SkyReels-V2 takes 4 n + 1")
    total, known = _latents(frames), _latents(history)
    at_once = min(total, _latents(window or frames))
    if at_once < total and known >= at_once:
        raise ValueError(f"a window of {window} frames has no room for {history} of history and a new one")
    lengths, done = [at_once], at_once
    while done < total:
        lengths.append(min(total - done + known, at_once))
        done += lengths[-1] - known
    for length in lengths:
        if block and (length % block or (len(lengths) > 1 and known % block)):
            raise ValueError(
                f"blocks of {block}: one of the windows has {length} frames of latents, {known} of them history, and SkyReels-V2 "
                f"would leave what does not fill a block as noise; choose frames, window and history of 4 x {block} n - 3"
            )


def _latents(frames: int) -> int:
    return (frames - 1) // STRIDE + 1


def load(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Any:
    """The pipeline of a checkpoint folder in diffusers' layout. Nothing is downloaded. Raises FileNotFoundError as `check`."""
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
    window: int = 0,
    history: int = 17,
    block: int = 0,
    lag: int = 0,
    history_noise: int = 20,
    on_step: Callable[[], None] = lambda: None,
    **settings: Any,
) -> np.ndarray:
    """A video, (num_frames, height, width, 3) float32, 0 to 1. settings: those of diffusers' pipeline.

    The lengths are those of a2_long: window, history in frames of video, block in frames of latents, lag in steps.
    Raises ValueError as `check_frames`.
    """
    check_frames(num_frames, window, history, block)
    is_long = 0 < window < num_frames

    def after(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors

    pipe.transformer._set_ar_attention(block or 1)
    video = pipe(
        prompt,
        height=height,
        width=width,
        num_frames=num_frames,
        base_num_frames=window if is_long else num_frames,
        overlap_history=history if is_long else None,
        addnoise_condition=history_noise if is_long else 0,
        ar_step=lag,
        causal_block_size=block or None,
        output_type="np",
        callback_on_step_end=after,
        **settings,
    ).frames[0]
    if len(video) != num_frames:
        raise ValueError(f"SkyReels-V2 made {len(video)} frames of {num_frames}")
    return video
