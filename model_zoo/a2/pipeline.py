"""SkyReels-A2 (arXiv 2504.02436) on diffusers: Wan2.1's network and pipeline with reference conditions.

Transformer, VAE, encoders, scheduler and denoising loop are diffusers'. This module adds references in place of a first frame,
and loads checkpoints part by part (the released folder refers to classes that exist only in its authors' code).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
)
from diffusers.hooks import apply_group_offloading
from diffusers.utils.torch_utils import randn_tensor

from model_zoo.a2 import checkpoint, few_step, guidance
from model_zoo.a2 import references as a2_references
from model_zoo.a2.encoders import autoencoder
from model_zoo.a2.parallel import ParallelGroups
from model_zoo.a2.references import Prepared, check_size
from model_zoo.a2.transformer import load_transformer


class WanA2Pipeline(WanImageToVideoPipeline):
    """Pipeline from references and a prompt to a video. Takes one prompt per call; the references must leave video frames."""

    _squares: np.ndarray | None = None
    groups: ParallelGroups = ParallelGroups()  # processes that sample one video together

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        references: Prepared,
        prompt: str | None = None,
        *,
        num_frames: int = 81,
        guidance_scale: float = 5.0,
        reference_guidance: float = 1.0,
        **settings: Any,
    ) -> Any:
        """Sample a video: (1, num_frames - 4 n, height, width, 3) with `output_type="np"`, without the references' frames.

        references: see model_zoo.a2.references.prepare; they set the size of the video. settings: those of
        WanImageToVideoPipeline (prompt_embeds, negative_prompt, num_inference_steps, generator, output_type …). With output_type
        "latent" the latents include the references' frames. reference_guidance: see model_zoo.a2.guidance; 1 is as released.
        Raises ValueError for unsupported sizes, for several prompts, and for reference guidance without guidance on the prompt.
        """
        height, width = references.frames.shape[1:3]
        check_size(height, width, num_frames, len(references.frames))
        if isinstance(prompt, list):
            raise ValueError("several prompts in one call: pass one, since the references belong to one video")
        pictures = torch.from_numpy(references.frames.transpose(0, 3, 1, 2).copy()).float() / 255
        size = {"height": height, "width": width, "num_frames": num_frames}
        guidance.check(reference_guidance, guidance_scale)
        prompt_embeds = guidance.encode_prompts(self, prompt, guidance_scale > 1, settings)
        drop = None
        if reference_guidance != 1:
            null_condition = a2_references.no_references(self.vae, num_frames, height, width)
            drop = partial(guidance.without_references, condition=null_condition)
        scales = reference_guidance, guidance_scale
        self._squares = references.squares
        try:
            with guidance.batched_cfg(
                self.transformer, *scales, prompt_embeds["negative_prompt_embeds"], drop, self.groups.cfg
            ):
                output = super().__call__(
                    image=pictures, guidance_scale=guidance_scale, **prompt_embeds, **size, **settings
                )
        finally:
            self._squares = None
        if settings.get("output_type") != "latent":
            output.frames = output.frames[:, a2_references.head_frames(len(pictures)) :]
        return output

    def encode_image(self, image: Any, device: torch.device | None = None) -> torch.Tensor:
        """Return the image tokens of all references from their squares; `image`, at the video's size, is ignored."""
        assert self._squares is not None
        tokens = a2_references.image_tokens(self.image_encoder, self.image_processor, self._squares)
        return tokens.to(device or self._execution_device)

    def prepare_latents(  # type: ignore[override]
        self,
        image: torch.Tensor,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        num_frames: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        last_image: None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return noise and condition. Noise is drawn before the VAE's posterior, as in the released sampler, so seeds match."""
        time, space = self.vae_scale_factor_temporal, self.vae_scale_factor_spatial
        shape = (batch_size, num_channels_latents, (num_frames - 1) // time + 1, height // space, width // space)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        condition = a2_references.condition(self.vae, image, num_frames, generator)
        return latents.to(device, dtype), condition.to(device, dtype).expand(batch_size, -1, -1, -1, -1)


class ReleasedUniPC(UniPCMultistepScheduler):
    """UniPC with the noise levels of diffusers up to 0.36, with which A2 was released: 0.999 to 0, without the end point."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **_: Any) -> None:
        super().set_timesteps(device=device, sigmas=np.linspace(0.999, 0, num_inference_steps + 1)[:-1])


def scheduler(name: str = "unipc", flow_shift: float = 8.0, generator: torch.Generator | None = None) -> Any:
    """The sampler's schedule: "unipc" (Zhao et al. 2023, arXiv 2302.04867), "unipc-released" on A2's own grid, or "euler".

    flow_shift: higher values spend more steps at high noise; the paper compares 1, 3, 5, 8, 12 and uses 8. The names of
    model_zoo.a2.few_step.LEVELS are schedules of their own, which draw noise from `generator`.
    """
    if name in few_step.LEVELS:
        return few_step.scheduler(name, generator)
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=flow_shift)
    kinds = {"unipc": UniPCMultistepScheduler, "unipc-released": ReleasedUniPC}
    if name not in kinds:
        raise ValueError(
            f"unknown scheduler {name!r}: choose unipc, unipc-released, euler, {', '.join(few_step.LEVELS)}"
        )
    return kinds[name](prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)


def quiet() -> None:
    """Silence progress bars and non-actionable warnings of diffusers, transformers and torch."""
    import warnings

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # saving from one process is intended


def load(
    folder: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    schedule: Any = None,
    quantization_config: Any = None,
    group_offload: bool = False,
) -> Any:
    """Return the pipeline of a checkpoint folder: that of A2, or one of model_zoo.a2.t2v_pipelines, according to its transformer.

    The transformer and the text encoder use `dtype`, the VAE and the image encoder float32, as released. quantization_config: of
    diffusers, for the transformer. With `group_offload`, weights stay in CPU memory and move to the device block by block
    when used; the device never holds all of them. Nothing is downloaded. Raises FileNotFoundError and ValueError like
    model_zoo.a2.checkpoint.check, before a network is loaded.
    """
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

    from model_zoo.a2 import t2v_pipelines

    root = checkpoint.check(folder)
    load_kwargs: dict[str, Any] = {"local_files_only": True}
    parts: dict[str, Any] = {
        "tokenizer": AutoTokenizer.from_pretrained(root / "tokenizer", **load_kwargs),
        "text_encoder": UMT5EncoderModel.from_pretrained(root / "text_encoder", torch_dtype=dtype, **load_kwargs),
        "transformer": load_transformer(root, dtype, quantization_config),
        "vae": autoencoder(root / "vae"),
        "scheduler": schedule or scheduler(),
    }
    kind = checkpoint.conditioning(root)
    if kind == "a2":
        parts["image_encoder"] = CLIPVisionModel.from_pretrained(
            root / "image_encoder", torch_dtype=torch.float32, **load_kwargs
        )
        parts["image_processor"] = CLIPImageProcessor.from_pretrained(root / "image_processor", **load_kwargs)
        pipe: Any = WanA2Pipeline(**parts)
    else:
        pipe = {"appended": t2v_pipelines.AppendedPipeline, "vace": t2v_pipelines.VacePipeline}[kind](**parts)
        pipe.reference_slots = checkpoint.sampling(root).get("reference_slots", 0)
    return offload(pipe, torch.device(device)) if group_offload else pipe.to(device)


def offload(pipe: Any, device: torch.device) -> Any:
    """Keep weights in CPU memory and move them to a device block by block when used.

    diffusers' own call for pipelines searches only a network's direct children for blocks, and those of the encoders are deeper:
    all 11 GB of the text encoder would be moved at once.
    """
    # the VAE has 0.5 GB and is called per frame: moving it each time would take longer than the call
    pipe.vae.to(device)
    for part in (pipe.transformer, pipe.text_encoder, getattr(pipe, "image_encoder", None)):
        if part is not None:
            apply_group_offloading(
                part,
                onload_device=device,
                offload_type="block_level",
                num_blocks_per_group=1,
                use_stream=device.type == "cuda",
                block_modules=["encoder", "vision_model"],  # the modules that hold the layers of UMT5 and CLIP
            )
    return pipe
