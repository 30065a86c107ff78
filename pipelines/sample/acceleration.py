"""Flags of `a2data sample` that reduce time or memory, and their validation before anything is loaded."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from a2data.store.folder import Folder, file_sha256
from pipelines.sample.checkpoint import SKYREELS_V2, Checkpoint
from pipelines.sample.job import Job

Cache = Literal["", "first-block", "taylorseer", "mag"]
Quantization = Literal["", "int8", "fp8"]
CACHES, WEIGHTS = get_args(Cache)[1:], get_args(Quantization)[1:]
RATIOS_FILE = "mag_ratios.json"  # in the checkpoint folder: ratios measured by --calibrate for --cache mag


@dataclass(frozen=True)
class Acceleration:
    """Acceleration settings. The defaults are exact, with the whole model on one device."""

    cache: Cache = ""
    """step cache that reuses results of earlier steps; not exact (default: none)"""
    cache_threshold: float = 0.05
    """threshold of the caches first-block and mag, above 0"""
    cache_interval: int = 3
    """interval of the cache taylorseer, at least 2: one step in so many is computed"""
    cache_ratios: tuple[float, ...] = ()
    """ratios of the cache mag, from the checkpoint folder"""
    calibrate: bool = False
    """sample one video exactly and write the ratios for --cache mag into the checkpoint folder (mag_ratios.json)"""
    attention_backend: str = ""
    """attention backend of diffusers: native, sage, _flash_3_hub ... (default: that of diffusers)"""
    quantization: Quantization = ""
    """8-bit quantization of the transformer's weights by torchao, also on a CPU; not exact (default: none)"""
    lora: str = ""
    """LoRA weights for the transformer (.safetensors), such as those of a step-distilled one (see --scheduler)"""
    lora_scale: float = 1.0
    """scale of the LoRA weights"""
    compile: bool = False
    """compile the transformer's blocks; takes a minute before the first step"""
    group_offload: bool = False
    """load weights to the GPU block by block, for GPUs smaller than the model"""
    vae_tiling: bool = False
    """encode and decode in tiles of 256 px; less memory, not exact"""
    cfg_parallel: int = 1
    """number of processes that split the 2 CFG branches of a step, requires torchrun"""
    context_parallel: int = 1
    """number of processes that split the tokens of a CFG branch, requires torchrun"""

    def is_parallel(self) -> bool:
        """Return whether several processes sample each video."""
        return self.cfg_parallel * self.context_parallel > 1

    def inexact_settings(self) -> dict[str, Any]:
        """Return the non-default settings that change the video beyond rounding; they belong to its record."""
        used = {"cache": bool(self.cache), "quantization": bool(self.quantization), "vae_tiling": self.vae_tiling}
        used |= {"cache_threshold": self.cache in ("first-block", "mag"), "cache_interval": self.cache == "taylorseer"}
        used |= {"cache_ratios": self.cache == "mag"}
        values = {name: getattr(self, name) for name, is_used in used.items() if is_used}
        if self.lora:
            values |= {"lora": file_sha256(self.lora), "lora_scale": self.lora_scale}
        return values


NO_ACCELERATION = Acceleration()


def with_ratios(accel: Acceleration, checkpoint: Checkpoint) -> Acceleration:
    """Return the settings with this checkpoint's calibrated ratios if --cache mag needs them.

    Raises ValueError if the ratios are missing, unreadable or measured on other weights.
    """
    if accel.cache != "mag":
        return accel
    root = checkpoint.root
    try:
        content = json.loads((root / RATIOS_FILE).read_text())
        ratios = tuple(float(ratio) for ratio in content["ratios"])
    except FileNotFoundError:
        raise ValueError(
            f"--cache mag: {root} has no {RATIOS_FILE}; sample one video with --calibrate to write it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--cache mag: {root / RATIOS_FILE} cannot be read ({error}); measure again with --calibrate"
        ) from error
    if content.get("checkpoint") != checkpoint.digest:
        raise ValueError(
            f"--cache mag: {root / RATIOS_FILE} was measured on other weights; measure again with --calibrate"
        )
    return replace(accel, cache_ratios=ratios)


def write_ratios(root: Path, ratios: Sequence[float], record: dict[str, Any]) -> Path:
    """Write the calibrated ratios to the checkpoint folder, with its digest and the video's settings. Returns the path."""
    content = {"checkpoint": record["checkpoint"]["digest"], "ratios": list(ratios), "settings": record["settings"]}
    Folder(str(root)).put(json.dumps(content, indent=1).encode(), RATIOS_FILE)
    return root / RATIOS_FILE


def check(accel: Acceleration, device: str, checkpoint: Checkpoint, jobs: Sequence[Job], on_ray: bool) -> None:
    """Raise ValueError for settings that this machine, checkpoint or list of jobs does not support. Does not load a network."""
    from model_zoo.a2 import acceleration

    gpu = device.startswith("cuda")
    if checkpoint.family == SKYREELS_V2 and accel != NO_ACCELERATION:
        raise ValueError(
            "SkyReels-V2 checkpoints are sampled by diffusers' own pipeline: remove the acceleration flags"
        )
    if accel.cache_threshold <= 0 or accel.cache_interval < 2:
        raise ValueError("--cache-threshold must be above 0, and --cache-interval at least 2")
    if accel.group_offload and not gpu:
        raise ValueError("--group-offload moves weights between memory and a GPU, but the device is the CPU: remove it")
    if accel.lora and not (accel.lora.endswith(".safetensors") and os.path.isfile(accel.lora)):
        raise ValueError(f"--lora {accel.lora}: it must be a .safetensors file")
    if accel.group_offload and accel.compile:
        raise ValueError("--group-offload cannot be combined with --compile: remove one of them")
    _check_mag(accel, jobs, on_ray)
    acceleration.quantisation(accel.quantization)
    if accel.attention_backend:
        acceleration.check_attention(accel.attention_backend, "cuda" if gpu else device, accel.context_parallel)
    if accel.vae_tiling:
        acceleration.check_tiles(checkpoint.root)
    blocks = checkpoint.transformer.get("num_layers", 40)
    if accel.cache == "first-block" and blocks < 2:
        raise ValueError(
            f"--cache first-block skips the blocks after the first, but the transformer has only {blocks} block"
        )
    if accel.is_parallel() or "WORLD_SIZE" in os.environ:
        _check_parallel(accel, checkpoint, jobs, on_ray)


def _check_mag(accel: Acceleration, jobs: Sequence[Job], on_ray: bool) -> None:
    if accel.cache == "mag" and any(job.is_long() and job.ar_step for job in jobs):
        raise ValueError("--cache mag counts the steps of a window, and --ar-step adds steps: remove one of them")
    if not accel.calibrate:
        return
    if accel.cache or accel.is_parallel() or on_ray or accel.compile:
        raise ValueError(
            "--calibrate samples exactly, in one process: remove --cache, --compile, --ray, --cfg-parallel and "
            "--context-parallel"
        )
    if len(jobs) != 1 or jobs[0].is_long():
        raise ValueError(
            "--calibrate takes one video with one window: use one --prompt, without --sweep, --window or --init-video"
        )


def _check_parallel(accel: Acceleration, checkpoint: Checkpoint, jobs: Sequence[Job], on_ray: bool) -> None:
    from model_zoo.a2.parallel import check_tokens

    if on_ray:
        raise ValueError("--ray runs each job in one process: remove it, or --cfg-parallel and --context-parallel")
    if min(accel.cfg_parallel, accel.context_parallel) < 1:
        raise ValueError("--cfg-parallel and --context-parallel must be at least 1")
    expected, count = accel.cfg_parallel * accel.context_parallel, int(os.environ.get("WORLD_SIZE", "1"))
    if expected != count:
        raise ValueError(
            f"--cfg-parallel {accel.cfg_parallel} x --context-parallel {accel.context_parallel} is not the number of processes, "
            f"{count}: torchrun --nproc-per-node {expected} $(which a2data) sample ..."
        )
    if accel.context_parallel > 1 and accel.cache == "first-block":
        raise ValueError(
            "--cache first-block would decide differently on processes with different tokens: use --cache taylorseer with "
            "--context-parallel"
        )
    heads = checkpoint.transformer["num_attention_heads"]
    for job in jobs:
        branches = 1 if job.guidance_scale <= 1 else 2 if job.reference_guidance_scale == 1 else 3
        if accel.cfg_parallel > branches:
            raise ValueError(
                f"--cfg-parallel {accel.cfg_parallel}: a step of {job.out} has {branches} CFG branches to split"
            )
        reference_frames = (
            0 if checkpoint.conditioning in ("", "a2") else 4 * max(len(job.ref), checkpoint.reference_slots)
        )
        for frames in (length + reference_frames for length in job.pass_lengths()):
            check_tokens(job.height, job.width, frames, heads, accel.context_parallel)
