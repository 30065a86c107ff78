"""What each flag that makes sampling faster gains, and how far its video is then from the exact one; one run, one table.

    OMP_NUM_THREADS=1 python -m benchmarks.sampling [CHECKPOINT] [--height 64 --width 112 --frames 17] [--steps 30]

Without a checkpoint the transformer is `--blocks` random blocks of the tiny preset's kind: good for times, not for drift. Each
flag is timed in turn with the exact run; the gain is the ratio of medians of seconds of its steps, on a CPU of processor time,
which a busy machine does not lengthen. Drift is the PSNR of the video against the exact one; more is nearer.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from model_zoo import torchvision_shim

torchvision_shim.install()

from model_zoo import a2, a2_faster, a2_references  # noqa: E402
from model_zoo.a2_parallel import Groups  # noqa: E402
from model_zoo.a2_references import Reference  # noqa: E402


class Flag(NamedTuple):
    """A flag of `a2data sample`, and how it is switched on in a pipeline and off again."""

    name: str
    on: Callable[[Any], None]
    off: Callable[[Any], None]


def cache(name: str, kind: str, **how: Any) -> Flag:
    return Flag(
        name,
        lambda pipe: a2_faster.cache(pipe.transformer, kind, **how),
        lambda pipe: a2_faster.cache(pipe.transformer, ""),
    )


def attention(name: str) -> Flag:
    return Flag(
        f"--attention {name}",
        lambda pipe: pipe.transformer.set_attention_backend(name),
        lambda pipe: pipe.transformer.reset_attention_backend(),
    )


FLAGS = [
    cache("--cache first-block, threshold 0.02", "first-block", threshold=0.02),
    cache("--cache first-block", "first-block", threshold=0.05),
    cache("--cache first-block, threshold 0.1", "first-block", threshold=0.1),
    cache("--cache taylorseer, interval 2", "taylorseer", interval=2),
    cache("--cache taylorseer", "taylorseer", interval=3),
    attention("_native_math"),
    Flag(
        "--compile", lambda pipe: a2_faster.apply(pipe, Groups(), compiled=True), lambda _: None
    ),  # last: there is no way back
]


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("checkpoint", nargs="?", type=Path)
    asked.add_argument("--height", type=int, default=64)
    asked.add_argument("--width", type=int, default=112)
    asked.add_argument("--frames", type=int, default=17)
    asked.add_argument("--steps", type=int, default=30)
    asked.add_argument("--repeats", type=int, default=3)
    asked.add_argument("--blocks", type=int, default=12)
    asked.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked.add_argument("--without", nargs="*", default=[], metavar="FLAG", help="leave out flags that begin so")
    args = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pipe = loaded(args, Path(folder))
        exact, _ = run(pipe, args)
        print(
            f"{'exact':40s} {run(pipe, args)[1] / args.steps * 1000:8.1f} ms/step on {args.device}, {args.steps} steps",
            flush=True,
        )
        for flag in FLAGS:
            if not flag.name.startswith(tuple(args.without) or ("-" * 9,)):
                row(flag, pipe, args, exact)


def row(flag: Flag, pipe: Any, args: argparse.Namespace, exact: np.ndarray) -> None:
    """Time the flag and the exact run in turns, and print the flag's line."""
    plain, quick = [], []
    for number in range(args.repeats + 1):
        if flag.name != "--compile":
            plain.append(run(pipe, args)[1])
        elif number == 0:
            plain += [run(pipe, args)[1] for _ in range(args.repeats)]
        flag.on(pipe) if flag.name != "--compile" or number == 0 else None
        video, took = run(pipe, args)
        quick.append(took)
        flag.off(pipe)
    gain = statistics.median(plain) / statistics.median(quick[1:])  # the first one compiles, or fills caches
    print(f"{flag.name:40s} {gain:6.2f} times as fast, {psnr(video, exact):6.1f} dB", flush=True)


def loaded(args: argparse.Namespace, folder: Path) -> Any:
    """The checkpoint's pipeline, or one with a random transformer of `--blocks` blocks."""
    a2.quiet()
    if args.checkpoint:
        pipe = a2.load(args.checkpoint, args.device, torch.float32 if args.device == "cpu" else torch.bfloat16)
    else:
        from diffusers import WanTransformer3DModel

        from model_zoo import tiny

        clips = [np.random.default_rng(n).integers(0, 256, (args.frames, 64, 64, 3), np.uint8) for n in range(2)]
        tiny.save_start(folder, clips, ["a"])
        pipe = a2.load(folder, args.device, torch.float32)
        torch.manual_seed(0)
        pipe.transformer = (
            WanTransformer3DModel(**tiny.TRANSFORMER | {"num_layers": args.blocks}).eval().to(args.device)
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: Any, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    """A video, (f, h, w, 3) 0 to 1, and the seconds that its steps took, without encoding and decoding."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (args.height, args.width, 3), np.uint8)
    prepared = a2_references.prepare([Reference("object", picture)], args.height, args.width)
    times: list[float] = []

    def after(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if args.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.process_time() if args.device == "cpu" else time.perf_counter())
        return tensors

    made = pipe(
        prepared, "a", num_frames=args.frames, num_inference_steps=args.steps, guidance_scale=5.0, output_type="np",
        generator=torch.Generator().manual_seed(0), callback_on_step_end=after,
    ).frames[0]  # fmt: skip
    return made, (times[-1] - times[0]) * args.steps / (args.steps - 1)


def psnr(video: np.ndarray, exact: np.ndarray) -> float:
    """In dB; infinite for the same video."""
    error = float(np.square(video - exact).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


if __name__ == "__main__":
    main()
