"""How well the windows of a long video join: the tiny transformer, overfitted to a moving square, samples six windows.

`python -m benchmarks.long_video`: two minutes of one core. It prints how much the picture changes from one frame to the next at
the joins and inside the windows, how far both are from the square's own motion, and the same for windows that know nothing of one
another.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from model_zoo import torchvision_shim

HEIGHT, WIDTH, SQUARE_PX, STEP_PX = (
    32,
    48,
    14,
    2,
)  # of the pattern; the square moves so far in a frame, and comes in again
FRAMES, WINDOW, HISTORY = (
    97,
    25,
    9,
)  # 25 frames of latents, 7 a window: 1 of the reference, 2 of history
LATENTS = 1 + (WINDOW - 1) // 4
KNOWN_LEVEL = 0.02  # of noise on the history, as a2_long lays over it
WORDS = "a square moves"


class Jumps(NamedTuple):
    """Mean absolute change from a frame to the next, 0 to 255, and of the next from the square moved on as it moves."""

    inside: float
    joins: float
    off_inside: float
    off_joins: float


def pattern(start_px: int, frames: int) -> np.ndarray:
    """The moving square, (frames, HEIGHT, WIDTH, 3) uint8."""
    columns = np.linspace(20, 90, WIDTH).astype(np.uint8)
    video = np.repeat(np.broadcast_to(columns[None, None, :, None], (1, HEIGHT, WIDTH, 3)), frames, axis=0).copy()
    for number, frame in enumerate(video):
        across = (start_px + STEP_PX * number + np.arange(SQUARE_PX)) % WIDTH
        frame[9 : 9 + SQUARE_PX, across] = (230, 60, 40)
    return video


def overfitted(folder: Path, steps: int = 400, seed: int = 0) -> Any:
    """A pipeline whose tiny transformer has seen nothing but the square, half of the time with the frames before it known."""
    from model_zoo import a2, a2_references, tiny
    from model_zoo.a2_references import Reference

    torch.manual_seed(seed)
    clips = [pattern(start, WINDOW) for start in range(0, WIDTH, STEP_PX)]
    tiny.save_start(folder, clips, [WORDS], seed)
    pipe = a2.load(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    prepared = a2_references.prepare([Reference("object", reference())], HEIGHT, WIDTH)
    with torch.no_grad():
        given = a2_references.condition(pipe.vae, a2_references.as_tensor(prepared.frames), WINDOW)
        videos = torch.cat([a2_references.as_tensor(clip).movedim(0, 1)[None] for clip in clips])
        clean = a2_references.encode(pipe.vae, videos)
        tokens = a2_references.image_tokens(pipe.image_encoder, pipe.image_processor, prepared.squares)
        text = pipe.encode_prompt(WORDS, do_classifier_free_guidance=False, max_sequence_length=512)[0]
    clean = torch.cat([given[:, 4:, :1].expand(len(clean), -1, -1, -1, -1), clean[:, :, 1:]], dim=2)
    learn(pipe.transformer, clean, given, text, tokens, steps)
    return pipe


def learn(
    network: Any, clean: torch.Tensor, given: torch.Tensor, text: torch.Tensor, tokens: torch.Tensor, steps: int
) -> None:
    """Diffusion forcing in small: the frames of a sample have one noise level, those that are known a level of their own."""
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.0)
    slope = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    many, grid = 16, clean.shape[3] * clean.shape[4] // 4
    network.train()
    for _ in range(steps):
        x0 = clean[torch.randint(len(clean), (many,))]
        known = torch.randint(0, LATENTS - 1, (many,)) * (torch.rand(many) < 0.6)
        drawn = torch.rand(many)
        level = 3 * drawn / (1 + 2 * drawn)  # more of them near noise, as the sampler's steps are
        told = torch.arange(LATENTS)[None] < known[:, None]
        levels = torch.where(told, KNOWN_LEVEL, level.clamp(0.001, 1.0)[:, None])
        noise = torch.randn_like(x0)
        at = levels[:, None, :, None, None]
        seen = torch.cat([(1 - at) * x0 + at * noise, given.expand(many, -1, -1, -1, -1)], dim=1)
        times = (levels * 1000).repeat_interleave(grid, dim=1)
        said = network(seen, times, text.expand(many, -1, -1), tokens.expand(many, -1, -1), return_dict=False)[0]
        wrong = (said - (noise - x0)).square().mean((1, 3, 4))
        loss = wrong[~told].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        slope.step()
    network.eval()


def reference() -> np.ndarray:
    """The square alone, on white."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[9 : 9 + SQUARE_PX, 17 : 17 + SQUARE_PX] = (230, 60, 40)
    return picture


def sampled(pipe: Any, frames: int = FRAMES, seed: int = 0, window: int = WINDOW) -> np.ndarray:
    """A long video of it, (frames - 4, HEIGHT, WIDTH, 3), 0 to 255."""
    from model_zoo import a2, a2_long, a2_references
    from model_zoo.a2_references import Reference

    pipe.scheduler = a2.scheduler("unipc", 3.0)
    prepared = a2_references.prepare([Reference("object", reference())], HEIGHT, WIDTH)
    made = a2_long.sample(
        pipe, prepared, [WORDS], num_frames=frames, window=window, history=HISTORY, num_inference_steps=12,
        guidance_scale=1.0, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return made * 255


def joins(frames: int = FRAMES) -> list[int]:
    """The numbers of the frames with which a window after the first begins."""
    from model_zoo import a2_long

    starts = [part.start for part in a2_long.parts_of(frames, WINDOW, 1, HISTORY)[1:]]  # in frames of latents
    return [
        4 * (start - 1) + 1 - 4 for start in starts
    ]  # 4 frames each behind the first; the reference's 4 are cut off


def jumps(video: np.ndarray, at: list[int]) -> Jumps:
    """The change into each frame: into those at which a window begins, and into the others."""
    change = np.abs(np.diff(video, axis=0)).mean((1, 2, 3))
    places = np.stack([pattern(start, 1)[0] for start in range(WIDTH)]).astype(float)
    apart_by_place = np.stack([np.abs(frame - places).mean((1, 2, 3)) for frame in video])
    nexts = (apart_by_place.argmin(1)[:-1] + STEP_PX) % WIDTH  # where the square is to be, from where it seems to be
    off = apart_by_place[np.arange(1, len(video)), nexts]
    here = np.zeros(len(change), bool)
    here[[number - 1 for number in at]] = True
    return Jumps(*(float(v) for v in (change[~here].mean(), change[here].mean(), off[~here].mean(), off[here].mean())))


def apart(pipe: Any, at: list[int]) -> np.ndarray:
    """As long a video of windows that were sampled each for itself."""
    edges = [0, *at]
    parts = [sampled(pipe, WINDOW, seed) for seed in range(len(edges))]
    lengths = [b - a for a, b in zip(edges, [*at, FRAMES - 4], strict=True)]
    return np.concatenate([part[-length:] for part, length in zip(parts, lengths, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--frames", help="where to write the frames around the first join, as a picture")
    args = parser.parse_args()
    torchvision_shim.install()
    with tempfile.TemporaryDirectory() as folder:
        pipe = overfitted(Path(folder), args.steps)
        at = joins()
        joined, alone = sampled(pipe), apart(pipe, at)
    print(f"{len(at) + 1} windows, {len(joined)} frames; mean change from a frame to the next, of 255")
    for name, video in (("windows with a history", joined), ("windows each for itself", alone)):
        found = jumps(video, at)
        print(f"{name}: inside {found.inside:.2f}, at joins {found.joins:.2f} ({found.joins / found.inside:.2f} times); "
              f"off the square's motion: {found.off_inside:.2f}, {found.off_joins:.2f}")  # fmt: skip
    truth = jumps(pattern(0, FRAMES - 4).astype(float), at)
    print(f"the square itself: {truth.inside:.2f}, {truth.joins:.2f}; {truth.off_inside:.2f}, {truth.off_joins:.2f}")
    if args.frames:
        from PIL import Image

        shown = joined[at[0] - 6 : at[0] + 6].clip(0, 255).round().astype(np.uint8)
        Image.fromarray(np.concatenate(list(shown), axis=1)).save(args.frames)


if __name__ == "__main__":
    main()
