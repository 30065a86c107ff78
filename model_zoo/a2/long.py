"""Long videos with references by diffusion forcing as in SkyReels-V2 (arXiv 2504.13074).

A long video is sampled window by window. In each window after the first, the head (the references' latent frames) and a history
(the last frames before it) are known, and the rest starts as noise. Within a window, blocks of frames may be denoised with a lag,
so that the noise level never decreases along time. All lengths are in latent frames. The video is decoded at once, so the causal
VAE does not see window boundaries. Weights that were not trained on mixed noise levels (the released A2, Wan) do not support a
lag.
"""

from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from model_zoo.a2 import references as a2_references
from model_zoo.a2.references import STRIDE, Prepared


class Schedule(NamedTuple):
    """Denoising progress of each latent frame before each forward pass."""

    done: np.ndarray  # (passes, frames) int: denoising steps completed, 0 for pure noise
    moves: np.ndarray  # (passes, frames) bool: whether the pass advances the frame by a step


def schedule(frames: int, steps: int, causal_block_size: int = 0, ar_step: int = 0, num_known: int = 0) -> Schedule:
    """Return the diffusion-forcing schedule for `frames` latent frames, the first `num_known` of which are known.

    The others are split into blocks of `causal_block_size` frames (0: one block; the last may be shorter). Each block starts
    `ar_step` passes after the previous one (0: all together), at the latest when that one is done. There are
    (blocks - 1) * ar_step + steps passes. Raises ValueError without a frame to sample, and for negative numbers.
    """
    if min(frames, steps, causal_block_size, ar_step, num_known, frames - num_known - 1, steps - 1) < 0:
        raise ValueError(
            f"{frames} latent frames, {num_known} of them known, {steps} steps, blocks of {causal_block_size} and a lag of "
            f"{ar_step}: there must be at least one frame to sample and one step, and the numbers must not be negative"
        )
    blocks = np.arange(frames - num_known) // (causal_block_size or frames)
    starts = blocks * min(ar_step, steps)
    passes = np.arange(starts[-1] + steps + 1)[:, None]
    # one row more than passes: the final state
    done = np.concatenate([np.full((len(passes), num_known), steps), np.clip(passes - starts[None], 0, steps)], axis=1)
    return Schedule(done[:-1], np.diff(done, axis=0) > 0)


class Window(NamedTuple):
    """A part of a long video that the network processes at once: head, history and new frames."""

    history: int  # latent frames before `start` that it is conditioned on
    start: int  # first new latent frame
    stop: int


def windows(frames: int, window: int, head: int, history: int, num_known: int = 0) -> list[Window]:
    """Return the windows of a video of `frames` latent frames, `head` of which hold the references.

    Every window has `window` frames, so that compiled code can be reused: the last one takes more history if fewer frames remain.
    Windows are shorter only if there are not enough frames before them. num_known: known frames, those of the references and of a
    given video. No frame is dropped. Raises ValueError for a window without room for a new frame.
    """
    if window <= head + history or head < 0 or history < 1:
        raise ValueError(
            f"a window of {window} latent frames has no room for {head} of references, {history} of history and a new one"
        )
    plan = [Window(0, 0, num_known or min(window, frames))]
    while plan[-1].stop < frames:
        start = plan[-1].stop
        stop = min(start + window - head - history, frames)
        plan.append(Window(min(window - head - (stop - start), start - head), start, stop))
    return plan[bool(num_known) :]


def video_windows(
    num_frames: int, window: int, references: int, history: int, context_latents: int = 0
) -> list[Window]:
    """Return `windows` for lengths in video frames; `context_latents`: latent frames of a video to extend."""
    total, num_known = _latents(num_frames) + context_latents, references + context_latents if context_latents else 0
    return windows(total, _latents(window) if window else total, references, max(1, round(history / STRIDE)), num_known)


def passes(planned_windows: list[Window], references: int, steps: int, causal_block_size: int, ar_step: int) -> int:
    """Return the number of denoising passes over all windows; each pass evaluates every CFG branch."""
    heads = [references + part.history if part.start else 0 for part in planned_windows]
    lengths = [head + part.stop - part.start for head, part in zip(heads, planned_windows, strict=True)]
    return sum(
        len(schedule(n, steps, causal_block_size, ar_step, head).done) for n, head in zip(lengths, heads, strict=True)
    )


def num_context_latents(frames: int, history: int) -> int:
    """Return the number of known latent frames when a video of `frames` frames is extended: one more than the history."""
    return 1 + min((frames - 1) // STRIDE, max(1, round(history / STRIDE)))


def sample(
    pipe: Any, references: Prepared, prompts: list[str], init_video: np.ndarray | None = None, **settings: Any
) -> np.ndarray:
    """Return a video of num_frames - 4 n frames for n references, (frames, height, width, 3) float32, 0 to 1: see `latents`.

    With `init_video`, a video (f, height, width, 3) uint8, return that video, unchanged, followed by num_frames - 4 n + 3 frames.
    """
    count = len(references.frames)
    if init_video is None:
        sampled = latents(pipe, references, prompts, **settings)
        return _decode(pipe, sampled)[a2_references.head_frames(count) :]
    num_context = num_context_latents(len(init_video), settings["history"])
    context_frames = a2_references.as_tensor(init_video[-(STRIDE * (num_context - 1) + 1) :]).movedim(0, 1)[None]
    with torch.no_grad():
        context = a2_references.encode(pipe.vae, context_frames)
    sampled = latents(pipe, references, prompts, context=context, **settings)
    new_frames = _decode(pipe, sampled[:, :, count:])[context_frames.shape[2] :]
    return np.concatenate([init_video.astype(np.float32) / 255, new_frames])


@torch.no_grad()
def latents(
    pipe: Any,
    references: Prepared,
    prompts: list[str],
    *,
    context: torch.Tensor | None = None,
    num_frames: int = 257,
    window: int = 81,
    history: int = 17,
    causal_block_size: int = 0,
    ar_step: int = 0,
    addnoise_condition: int = 20,
    negative_prompt: str = "",
    num_inference_steps: int = 50,
    guidance_scale: float = 5.0,
    reference_guidance: float = 1.0,
    generator: torch.Generator | None = None,
    on_step: Any = lambda: None,
) -> torch.Tensor:
    """Return the latents of a long video, (1, 16, (num_frames + 3) / 4, height / 8, width / 8), those of the references first.

    pipe: a WanA2Pipeline. prompts: one for all windows, or one per window; the last is repeated for the remaining windows.
    num_frames, window: 4 m + 1 video frames; window 0 samples all at once. history: video frames of the previous window that a
    window is conditioned on. addnoise_condition: noise added to the history, 0 to 1000, so that flaws do not accumulate
    over windows. context: latents of a video to extend, placed between the references and the new frames. Raises ValueError for
    unsupported sizes and for a window that is too small.
    """
    # imported here, so that windows can be planned without diffusers
    from diffusers.utils.torch_utils import randn_tensor

    from model_zoo.a2 import guidance

    height, width = references.frames.shape[1:3]
    count = len(references.frames)
    for frames in (num_frames, window or num_frames):
        a2_references.check_size(height, width, frames, count)
    if not prompts:
        raise ValueError("no prompt: a long video needs at least one")
    if not 0 <= addnoise_condition <= 1000:
        raise ValueError(f"addnoise_condition is {addnoise_condition}; it must be from 0 to 1000")
    guidance.check(reference_guidance, guidance_scale)
    planned_windows = video_windows(num_frames, window, count, history, 0 if context is None else context.shape[2])
    cond = Conditioning(pipe, references, guidance_scale, reference_guidance, generator)
    generated = torch.zeros(1, pipe.vae.config.z_dim, 0, *cond.grid, device=cond.device)
    for number, part in enumerate(planned_windows):
        num_known = count + part.history if part.start else 0
        size = (1, generated.shape[1], num_known + part.stop - part.start, *cond.grid)
        noise = randn_tensor(size, generator=generator, device=cond.device, dtype=torch.float32)
        # drawn after the noise, as in the released sampler
        cond.set_length(size[2])
        if number == 0 and context is not None:
            generated = torch.cat([cond.condition[:, STRIDE:, :count], context.to(cond.condition)], dim=2)
        known = torch.cat([generated[:, :, :count], generated[:, :, part.start - part.history : part.start]], dim=2)
        cond.encode_prompt(prompts[min(number, len(prompts) - 1)], negative_prompt)
        plan = schedule(size[2], num_inference_steps, causal_block_size, ar_step, num_known)
        denoised = denoise(
            cond, noise, known[:, :, :num_known], plan, num_inference_steps, addnoise_condition / 1000, on_step
        )
        generated = torch.cat([generated, denoised[:, :, num_known:]], dim=2)
    return generated


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


class Conditioning:
    """Conditioning of the network: references, prompts and guidance scales."""

    def __init__(self, pipe: Any, references: Prepared, g: float, s: float, generator: torch.Generator | None):
        self.pipe, self.g, self.s, self.generator = pipe, g, s, generator
        self.device, self.dtype = pipe._execution_device, pipe.transformer.dtype
        self.pictures = a2_references.as_tensor(references.frames)
        self.count = len(references.frames)
        self.grid = tuple(side // pipe.vae_scale_factor_spatial for side in references.frames.shape[1:3])
        tokens = a2_references.image_tokens(pipe.image_encoder, pipe.image_processor, references.squares)
        self.tokens = tokens.to(self.device, self.dtype)
        self.condition = self.null_condition = torch.zeros(0, 0, 0)

    def set_length(self, latents: int) -> None:
        """Compute the conditions for a window of `latents` latent frames."""
        if self.condition.shape[2] == latents:
            return
        frames = STRIDE * (latents - 1) + 1
        self.condition = a2_references.condition(self.pipe.vae, self.pictures, frames, self.generator).to(self.device)
        if self.s != 1:
            size = self.pictures.shape[2:]
            self.null_condition = a2_references.no_references(self.pipe.vae, frames, *size).to(self.device)

    def encode_prompt(self, prompt: str, negative: str) -> None:
        """Encode the prompts of a window and reset the transformer's cache."""
        embeds = self.pipe.encode_prompt(
            prompt=prompt,
            negative_prompt=negative,
            do_classifier_free_guidance=self.g > 1,
            max_sequence_length=512,
            device=self.device,
        )
        self.texts = [text.to(self.dtype) for text in embeds if text is not None]
        self.pipe.transformer._reset_stateful_cache()

    def velocity(self, x: torch.Tensor, timesteps: torch.Tensor, num_known: int) -> torch.Tensor:
        """Return the velocity of noisy latents x, (1, 16, t, h, w), with one timestep per latent frame, (t,)."""
        from model_zoo.a2 import guidance

        branches = [self._branch(x, timesteps, self.condition, self.tokens, text) for text in self.texts]
        # known frames include the references: the branch without references starts after them
        head = self.count if num_known else 0
        if self.s != 1:
            tokens = torch.zeros_like(self.tokens)
            null_condition = self.null_condition[:, :, : x.shape[2] - head]
            branches.append(self._branch(x[:, :, head:], timesteps[head:], null_condition, tokens, self.texts[1]))
        network, group = self.pipe.transformer, self.pipe.groups.cfg
        cond, *others = (v.float() for v in guidance.predict_branches(network, network, branches, group))
        if not others:
            return cond
        uncond, *no_references = others
        if no_references:
            padded = torch.nn.functional.pad(no_references[0], (0, 0, 0, 0, head, 0))
            uncond = guidance.combine_dual_cfg(uncond, padded, self.s, self.g)
        return uncond + self.g * (cond - uncond)

    def _branch(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        condition: torch.Tensor,
        tokens: torch.Tensor,
        text: torch.Tensor,
    ) -> dict[str, Any]:
        _, h, w = self.pipe.transformer.config.patch_size
        return {
            "hidden_states": torch.cat([x, condition.to(x)], dim=1).to(self.dtype),
            "timestep": timesteps.repeat_interleave((x.shape[3] // h) * (x.shape[4] // w))[None],
            "encoder_hidden_states": text,
            "encoder_hidden_states_image": tokens,
            "return_dict": False,
        }


def denoise(
    conditioning: Conditioning,
    noise: torch.Tensor,
    known: torch.Tensor,
    plan: Schedule,
    steps: int,
    history_noise: float,
    on_step: Any,
) -> torch.Tensor:
    """Return a window's latents: `known` unchanged, then the denoised `noise`. history_noise: noise added to `known`, 0 to 1."""
    num_known, base_scheduler = known.shape[2], conditioning.pipe.scheduler
    base_scheduler.set_timesteps(steps, device=noise.device)
    step_timesteps = torch.cat([base_scheduler.timesteps.float(), noise.new_zeros(1)])
    x = torch.cat(
        [(1 - history_noise) * known + history_noise * noise[:, :, :num_known], noise[:, :, num_known:]], dim=2
    )
    edges = [
        num_known,
        *(num_known + 1 + np.flatnonzero(np.diff(plan.done[:, num_known:], axis=1).any(axis=0))),
        x.shape[2],
    ]
    blocks = [(a, b, deepcopy(base_scheduler)) for a, b in pairwise(edges)]
    for done, moves in zip(plan.done, plan.moves, strict=True):
        timesteps = step_timesteps[torch.from_numpy(done)]
        timesteps[:num_known] = history_noise * 1000
        velocity = conditioning.velocity(x, timesteps, num_known)
        for a, b, scheduler in blocks:
            if moves[a]:
                timestep = step_timesteps[done[a]].to(base_scheduler.timesteps)
                # cloned, because a multistep scheduler stores it while x changes in place
                previous = x[:, :, a:b].clone()
                x[:, :, a:b] = scheduler.step(velocity[:, :, a:b], timestep, previous).prev_sample
        on_step()
    return torch.cat([known, x[:, :, num_known:]], dim=2)
