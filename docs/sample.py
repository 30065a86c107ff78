"""docs/sample.webp: what a network that `a2data train` made samples, beside its references and the clip as it is.

    OMP_NUM_THREADS=1 python -m docs.sample SHARDS TRAINED/model OUT.webp [--clips KEY …] [--steps 20] [--seed 0]

A row for each clip: references, the clip (as large as the network sees it), the sample. Without --clips: two that the network
was trained on, then two that were held out.
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import reference_use

LARGER = 3
GAP_PX, HEAD_PX = 6, 16
FRAME_MS = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", nargs="+")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cases, held_out = reference_use.read(args.shards, args.checkpoint)
    trained_on = sorted(set(cases) - held_out)
    pipe, shown = reference_use.opened(args.checkpoint), args.clips or trained_on[:2] + sorted(held_out)[:2]
    rows = [row(cases[clip], clip in held_out, pipe, args) for clip in shown]
    width = max(each[0].shape[1] for each in rows)
    pages = []
    for n in range(min(len(each) for each in rows)):
        page = [
            np.pad(each[n], ((0, GAP_PX), (0, width - each.shape[2]), (0, 0)), constant_values=255) for each in rows
        ]
        pages.append(Image.fromarray(np.concatenate(page)))
    there_and_back = pages + pages[-2:0:-1]
    there_and_back[0].save(
        args.out, save_all=True, append_images=there_and_back[1:], duration=FRAME_MS, loop=0, quality=80, method=6
    )
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB, {len(pages)} frames")


def row(case: Any, held_out: bool, pipe: Any, args: argparse.Namespace) -> np.ndarray:
    """Return the frames of a row, (t, height, width, 3) uint8."""
    prompt, frames, given = case
    how = {"guidance_scale": args.guidance_scale, "num_inference_steps": args.steps}
    made = reference_use.sampled(pipe, given, prompt, len(frames), args.seed, **how)
    clip = frames[-len(made) :]
    blank = np.full_like(given.frames[:1], 255)
    references = np.concatenate([given.frames, *[blank] * (2 - len(given.frames))])[:2]
    cells = [*(np.repeat(one[None], len(made), 0) for one in references), clip, made]
    names = ["references", "", "held-out clip" if held_out else "clip of the training", "sampled"]
    return np.concatenate([titled(cell, name) for cell, name in zip(cells, names, strict=True)], 2)


def titled(frames: np.ndarray, name: str) -> np.ndarray:
    """Frames made larger, with a line of text above and white beside them."""
    height, width = frames.shape[1] * LARGER, frames.shape[2] * LARGER
    head = Image.new("RGB", (width, HEAD_PX), "white")
    ImageDraw.Draw(head).text((2, 2), name, fill="black")
    large = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames]
    whole = np.stack([np.concatenate([np.asarray(head), frame]) for frame in large])
    return np.pad(whole, ((0, 0), (0, 0), (0, GAP_PX), (0, 0)), constant_values=255)


if __name__ == "__main__":
    main()
