"""Videos longer than what the network takes at once: diffusion forcing as in SkyReels-V2 (arXiv 2504.13074), with references.

A long video is sampled window by window. Of each window after the first, the head (the references' frames of latents) and a
history (the last frames before it) are known, and the rest is noise. Within a window blocks of frames may follow one another by
a lag, so that noise never falls along time. All in frames of latents; the whole is decoded at once, so that the VAE, which is
causal, sees no joint. Weights that never saw frames of several noise levels (the released A2, Wan) are not made for a lag.
"""

from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from model_zoo import a2_references
from model_zoo.a2_references import STRIDE, Prepared


class Schedule(NamedTuple):
    """How far each frame of latents is before each pass of the network."""

    done: np.ndarray  # (passes, frames) int: steps of denoising that a frame has had, 0 for pure noise
    moves: np.ndarray  # (passes, frames) bool: whether the pass takes it a step on


def schedule(frames: int, steps: int, block: int = 0, lag: int = 0, ready: int = 0) -> Schedule:
    """The noise schedule of diffusion forcing, for `frames` frames of latents of which the first `ready` are there already.

    The others go in blocks of `block` frames (0: all in one), the last as short as it must be; each block starts `lag` passes
    after the one before it (0: all together, and never later than when that one is done). (blocks - 1) * lag + steps passes.
    Raises ValueError for no frame to sample and for negative numbers.
    """
    if min(frames, steps, block, lag, ready, frames - ready - 1, steps - 1) < 0:
        raise ValueError(
            f"{frames} frames of latents, {ready} of them ready, in {steps} steps, blocks of {block} and a lag of {lag}: there "
            "must be a frame to sample, a step to take, and no negative number"
        )
    blocks = np.arange(frames - ready) // (block or frames)
    starts = blocks * min(lag, steps)
    passes = np.arange(starts[-1] + steps + 1)[:, None]
    done = np.concatenate(
        [np.full((len(passes), ready), steps), np.clip(passes - starts[None], 0, steps)], axis=1
    )  # one row more than there are passes: the end, where all is done
    return Schedule(done[:-1], np.diff(done, axis=0) > 0)


class Window(NamedTuple):
    """A part of a long video that the network takes at once: head, history, and what is new."""

    history: int  # frames of latents before `start` that it sees
    start: int  # the first that it makes
    stop: int


def windows(frames: int, window: int, head: int, history: int) -> list[Window]:
    """The windows of a video of `frames` frames of latents, of which `head` are the references'.

    Every window but that of a short video has `window` frames, so that compiled code serves all: the last one sees more
    history where less is left to make. No frame is dropped. Raises ValueError for a window without room for a new frame.
    """
    if window <= head + history or head < 0 or history < 1:
        raise ValueError(
            f"a window of {window} frames of latents has no room for {head} of references, {history} of history and a new one"
        )
    found = [Window(0, 0, min(window, frames))]
    while found[-1].stop < frames:
        start = found[-1].stop
        stop = min(start + window - head - history, frames)
        found.append(Window(window - head - (stop - start), start, stop))
    return found


def parts_of(num_frames: int, window: int, references: int, history: int) -> list[Window]:
    """As `windows`, of lengths in frames of video."""
    return windows(_latents(num_frames), _latents(window), references, max(1, round(history / STRIDE)))


def passes(parts: list[Window], references: int, steps: int, block: int, lag: int) -> int:
    """How often the network looks at noise, each time once for each text."""
    frames = parts[0].stop
    heads = [0] + [references + part.history for part in parts[1:]]
    return sum(len(schedule(frames, steps, block, lag, head).done) for head in heads)


def sample(pipe: Any, references: Prepared, prompts: list[str], **settings: Any) -> np.ndarray:
    """A video of num_frames - 4 n frames for n references, (frames, height, width, 3) float32, 0 to 1: see `latents`."""
    made = latents(pipe, references, prompts, **settings)
    return _decode(pipe, made)[a2_references.head_frames(len(references.frames)) :]


@torch.no_grad()
def latents(
    pipe: Any,
    references: Prepared,
    prompts: list[str],
    *,
    num_frames: int = 257,
    window: int = 81,
    history: int = 17,
    block: int = 0,
    lag: int = 0,
    history_noise: int = 20,
    negative_prompt: str = "",
    num_inference_steps: int = 50,
    guidance_scale: float = 5.0,
    generator: torch.Generator | None = None,
    on_step: Any = lambda: None,
) -> torch.Tensor:
    """The latents of a long video, (1, 16, (num_frames + 3) / 4, height / 8, width / 8), those of the references first.

    pipe: a WanA2Pipeline. prompts: one for all windows, or a story: one for each, the last for those that remain. num_frames,
    window: 4 m + 1 frames of video. history: frames of video that a window sees of the one before it, history_noise: how much
    noise is laid over them, 0 to 1000, so that their flaws do not grow from window to window. Raises ValueError for sizes that
    the network cannot take and for a window that is too small.
    """
    from diffusers.utils.torch_utils import randn_tensor  # here, so that plans are made without diffusers

    height, width = references.frames.shape[1:3]
    count = len(references.frames)
    for frames in (num_frames, window):
        a2_references.check_size(height, width, frames, count)
    if not prompts:
        raise ValueError("no prompt: a long video needs one at least")
    if not 0 <= history_noise <= 1000:
        raise ValueError(f"noise of {history_noise} on the history: it must be from 0 to 1000")
    parts = parts_of(num_frames, window, count, history)
    total, at_once = _latents(num_frames), _latents(window)
    pictures, device = a2_references.as_tensor(references.frames), pipe._execution_device
    tokens = a2_references.image_tokens(pipe.image_encoder, pipe.image_processor, references.squares)
    space = pipe.vae_scale_factor_spatial
    size = (1, pipe.vae.config.z_dim, min(total, at_once), height // space, width // space)
    given = None
    made = torch.zeros(1, size[1], 0, *size[3:], device=device)
    for number, part in enumerate(parts):
        noise = randn_tensor(size, generator=generator, device=device, dtype=torch.float32)
        if given is None:  # behind the noise, as the released sampler draws
            given = a2_references.condition(pipe.vae, pictures, STRIDE * (size[2] - 1) + 1, generator).to(device)
        known = torch.cat([made[:, :, :count], made[:, :, part.start - part.history : part.start]], dim=2)
        embeds = pipe.encode_prompt(
            prompt=prompts[min(number, len(prompts) - 1)],
            negative_prompt=negative_prompt,
            do_classifier_free_guidance=guidance_scale > 1,
            max_sequence_length=512,
            device=device,
        )
        plan = schedule(size[2], num_inference_steps, block, lag, known.shape[2])
        whole = _Window(pipe, given, tokens.to(device), embeds, guidance_scale)
        whole_made = whole.denoise(noise, known, plan, num_inference_steps, history_noise / 1000, on_step)
        made = torch.cat([made, whole_made[:, :, known.shape[2] :]], dim=2)
    return made


def _latents(frames: int) -> int:
    return (frames - 1) // STRIDE + 1


@torch.no_grad()
def _decode(pipe: Any, latents: torch.Tensor) -> np.ndarray:
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1).to(latents)
        for v in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    video = pipe.vae.decode((latents * std + mean).to(pipe.vae.dtype), return_dict=False)[0]
    return pipe.video_processor.postprocess_video(video, output_type="np")[0]


class _Window:
    """What stays the same over the passes of one window."""

    def __init__(self, pipe: Any, given: torch.Tensor, tokens: torch.Tensor, embeds: tuple, guidance: float):
        self.network, self.given, self.guidance = pipe.transformer, given, guidance
        self.dtype = pipe.transformer.dtype
        self.texts = [text.to(self.dtype) for text in embeds if text is not None]
        self.tokens = tokens.to(self.dtype)
        self.scheduler = pipe.scheduler

    def denoise(
        self, noise: torch.Tensor, known: torch.Tensor, plan: Schedule, steps: int, level: float, on_step: Any
    ) -> torch.Tensor:
        """The window's latents: `known` as they are, then what `noise` becomes. level: noise on what is known, 0 to 1."""
        ready = known.shape[2]
        self.scheduler.set_timesteps(steps, device=noise.device)
        times = torch.cat([self.scheduler.timesteps.float(), noise.new_zeros(1)])
        x = torch.cat([(1 - level) * known + level * noise[:, :, :ready], noise[:, :, ready:]], dim=2)
        edges = [ready, *(ready + 1 + np.flatnonzero(np.diff(plan.done[:, ready:], axis=1).any(axis=0))), x.shape[2]]
        blocks = [(a, b, deepcopy(self.scheduler)) for a, b in pairwise(edges)]
        for done, moves in zip(plan.done, plan.moves, strict=True):
            at = times[torch.from_numpy(done)]
            at[:ready] = level * 1000
            velocity = self._velocity(x, at)
            for a, b, scheduler in blocks:
                if moves[a]:
                    now = times[done[a]].to(self.scheduler.timesteps)
                    before = x[:, :, a:b].clone()  # a multistep scheduler keeps it, while x changes in place
                    x[:, :, a:b] = scheduler.step(velocity[:, :, a:b], now, before).prev_sample
            on_step()
        return torch.cat([known, x[:, :, ready:]], dim=2)

    def _velocity(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """One look with each text, at frames of latents of which each has its own time."""
        _, h, w = self.network.config.patch_size
        each = at.repeat_interleave((x.shape[3] // h) * (x.shape[4] // w))[None]
        seen = torch.cat([x, self.given.to(x)], dim=1).to(self.dtype)
        looks = []
        for name, text in zip(("cond", "uncond"), self.texts, strict=False):
            with self.network.cache_context(name):
                looks.append(self.network(seen, each, text, self.tokens, return_dict=False)[0].float())
        return looks[0] if len(looks) == 1 else looks[1] + self.guidance * (looks[0] - looks[1])
