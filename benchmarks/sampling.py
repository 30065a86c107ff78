"""Stock diffusers against a2data, then the speed-up, memory and drift of each flag of `a2data sample`, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.sampling [CHECKPOINT] [--height 64 --width 112 --frames 17] [--steps 30]
    python -m benchmarks.sampling --shape 14b --height 480 --width 832 --frames 81 --steps 8 --repeats 1

Without a checkpoint the networks are random, of `--shape`: valid for times and memory, not for drift. Every row alternates with
the exact run. ms/step is the mean over steps and the median over repeats; on a CPU it is processor time, which other processes do
not lengthen. gain is the exact run's ms/step divided by the row's. VAE s: encoding the condition and decoding the video. peak:
the GPU memory of tensors. drift is the PSNR of the video against the exact one; higher is nearer.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks import sampling_shapes
from model_zoo.a2 import acceleration, references
from model_zoo.a2 import pipeline as a2
from model_zoo.a2.parallel import ParallelGroups
from model_zoo.a2.references import Reference

BACKENDS = ("_native_math", "_native_flash", "_native_cudnn", "flash", "_flash_3_hub", "sage")


class Flag(NamedTuple):
    """A flag, with functions that switch it on and off in a pipeline; off is None if it cannot be undone."""

    name: str
    on: Callable[[Any], None]
    off: Callable[[Any], None] | None


class Made(NamedTuple):
    """A video, (f, h, w, 3), 0 to 1, with its cost."""

    video: np.ndarray
    step_s: float  # mean
    whole_s: float
    peak_bytes: int  # 0 on a CPU


def cache(name: str, kind: str, **how: Any) -> Flag:
    return Flag(
        name,
        lambda pipe: acceleration.cache(pipe.transformer, kind, **how),
        lambda pipe: acceleration.cache(pipe.transformer, ""),
    )


def attention(name: str) -> Flag:
    def on(pipe: Any) -> None:
        acceleration.check_attention(name, pipe.device.type)
        acceleration.set_attention_backend(pipe.transformer, name)

    return Flag(f"--attention-backend {name}", on, lambda pipe: pipe.transformer.reset_attention_backend())


def quantised(weights: str) -> Flag:
    def on(pipe: Any) -> None:
        how = acceleration.quantisation(weights)
        from torchao.quantization import quantize_

        quantize_(pipe.transformer, how.quant_type)

    return Flag(f"--quantization {weights}", on, None)


def offload(pipe: Any) -> None:
    if pipe.device.type != "cuda":
        raise ValueError("--group-offload moves weights between memory and a GPU; the device is a CPU")
    device = pipe.device
    pipe.to("cpu")
    torch.cuda.empty_cache()
    a2.offload(pipe, device)


def flags(ratios: list[float], steps: int) -> list[Flag]:
    """Return all flags. ratios: calibration of the cache "mag"."""
    made = [
        cache("--cache first-block, threshold 0.02", "first-block", threshold=0.02),
        cache("--cache first-block", "first-block", threshold=0.05),
        cache("--cache first-block, threshold 0.1", "first-block", threshold=0.1),
        cache("--cache taylorseer, interval 2", "taylorseer", interval=2),
        cache("--cache taylorseer", "taylorseer", interval=3),
        cache("--cache mag", "mag", threshold=0.05, ratios=ratios, steps=steps),
        cache("--cache mag, threshold 0.2", "mag", threshold=0.2, ratios=ratios, steps=steps),
        *(attention(name) for name in BACKENDS),
        Flag("--vae-tiling", lambda pipe: pipe.vae.enable_tiling(), lambda pipe: pipe.vae.disable_tiling()),
        Flag("--compile", lambda pipe: acceleration.apply(pipe, ParallelGroups(), compiled=True), None),
        quantised("int8"),
        quantised("fp8"),
        Flag("--group-offload", offload, None),
    ]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument(
        "--shape", choices=sampling_shapes.SHAPES, default="tiny", help="size of random networks (default: tiny)"
    )
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="FLAG", help="measure only flags with these prefixes, given without --"
    )
    args = parser.parse_args()
    pipe = loaded(args)
    with acceleration.MagCacheCalibration(pipe.transformer, num_branches=2) as calibration:
        exact = run(pipe, args)  # also warms up
    print(f"{args.checkpoint or args.shape} on {where(args.device)}, {args.frames} x {args.height} x {args.width}, "
          f"{args.steps} steps, two forward passes each", flush=True)  # fmt: skip
    print(f"{'':38s} {'ms/step':>9s} {'gain':>6s} {'VAE s':>7s} {'peak GB':>8s} {'drift dB':>9s}")
    stock(pipe, args)
    for flag in flags(calibration.ratios(), args.steps):
        asked_for = not args.only or flag.name.removeprefix("--").startswith(tuple(args.only))
        if asked_for and not row(flag, pipe, args, exact.video):
            del pipe  # first, because a GPU cannot hold two 14B networks
            pipe = loaded(args)


def where(device: str) -> str:
    return (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU thread(s)"
    )


def stock(pipe: Any, args: argparse.Namespace) -> None:
    """Compare diffusers' pipeline for Wan2.1-I2V with ours, over the same networks, alternating, with one reference."""
    runs = [(run_stock(pipe, args), run(pipe, args)) for _ in range(args.repeats + 1)][1:]
    theirs, ours = ([pair[n] for pair in runs] for n in (0, 1))
    coded = vae_s(pipe, args)
    line("stock diffusers, Wan2.1-I2V", theirs, ours, coded, float("nan"))
    line("a2data, exact", ours, ours, coded, float("inf"))
    fraction = coded / statistics.median(made.whole_s for made in ours)
    print(
        f"  the VAE takes {fraction:.0%} of the {statistics.median(made.whole_s for made in ours):.1f} s of a video",
        flush=True,
    )


def row(flag: Flag, pipe: Any, args: argparse.Namespace, exact: np.ndarray) -> bool:
    """Time the flag and the exact run alternately and print the line. Return False if the pipeline must be reloaded."""
    plain = [run(pipe, args) for _ in range(args.repeats)] if flag.off is None else []
    quick = []
    try:
        for number in range(args.repeats + 1):
            if flag.off is not None and number:
                plain.append(run(pipe, args))
            if flag.off is not None or number == 0:
                flag.on(pipe)
            quick.append(run(pipe, args))
            coded = vae_s(pipe, args) if number == args.repeats else 0.0
            if flag.off is not None:
                flag.off(pipe)
    except Exception as error:  # a missing backend or compiler does not stop the other flags
        print(f"{flag.name:38s} not here: {str(error).splitlines()[0][:90]}", flush=True)
        return False
    line(flag.name, quick[1:], plain, coded, psnr(quick[-1].video, exact))  # the first run compiles or fills caches
    return flag.off is not None


def line(name: str, some: list[Made], plain: list[Made], coded_s: float, drift_db: float) -> None:
    step, exact = (statistics.median(made.step_s for made in each) for each in (some, plain))
    peak = max(made.peak_bytes for made in some) / 1e9
    shown = f"{peak:8.1f}" if peak else f"{'-':>8s}"
    print(f"{name:38s} {step * 1000:9.1f} {exact / step:6.2f} {coded_s:7.2f} {shown} {drift_db:9.1f}", flush=True)


def loaded(args: argparse.Namespace) -> Any:
    """Load the checkpoint's pipeline, or one of random networks."""
    a2.quiet()
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    if args.checkpoint:
        pipe = a2.load(args.checkpoint, args.device, dtype)
    else:
        pipe = sampling_shapes.pipeline(args.shape, args.device, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_args(pipe: Any, args: argparse.Namespace) -> tuple[dict[str, Any], list[float]]:
    """Return the arguments of both pipelines, and the list that collects the times of their steps."""
    times: list[float] = []

    def after(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        times.append(clock(args.device))
        return tensors

    width = pipe.transformer.config.text_dim
    text, none = (torch.randn(1, 512, width, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    place = pipe._execution_device, pipe.transformer.dtype
    arguments = {"prompt_embeds": text.to(*place), "negative_prompt_embeds": none.to(*place), "guidance_scale": 5.0}
    arguments |= {"num_frames": args.frames, "num_inference_steps": args.steps, "callback_on_step_end": after}
    return arguments | {"output_type": "np", "generator": torch.Generator().manual_seed(0)}, times


def picture(args: argparse.Namespace) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (args.height, args.width, 3), np.uint8)


def run(pipe: Any, args: argparse.Namespace) -> Made:
    """Sample a video with our pipeline, with one reference."""
    arguments, times = call_args(pipe, args)
    prepared = references.prepare([Reference("object", picture(args))], args.height, args.width)
    return measured(lambda: pipe(prepared, **arguments), times, args.device)


def run_stock(pipe: Any, args: argparse.Namespace) -> Made:
    """Sample a video with diffusers' pipeline, from the same picture."""
    from diffusers import WanImageToVideoPipeline

    theirs = WanImageToVideoPipeline(**{name: part for name, part in pipe.components.items()})
    theirs.set_progress_bar_config(disable=True)
    arguments, times = call_args(pipe, args)
    arguments |= {"image": Image.fromarray(picture(args)), "height": args.height, "width": args.width}
    return measured(lambda: theirs(**arguments), times, args.device)


def measured(make: Callable[[], Any], times: list[float], device: str) -> Made:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    began = clock(device)
    video = make().frames[0]
    whole = clock(device) - began
    peak = 0 if device == "cpu" else torch.cuda.max_memory_allocated(device)
    return Made(video, float(np.diff(times).mean()), whole, peak)


@torch.no_grad()
def vae_s(pipe: Any, args: argparse.Namespace) -> float:
    """Return the seconds for encoding the condition of one reference and decoding a video."""
    shown = references.as_tensor(picture(args)[None])
    began = clock(args.device)
    given = references.condition(pipe.vae, shown, args.frames)
    pipe.vae.decode(given[:, references.STRIDE :].to(pipe.vae.device, pipe.vae.dtype), return_dict=False)
    return clock(args.device) - began


def clock(device: str) -> float:
    """Return processor time on a CPU; on a GPU, wall time after synchronisation. In seconds."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def psnr(video: np.ndarray, exact: np.ndarray) -> float:
    """Return the PSNR in dB; infinite for identical videos."""
    error = float(np.square(video - exact).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


if __name__ == "__main__":
    main()
