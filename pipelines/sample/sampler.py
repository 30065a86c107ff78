"""A loaded checkpoint that samples one job after another and returns their frames."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from a2data.media.pictures import crop_resize, read_picture
from pipelines.sample.acceleration import NO_ACCELERATION, Acceleration
from pipelines.sample.checkpoint import SKYREELS_V2, Checkpoint
from pipelines.sample.job import Job

MAX_EXTEND_BYTES = 4_000_000_000  # limit of a video to extend, held in memory as frames: 3,300 of 832 x 480


class Sampler:
    """A loaded checkpoint. Its videos do not depend on what it sampled before, and it does not write files."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str, accel: Acceleration = NO_ACCELERATION):

        import torch

        from model_zoo.a2 import acceleration, few_step, parallel, skyreels_v2
        from model_zoo.a2 import pipeline as a2

        a2.quiet()
        if accel.is_parallel():
            from pipelines import process_group

            device = str(process_group.init_distributed().device)
        self.groups = parallel.groups(accel.cfg_parallel, accel.context_parallel, device.partition(":")[0])
        self.checkpoint, self.accel, self.cache_steps = checkpoint, accel, -1
        try:
            if checkpoint.family == SKYREELS_V2:
                self.pipeline = skyreels_v2.load(checkpoint.root, device, getattr(torch, dtype))
                return
            quantised = acceleration.quantisation(accel.quantization)
            self.pipeline = a2.load(
                checkpoint.root,
                device,
                getattr(torch, dtype),
                quantization_config=quantised,
                group_offload=accel.group_offload,
            )
        # safetensors, transformers and diffusers each raise their own classes
        except Exception as error:
            raise ValueError(f"{checkpoint.root} cannot be loaded: {type(error).__name__}: {error}") from error
        self.pipeline.set_progress_bar_config(disable=True)
        if accel.lora:
            few_step.load_lora(self.pipeline.transformer, Path(accel.lora), accel.lora_scale)
        acceleration.apply(self.pipeline, self.groups, accel.attention_backend, accel.vae_tiling, accel.compile)

    def is_main(self) -> bool:
        """Return whether this process is the one that writes, of those that sample each video together."""
        return self.groups.is_main()

    def __call__(
        self, job: Job, references: Sequence[Any] | None = None, on_step: Callable[[], None] = lambda: None
    ) -> np.ndarray:
        """Return the frames of a job's video, (t, height, width, 3) uint8 RGB.

        references: pictures in memory (model_zoo.a2.references.Reference), in place of the job's files. on_step: called after
        each step. Raises ValueError for unreadable files, and if the network returns NaN or infinity.
        """
        import torch

        from model_zoo.a2 import pipeline as a2
        from model_zoo.a2.references import prepare

        inputs = read_references(job) if references is None else references
        self._enable_cache(job.steps)
        generator = torch.Generator().manual_seed(job.seed)  # on CPU: the same noise on every device
        self.pipeline.scheduler = a2.scheduler(job.scheduler, job.flow_shift, generator)
        settings: dict[str, Any] = {
            "negative_prompt": job.negative_prompt,
            "num_frames": job.frames,
            "num_inference_steps": job.steps,
            "guidance_scale": job.guidance_scale,
            "generator": generator,
        }
        prepared = prepare(inputs, job.height, job.width, self.checkpoint.conditioning) if inputs else None
        video = self._sample(job, prepared, settings, on_step)
        if not np.isfinite(video).all():
            raise ValueError("the network returned NaN or infinity; try --dtype float32")
        return (video * 255).round().astype(np.uint8)

    def calibrate(self, job: Job, on_step: Callable[[], None] = lambda: None) -> tuple[np.ndarray, list[float]]:
        """Return the frames of a job's video, as `__call__`, and the ratios for --cache mag measured while it was sampled."""
        from model_zoo.a2 import acceleration

        num_branches = 1 if job.guidance_scale <= 1 else 2 if job.reference_guidance_scale == 1 else 3
        with acceleration.MagCacheCalibration(self.pipeline.transformer, num_branches) as calibration:
            frames = self(job, on_step=on_step)
        return frames, calibration.ratios()

    def _enable_cache(self, steps: int) -> None:
        """Enable the cache of --cache; mag depends on the number of steps."""
        from model_zoo.a2 import acceleration

        accel, cache_steps = self.accel, steps if self.accel.cache == "mag" else 0
        if accel.cache and self.cache_steps != cache_steps:
            arguments = accel.cache_threshold, accel.cache_interval, accel.cache_ratios, steps
            acceleration.cache(self.pipeline.transformer, accel.cache, *arguments)
            self.cache_steps = cache_steps

    def _sample(self, job: Job, prepared: Any, settings: dict[str, Any], on_step: Callable[[], None]) -> np.ndarray:
        """Return the frames of a job's video, (f, height, width, 3), 0 to 1."""
        from model_zoo.a2 import long, skyreels_v2

        window_settings: dict[str, Any] = {"window": job.window, "history": job.history, "on_step": on_step}
        window_settings |= {"causal_block_size": job.causal_block_size, "ar_step": job.ar_step}
        if self.checkpoint.family == SKYREELS_V2:
            size: dict[str, Any] = {"height": job.height, "width": job.width, "fps": round(job.fps)}
            inputs: dict[str, Any] = {
                "first_frame": first_frame(job) if job.image else None,
                "init_video": context_frames(job) if job.init_video else None,
            }
            return skyreels_v2.sample(self.pipeline, job.prompt, **size, **inputs, **settings, **window_settings)
        if job.is_long():
            window_settings["reference_guidance"] = job.reference_guidance_scale
            prompts, context = [job.prompt, *job.next_prompt], context_frames(job) if job.init_video else None
            return long.sample(self.pipeline, prepared, prompts, context, **settings, **window_settings)

        def on_step_end(_pipeline: Any, _step: int, _time: Any, tensors: dict) -> dict:
            on_step()
            return tensors

        options = {
            "output_type": "np",
            "callback_on_step_end": on_step_end,
            "reference_guidance": job.reference_guidance_scale,
        }
        return self.pipeline(prepared, job.prompt, **settings, **options).frames[0]


def read_references(job: Job) -> list[Any]:
    """Return the references of a job, a model_zoo.a2.references.Reference each, read from its files."""
    from model_zoo.a2.references import Reference

    return [Reference(role, read_picture(file)) for role, file in job.references()]


def context_frames(job: Job) -> np.ndarray:
    """Return the frames of the video to extend, (f, height, width, 3) uint8, centre-cropped to the job's aspect ratio."""
    from a2data.media import video

    stream = video.probe(job.init_video)
    frames: list[np.ndarray] = []
    for frame in video.read(job.init_video, stream.stream):
        if (len(frames) + 1) * job.height * job.width * 3 > MAX_EXTEND_BYTES:
            raise ValueError(
                f"{job.init_video} is too long to extend: after {len(frames)} frames it has {MAX_EXTEND_BYTES / 1e9:g} GB"
            )
        upright = np.rot90(frame.picture.to_ndarray(format="rgb24"), -stream.rotation // 90)
        resized = np.asarray(Image.fromarray(upright).resize((stream.width, stream.height)))
        frames.append(crop_resize(resized, job.height, job.width))
    return np.stack(frames)


def first_frame(job: Job) -> np.ndarray:
    """Return the first frame, (height, width, 3) uint8, centre-cropped to the job's aspect ratio."""
    return crop_resize(read_picture(job.image), job.height, job.width)
