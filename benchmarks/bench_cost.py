"""Cost of each A2-Bench metric: seconds per clip and memory, on the CPU and, if torch finds one, on a GPU.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_cost [--profile builtin] [--model KIND=CARD] [--frames 81]

Each stage whose models are installed runs in its own process over one clip of 832 x 480 that pans over a photograph of a person,
with a case of a person, a thing and a place. Memory is that of the process beyond Python and the clip; on a GPU, of the GPU.
Seconds are of the clip alone, the models being loaded, on the clock and of the CPU; "loads" is what loading took.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import cv2
import numpy as np

from a2data.media import images
from pipelines.bench.a2 import stages as metrics
from pipelines.bench.a2.profiles import PROFILES
from pipelines.bench.a2.records import CaseRow, ReferenceImage, Sampled

HEIGHT, WIDTH, FPS = 480, 832, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="builtin", choices=sorted(PROFILES))
    parser.add_argument("--model", action="append", default=[], metavar="KIND=CARD")
    parser.add_argument("--metric", action="append", default=[], metavar="STAGE")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    models = PROFILES[args.profile] | dict(text.split("=", 1) for text in args.model)
    stages = metrics.metric_stages(models, args.metric)
    if args.one:
        print(json.dumps(cost(stages[0], args.frames)))
        return
    print(f"{args.frames} frames of {WIDTH} x {HEIGHT}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)")
    print(f"{'metrics':72} {'where':>5} {'loads s':>8} {'s / clip':>9} {'CPU s':>6} {'MB':>6}")
    for stage in stages:
        for where in ("cpu", "cuda") if gpu() else ("cpu",):
            show(stage, where, in_a_process(stage, args.frames, where, args))


def in_a_process(stage: metrics.Metrics, frames: int, where: str, args: argparse.Namespace) -> dict:
    flags = ["--profile", args.profile, "--metric", stage.name(), "--frames", str(frames), "--one"]
    command = [sys.executable, "-m", "benchmarks.bench_cost", *flags, *(f"--model={text}" for text in args.model)]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if where == "cpu" else {}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **hidden})
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or ["it died"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def show(stage: metrics.Metrics, where: str, found: dict) -> None:
    names = ", ".join(stage.names())[:72]
    if "reason" in found:
        print(f"{names:72} {where:>5} {found['reason'][:90]}")
    else:
        seconds = f"{found['loads_s']:8.1f} {found['clip_s']:9.2f} {found['cpu_s']:6.2f}"
        print(f"{names:72} {where:>5} {seconds} {found['memory_mb']:6.0f}")


def cost(stage: metrics.Metrics, count: int) -> dict:
    """Seconds and memory of one stage over one clip, here."""
    made = sampled(count)
    case = parser(made)
    before, began = peak_mb(), time.perf_counter()
    model = stage.load()
    if model.measure is None:
        return {"reason": model.reason}
    loaded, cpu = time.perf_counter(), time.process_time()
    rows = list(stage.run(model, [case], [made]))
    ended, spent = time.perf_counter(), time.process_time() - cpu
    assert rows
    return {
        "loads_s": loaded - began,
        "clip_s": ended - loaded,
        "cpu_s": spent,
        "memory_mb": gpu_mb() or peak_mb() - before,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gpu_mb() -> float:
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() / 2**20 if torch and torch.cuda.is_available() else 0.0


def person() -> np.ndarray:
    """(512, 512, 3) uint8 RGB: Eileen Collins, NASA's photograph that comes in scikit-image."""
    from skimage.data import astronaut

    return astronaut()


def parser(truth: Sampled) -> CaseRow:
    photo = person()
    place = np.ascontiguousarray(photo[:, :200])
    shown = {"human": (photo, "woman"), "object": (photo[250:450, 0:120], "model"), "background": (place, "")}
    pictures = [
        ReferenceImage(role, label, ".png", images.to_png(np.ascontiguousarray(p)))
        for role, (p, label) in shown.items()
    ]
    case = CaseRow("clip", "A woman in an orange suit smiles before a flag.", pictures, b"as made")
    case.__dict__["true_frames"] = truth.frames  # the copy-paste score looks at both
    return case


def sampled(count: int) -> Sampled:
    wide = cv2.resize(cv2.copyMakeBorder(person(), 0, 0, 256, 256, cv2.BORDER_REFLECT), (WIDTH + 80, HEIGHT))
    frames = np.stack(
        [wide[:, shift : shift + WIDTH] for shift in (40 + round(30 * np.sin(n / 9)) for n in range(count))]
    )
    made = Sampled("clip", FPS, b"")
    made.__dict__["frames"] = frames
    return made


if __name__ == "__main__":
    main()
