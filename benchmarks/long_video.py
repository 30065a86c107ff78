"""Continuity between the windows of a long video: a small transformer, overfitted to a moving bar, samples six windows.

    OMP_NUM_THREADS=1 python -m benchmarks.long_video [--steps 3000] [--seeds 0 1 2 3] [--frames join.png]

Takes some minutes on one core. The transformer is of Wan's class and trained the way the sampler uses it: known frames with
little or no noise, followed by frames whose noise level never decreases with time. For the first frame of each window (joins) and
of every other latent frame (inside), it prints the error of the bar's step of 2 px and the change of the picture, for windows
with a history and for independent windows.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

HEIGHT, WIDTH, STEP_PX = 16, 64, 2  # of the pattern; the bar moves STEP_PX per frame and wraps around
FRAMES, WINDOW, HISTORY = 97, 25, 9  # 25 latent frames, 7 per window: 1 reference, 2 history
LATENTS = 1 + (WINDOW - 1) // 4
SMALL = {
    "in_channels": 36, "out_channels": 16, "num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 24,
    "added_kv_proj_dim": 96, "ffn_dim": 192, "freq_dim": 64, "rope_max_seq_len": 128,
}  # fmt: skip
BATCH, RATE = 16, 3e-3
SHIFT = 3.0  # flow shift of sampling and training
WORDS = "a bar moves"


class Joins(NamedTuple):
    """Means over frames at joins and over first frames of other latent frames."""

    off_joins_px: float  # root mean square error of the bar's step
    off_inside_px: float
    change_joins: float  # mean change of a pixel from the frame before, of 255
    change_inside: float

    def ratio(self) -> float:
        """Return the ratio of the change at joins to that inside."""
        return self.change_joins / self.change_inside


def pattern(start_px: float, frames: int) -> np.ndarray:
    """Draw the moving bar, soft, light on dark: (frames, HEIGHT, WIDTH, 3) uint8."""
    places = start_px + STEP_PX * np.arange(frames)[:, None]
    light = np.exp(4 * (np.cos(2 * np.pi * (np.arange(WIDTH) - places) / WIDTH) - 1))[..., None]
    row = np.array([30.0, 40.0, 90.0]) + light * np.array([200.0, 120.0, -20.0])
    return np.repeat(row[:, None], HEIGHT, axis=1).round().astype(np.uint8)


def places_px(video: np.ndarray) -> np.ndarray:
    """Return the bar's position in each frame, 0 to WIDTH: the phase of the longest wave across the picture."""
    waves = np.exp(2j * np.pi * np.arange(WIDTH) / WIDTH)
    return np.angle((video.astype(float).mean(axis=(1, 3)) * waves).sum(axis=1)) * WIDTH / (2 * np.pi) % WIDTH


def measured(video: np.ndarray, at: list[int]) -> Joins:
    """Measure a video, (frames, HEIGHT, WIDTH, 3), 0 to 255. at: numbers of the first frames of windows."""
    missed = (np.diff(places_px(video)) - STEP_PX + WIDTH / 2) % WIDTH - WIDTH / 2
    change = np.abs(np.diff(video.astype(float), axis=0)).mean((1, 2, 3))
    number = np.arange(1, len(video))
    joins = np.isin(number, at)
    inside = ((number - at[0]) % 4 == 0) & ~joins
    off = [float(np.sqrt(np.square(missed[here]).mean())) for here in (joins, inside)]
    return Joins(*off, *(float(change[here].mean()) for here in (joins, inside)))


def overfitted(folder: Path, steps: int = 3000, seed: int = 0) -> Any:
    """Return a pipeline whose small transformer was trained on the bar alone."""
    from diffusers import WanTransformer3DModel

    from model_zoo.a2 import pipeline, references, tiny

    clips = [pattern(start, WINDOW) for start in range(WIDTH)]
    tiny.save_initial_checkpoint(folder, clips, [WORDS], seed)
    pipe = pipeline.load(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(seed)
    pipe.transformer = WanTransformer3DModel(**SMALL, text_dim=tiny.DIM, image_dim=tiny.DIM)
    prepared = reference()
    with torch.no_grad():
        given = references.condition(pipe.vae, references.as_tensor(prepared.frames), WINDOW)
        videos = torch.cat([references.as_tensor(clip).movedim(0, 1)[None] for clip in clips])
        clean = references.encode(pipe.vae, videos)
        tokens = references.image_tokens(pipe.image_encoder, pipe.image_processor, prepared.squares)
        text = pipe.encode_prompt(WORDS, do_classifier_free_guidance=False, max_sequence_length=512)[0]
    clean = torch.cat([given[:, 4:, :1].expand(len(clean), -1, -1, -1, -1), clean[:, :, 1:]], dim=2)
    learn(pipe.transformer, clean, given, text[:, : int(text[0].any(dim=-1).sum())], tokens, steps)
    return pipe


def learn(
    network: Any, clean: torch.Tensor, given: torch.Tensor, text: torch.Tensor, tokens: torch.Tensor, steps: int
) -> None:
    """Train by diffusion forcing: flow matching with a noise level per latent frame, without a loss on known frames."""
    from model_zoo.a2 import padding

    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.0)
    slope = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    processors = {name: type(processor)() for name, processor in network.attn_processors.items()}
    padding.merge_padding(network)
    shown, words, looks = (each.expand(BATCH, *[-1] * (each.ndim - 1)) for each in (given, text, tokens))
    network.train()
    for _ in range(steps):
        x0 = clean[torch.randint(len(clean), (BATCH,))]
        level, known = levels()
        noise, at = torch.randn_like(x0), level[:, None, :, None, None]
        seen = torch.cat([(1 - at) * x0 + at * noise, shown], dim=1)
        times = (level * 1000).repeat_interleave(HEIGHT * WIDTH // 256, dim=1)
        predicted = network(seen, times, network.text_padding_cache.pad_text(words), looks, return_dict=False)[0]
        loss = (predicted - (noise - x0)).square().mean((1, 3, 4))[~known].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        slope.step()
    network.eval()
    network.set_attn_processor(processors)
    del network.text_padding_cache


def levels() -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise levels of BATCH samples, 0 to 1, and which of their latent frames are known: (BATCH, LATENTS) each.

    In 6 of 10 samples the reference and the next one to four frames are known, most with noise of up to 0.05. Blocks of one to
    three frames follow; in 4 of 10 samples each block lags behind the one before.
    """
    frames = torch.arange(LATENTS)[None]
    ready = torch.where(torch.rand(BATCH) < 0.6, torch.randint(2, LATENTS - 1, (BATCH,)), 0)[:, None]
    lag = torch.rand(BATCH, 1) * 0.5 * (torch.rand(BATCH, 1) < 0.4)
    block = (frames - ready).clamp(min=0) // torch.randint(1, 4, (BATCH, 1))
    done = (torch.rand(BATCH, 1) * (1 + lag * block.amax(1, keepdim=True)) - lag * block).clamp(0, 1)
    level = SHIFT * (1 - done) / (1 + (SHIFT - 1) * (1 - done))
    little = 0.05 * torch.rand(BATCH, 1) * (torch.rand(BATCH, 1) < 0.7)
    level = torch.where(frames < ready, little, level)
    return level, (frames < ready) | (level == 0)


def reference() -> Any:
    from model_zoo.a2 import references
    from model_zoo.a2.references import Reference

    return references.prepare([Reference("object", pattern(0, 1)[0])], HEIGHT, WIDTH)


def sampled(pipe: Any, seed: int, frames: int = FRAMES, **how: Any) -> np.ndarray:
    """Sample a video of the bar, (frames - 4, HEIGHT, WIDTH, 3), 0 to 255."""
    from model_zoo.a2 import long, pipeline

    pipe.scheduler = pipeline.scheduler("unipc", SHIFT)
    settings = {"num_frames": frames, "window": WINDOW, "history": HISTORY, "num_inference_steps": 16} | how
    noise = torch.Generator().manual_seed(seed)
    return long.sample(pipe, reference(), [WORDS], guidance_scale=1.0, generator=noise, **settings) * 255


def independent(pipe: Any, seed: int) -> np.ndarray:
    """Sample a video of the same length from independent windows."""
    edges = [0, *joins(), FRAMES - 4]
    parts = [sampled(pipe, 1000 * (seed + 1) + n, WINDOW) for n in range(len(edges) - 1)]
    return np.concatenate([part[a - b :] for part, a, b in zip(parts, edges, edges[1:], strict=False)])


def joins() -> list[int]:
    """Return the first frame of each window after the first, not counting the reference's 4 frames."""
    from model_zoo.a2 import long

    starts = [part.start for part in long.video_windows(FRAMES, WINDOW, 1, HISTORY)[1:]]  # latent frames
    return [4 * (start - 1) + 1 - 4 for start in starts]


def mean(found: list[Joins]) -> Joins:
    """Average over seeds: root mean squares of errors, means of changes."""
    table = np.array(found)
    return Joins(*np.sqrt(np.square(table[:, :2]).mean(0)), *table[:, 2:].mean(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="training steps (default: 3000)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the sampled videos (default: 0 1 2 3)"
    )
    parser.add_argument("--frames", help="output path of a picture of the frames around the first join")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pipe = overfitted(Path(folder), args.steps)
    at, count = joins(), len(args.seeds)
    print(f"{len(at) + 1} windows, {FRAMES - 4} frames, {count} videos of a bar that moves {STEP_PX} px per frame")
    print(f"{'':44s} step error, px      change, of 255\n{'':44s} joins  inside     joins  inside  ratio")
    arms = {
        "history under noise of 0.02": lambda seed: sampled(pipe, seed),
        "history without noise": lambda seed: sampled(pipe, seed, addnoise_condition=0),
        "history, latent frames 2 steps apart": lambda seed: sampled(pipe, seed, causal_block_size=1, ar_step=2),
        "independent windows": lambda seed: independent(pipe, seed),
        "the bar itself": lambda seed: pattern(seed, FRAMES - 4),
    }
    for name, make in arms.items():
        m = mean([measured(make(seed), at) for seed in args.seeds])
        print(f"{name:44s} {m.off_joins_px:5.2f}  {m.off_inside_px:6.2f}     {m.change_joins:5.2f}  {m.change_inside:6.2f}  "
              f"{m.ratio():5.2f}", flush=True)  # fmt: skip
    if args.frames:
        from PIL import Image

        shown = sampled(pipe, args.seeds[0])[at[0] - 12 : at[0] + 12].clip(0, 255).round().astype(np.uint8)
        Image.fromarray(np.concatenate(list(shown), axis=0)).save(args.frames)


if __name__ == "__main__":
    main()
