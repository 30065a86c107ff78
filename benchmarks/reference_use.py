"""Similarity of sampled videos to their references: own references against another clip's, same prompt and noise.

    OMP_NUM_THREADS=1 python -m benchmarks.reference_use SHARDS CHECKPOINT [--seeds 0 1] [--steps 20] [--sheet OUT.png]

For each clip of the shards and each seed, it samples a video with the clip's own references and one with another clip's.
Similarity is the intersection of the Lab histograms of the video and of the clip's own references, without white. The interval is
Student's t over clips. The checkpoint's training determines which clips are held out.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from a2data.store.folder import Folder
from pipelines.statistics import student

BINS = (6, 12, 12)  # of lightness, a and b
WHITE = 245


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--reference-guidance-scale", type=float, default=1.0)
    parser.add_argument(
        "--sheet",
        help="output path of a picture of the first held-out clips, sampled with their own and with another clip's references",
    )
    args = parser.parse_args()
    cases, held_out = read(args.shards, args.checkpoint)
    made = run(cases, held_out, args)
    for name, clips in (("held out", held_out), ("training", set(cases) - held_out)):
        show(name, {clip: made[clip] for clip in clips if clip in made})
    if args.sheet:
        sheet(cases, made, sorted(held_out)[:3], args.sheet)


def read(shards: str, checkpoint: Path) -> tuple[dict[str, Any], set[str]]:
    """Return clip -> (prompt, frames, prepared references), at the checkpoint's training size, and the held-out clips."""
    from stages.encode.settings import Encoding
    from stages.encode.tensors import pictures, read_tar

    said = json.loads((checkpoint.parent / "encoded" / "encoding.json").read_text())
    how = Encoding(**{name: said[name] for name in Encoding.__dataclass_fields__ if name in said})
    source, found = Folder(shards), {}
    for name in sorted(n for n in source.names() if n.endswith(".tar")):
        for triplet in read_tar(source, name):
            shown = pictures(triplet, how)
            if isinstance(shown, tuple):
                found[triplet.facts.clip_id] = (triplet.prompt, shown[0][: how.frames], shown[1])
    return found, set(said["held_out"])


def run(cases: dict[str, Any], held_out: set[str], args: argparse.Namespace) -> dict[str, list[Any]]:
    """Return for each clip and seed (similarity with own references, with another's, the two videos, the other clip)."""
    pipe = opened(args.checkpoint)
    how = {"guidance_scale": args.guidance_scale, "reference_guidance_scale": args.reference_guidance_scale}
    how |= {"num_inference_steps": args.steps}
    made: dict[str, list[Any]] = {}
    for group in (sorted(held_out & set(cases)), sorted(set(cases) - held_out)):
        for clip, other in zip(group, group[1:] + group[:1], strict=True):
            prompt, frames, own = cases[clip]
            for seed in args.seeds:
                videos = [sampled(pipe, given, prompt, len(frames), seed, **how) for given in (own, cases[other][2])]
                alike = [similarity(video, own.frames) for video in videos]
                made.setdefault(clip, []).append((*alike, *videos, other))
    return made


def opened(checkpoint: Path) -> Any:
    """Load the pipeline of a tiny network on the CPU, with a flow shift for small videos."""
    import torch

    from model_zoo.a2 import pipeline

    pipeline.quiet()
    pipe = pipeline.load(checkpoint, dtype=torch.float32, schedule=pipeline.scheduler("unipc", 3.0))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(pipe: Any, given: Any, prompt: str, frames: int, seed: int, **how: Any) -> np.ndarray:
    """Sample a video, (t, h, w, 3) uint8, without the frames that show references."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = pipe(given, prompt, num_frames=frames, generator=generator, output_type="np", **how)
    return (made.frames[0].clip(0, 1) * 255).round().astype(np.uint8)


def colours(pictures: np.ndarray) -> np.ndarray:
    """Return the smoothed colour histogram of (n, h, w, 3) uint8 pictures, without white; its sum is 1."""
    lab = np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2LAB) for p in pictures])[pictures.min(-1) < WHITE]
    counts, _ = np.histogramdd(lab, bins=BINS, range=[(0, 256)] * 3)
    for axis in range(3):  # similar colours count partly
        counts = counts + 0.5 * (np.roll(counts, 1, axis) + np.roll(counts, -1, axis))
    return counts / counts.sum()


def similarity(video: np.ndarray, references: np.ndarray) -> float:
    """Return the histogram intersection of a video with its references, mean over references, 0 to 1."""
    seen = colours(video)
    return float(np.mean([np.minimum(seen, colours(one[None])).sum() for one in references]))


def show(name: str, made: dict[str, list[Any]]) -> None:
    right, others = (np.array([np.mean([row[n] for row in rows]) for rows in made.values()]) for n in (0, 1))
    gain = right - others
    mean, low, high = student(gain)
    print(
        f"{name}: {len(gain)} clips, similarity {right.mean():.3f} with their own references, {others.mean():.3f} with others'; "
        f"gain {mean:+.3f}, 95 % {low:+.3f} … {high:+.3f}; larger in {(gain > 0).sum()}"
    )


def sheet(cases: dict[str, Any], made: dict[str, list[Any]], clips: list[str], out: str) -> None:
    """Save rows of references and frames for visual inspection."""
    from PIL import Image

    from pipelines.sample import output

    rows: list[tuple[str, list[np.ndarray]]] = []
    for clip in clips:
        *_, right, others, other = made[clip][0]
        for whose, video in ((clip, right), (other, others)):
            label = "its references" if whose == clip else "another clip's references"
            rows.append((f"{label} | video sampled with them", [*cases[whose][2].frames, *output.stills(video, 5)]))
    Image.fromarray(output.sheet(rows)).save(out)


if __name__ == "__main__":
    main()
