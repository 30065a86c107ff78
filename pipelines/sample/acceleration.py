"""Flags of `a2data sample` that make it faster or smaller, and all that can be wrong with them, said before anything loads."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from a2data.store.folder import Folder
from pipelines.sample.job import Job

CACHES = ("first-block", "taylorseer", "mag")
WEIGHTS = ("int8", "fp8")
RATIOS = "mag_ratios.json"  # in a checkpoint's folder: what --calibrate measured for --cache mag


@dataclass(frozen=True)
class Acceleration:
    """How to sample; the defaults are exact, on one device, with everything on it."""

    cache: str = ""  # one of CACHES
    cache_threshold: float = 0.05  # of first-block and mag
    cache_interval: int = 3  # of taylorseer, steps
    cache_ratios: tuple[float, ...] = ()  # of mag, from the checkpoint's folder
    calibrate: bool = False  # measure them: the video is exact
    attention_backend: str = ""  # a backend of diffusers
    quantization: str = ""  # one of WEIGHTS
    compile: bool = False
    group_offload: bool = False
    vae_tiling: bool = False
    cfg_parallel: int = 1  # processes that share the looks of a step
    context_parallel: int = 1  # processes that share the tokens of a look

    def ranks(self) -> bool:
        """Whether several processes sample each video."""
        return self.cfg_parallel * self.context_parallel > 1

    def drift(self) -> dict[str, Any]:
        """The settings that change the video beyond rounding, and are not their defaults: they belong to its record."""
        used = {"cache": bool(self.cache), "quantization": bool(self.quantization), "vae_tiling": self.vae_tiling}
        used |= {"cache_threshold": self.cache in ("first-block", "mag"), "cache_interval": self.cache == "taylorseer"}
        used |= {"cache_ratios": self.cache == "mag"}
        return {name: getattr(self, name) for name, counts in used.items() if counts}


NO_ACCELERATION = Acceleration()


def with_ratios(how: Acceleration, root: Path, digest: str) -> Acceleration:
    """The same with what a calibration of this checkpoint found, where --cache mag needs it. Raises ValueError where none is."""
    if how.cache != "mag":
        return how
    try:
        said = json.loads((root / RATIOS).read_text())
        ratios = tuple(float(ratio) for ratio in said["ratios"])
    except FileNotFoundError:
        raise ValueError(
            f"--cache mag: {root} has no {RATIOS}; sample one video of it with --calibrate, which measures them"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--cache mag: {root / RATIOS} cannot be read ({error}); measure again with --calibrate"
        ) from error
    if said.get("checkpoint") != digest:
        raise ValueError(f"--cache mag: {root / RATIOS} was measured on other weights; measure again with --calibrate")
    return replace(how, cache_ratios=ratios)


def leave_ratios(root: Path, ratios: Sequence[float], record: dict[str, Any]) -> Path:
    """Write what a calibration found into the checkpoint's folder, with the checkpoint's digest and the settings of its video."""
    said = {"checkpoint": record["checkpoint"]["digest"], "ratios": list(ratios), "settings": record["settings"]}
    Folder(str(root)).put(json.dumps(said, indent=1).encode(), RATIOS)
    return root / RATIOS


def check(how: Acceleration, device: str, dtype: str, root: Path, jobs: Sequence[Job], on_ray: bool) -> None:
    """Raises ValueError with a sentence for what cannot be, here, with this checkpoint or for these jobs. Loads no network."""
    from model_zoo.a2 import acceleration, skyreels_v2

    gpu = device.startswith("cuda")
    if skyreels_v2.is_checkpoint(root) and how != NO_ACCELERATION:
        raise ValueError(
            "a checkpoint of SkyReels-V2 is sampled by diffusers' pipeline as it is: leave out the flags for faster"
        )
    if how.cache_threshold <= 0 or how.cache_interval < 2:
        raise ValueError("--cache-threshold must be above 0, and --cache-interval 2 at least")
    if how.group_offload and not gpu:
        raise ValueError(
            "--group-offload moves weights between memory and a GPU, and this samples on the CPU: leave it out"
        )
    if how.quantization == "fp8" and not gpu:
        raise ValueError(
            "--quantization fp8 needs a GPU that computes in 8 bits, and this samples on the CPU: leave it out"
        )
    if how.group_offload and how.compile:
        raise ValueError("--group-offload moves what --compile compiled: leave out one of them")
    _check_mag(how, jobs, on_ray)
    acceleration.quantisation(how.quantization)
    if how.attention_backend:
        acceleration.check_attention(how.attention_backend, "cuda" if gpu else device, how.context_parallel)
    if how.vae_tiling:
        acceleration.check_tiles(root)
    blocks = _transformer(root).get("num_layers", 40)
    if how.cache == "first-block" and blocks < 2:
        raise ValueError(
            f"--cache first-block: the transformer has {blocks} block, and this cache skips those behind the first"
        )
    if how.ranks() or "WORLD_SIZE" in os.environ:
        _check_ranks(how, root, jobs, on_ray)


def _check_mag(how: Acceleration, jobs: Sequence[Job], on_ray: bool) -> None:
    if how.cache == "mag" and any(job.is_long() and job.ar_step for job in jobs):
        raise ValueError(
            "--cache mag counts the steps of a window, and with --ar-step there are more: leave out one of them"
        )
    if not how.calibrate:
        return
    if how.cache or how.ranks() or on_ray or how.compile:
        raise ValueError(
            "--calibrate samples exactly, in one process: leave out --cache, --compile, --ray, --cfg-parallel and "
            "--context-parallel"
        )
    if len(jobs) != 1 or jobs[0].is_long():
        raise ValueError(
            "--calibrate takes one video, of one window: one --prompt, without --sweep, --window and --init-video"
        )


def _check_ranks(how: Acceleration, root: Path, jobs: Sequence[Job], on_ray: bool) -> None:
    from model_zoo.a2.parallel import check_tokens

    if on_ray:
        raise ValueError("--ray gives each job to one process: leave it out, or --cfg-parallel and --context-parallel")
    if min(how.cfg_parallel, how.context_parallel) < 1:
        raise ValueError("--cfg-parallel and --context-parallel are numbers from 1 up")
    want, count = how.cfg_parallel * how.context_parallel, int(os.environ.get("WORLD_SIZE", "1"))
    if want != count:
        raise ValueError(
            f"--cfg-parallel {how.cfg_parallel} x --context-parallel {how.context_parallel} is not the number of processes, "
            f"{count}: torchrun --nproc-per-node {want} -m pipelines.cli sample ..."
        )
    if how.context_parallel > 1 and how.cache == "first-block":
        raise ValueError(
            "--cache first-block: processes with other tokens would decide otherwise; take taylorseer with --context-parallel"
        )
    heads = _transformer(root)["num_attention_heads"]
    for job in jobs:
        looks = 1 if job.guidance_scale <= 1 else 2 if job.reference_guidance_scale == 1 else 3
        if how.cfg_parallel > looks:
            raise ValueError(f"--cfg-parallel {how.cfg_parallel}: a step of {job.out} has {looks} looks to share")
        for frames in job.lengths():
            check_tokens(job.height, job.width, frames, heads, how.context_parallel)


def _transformer(root: Path) -> dict[str, Any]:
    return json.loads((root / "transformer" / "config.json").read_text())
