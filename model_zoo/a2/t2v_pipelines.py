"""Sampling with the conditionings on text-to-video networks, "appended" and "vace"; see model_zoo.a2.conditioning.

The denoising loops are those of diffusers' WanPipeline and WanVACEPipeline. `num_frames` counts frames of the video alone.
"""

from typing import Any

import torch
from diffusers import WanPipeline, WanVACEPipeline
from diffusers.hooks import HookRegistry, ModelHook
from PIL import Image

from model_zoo.a2 import conditioning, guidance
from model_zoo.a2 import references as a2_references
from model_zoo.a2.parallel import ParallelGroups
from model_zoo.a2.references import STRIDE, Prepared

HOOK = "a2_appended_references"


class AppendedHook(ModelHook):
    """Hook that appends the references' latents, (1, 16, n, h, w), to a transformer's input and drops their prediction."""

    def __init__(self, latents: torch.Tensor):
        super().__init__()
        self.latents = latents

    def new_forward(self, module: Any, use_references: bool = True, **inputs: Any) -> tuple[torch.Tensor]:
        noised = inputs.pop("hidden_states")
        reference_latents = (self.latents if use_references else torch.zeros_like(self.latents)).to(noised)
        inputs |= conditioning.network_inputs("appended", noised, reference_latents.expand(len(noised), -1, -1, -1, -1))
        return (conditioning.video_part("appended", self.fn_ref.original_forward(**inputs)[0], noised.shape[2]),)


class AppendedPipeline(WanPipeline):
    """Pipeline from references and a prompt to a video, with the references as clean latent frames after those of the video."""

    reference_slots = 0  # see model_zoo.a2.conditioning.reference_latents
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
        """Sample a video, (1, num_frames, height, width, 3) with `output_type="np"`. Arguments as model_zoo.a2.pipeline's.

        Without references their latents are zeros, in training as here.
        """
        height, width = references.frames.shape[1:3]
        guidance.check(reference_guidance, guidance_scale)
        a2_references.check_size(height, width, num_frames, 0)
        prompt_embeds = guidance.encode_prompts(self, prompt, guidance_scale > 1, settings)
        latents = conditioning.reference_latents(self.vae, references, self.reference_slots)[None]
        registry = HookRegistry.check_if_exists_or_initialize(self.transformer)
        # beneath the guidance, which calls it once for each branch
        registry.register_hook(AppendedHook(latents), HOOK)
        drop = None if reference_guidance == 1 else lambda inputs: inputs | {"use_references": False}
        scales = reference_guidance, guidance_scale
        size = {"height": height, "width": width, "num_frames": num_frames}
        try:
            with guidance.batched_cfg(
                self.transformer, *scales, prompt_embeds["negative_prompt_embeds"], drop, self.groups.cfg
            ):
                return super().__call__(guidance_scale=guidance_scale, **prompt_embeds, **size, **settings)
        finally:
            registry.remove_hook(HOOK, recurse=False)


class VacePipeline(WanVACEPipeline):
    """Pipeline from references and a prompt to a video, on VACE, whose control comes from model_zoo.a2.conditioning."""

    reference_slots = 0
    groups: ParallelGroups = ParallelGroups()

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
        """Sample a video, (1, num_frames, height, width, 3) with `output_type="np"`. Arguments as model_zoo.a2.pipeline's.

        With output_type "latent" the latents start with the references' frames.
        """
        height, width = references.frames.shape[1:3]
        guidance.check(reference_guidance, guidance_scale)
        a2_references.check_size(height, width, num_frames, 0)
        prompt_embeds = guidance.encode_prompts(self, prompt, guidance_scale > 1, settings)
        latents = conditioning.reference_latents(self.vae, references, self.reference_slots)
        grey = a2_references.no_references(self.vae, num_frames, height, width)[0, STRIDE:]
        self._control = conditioning.control(latents, grey.to(latents))[None]
        null_control = conditioning.control(torch.zeros_like(latents), grey.to(latents))[None]

        def drop_references(inputs: dict[str, Any]) -> dict[str, Any]:
            return inputs | {"control_hidden_states": null_control.to(inputs["control_hidden_states"])}

        # diffusers only counts them: their latents are in the control
        pictures = [Image.new("RGB", (width, height))] * latents.shape[1]
        scales, drop = (reference_guidance, guidance_scale), None if reference_guidance == 1 else drop_references
        size = {"height": height, "width": width, "num_frames": num_frames}
        with guidance.batched_cfg(
            self.transformer, *scales, prompt_embeds["negative_prompt_embeds"], drop, self.groups.cfg
        ):
            return super().__call__(
                reference_images=pictures, guidance_scale=guidance_scale, **prompt_embeds, **size, **settings
            )

    def prepare_video_latents(self, *_: Any, **__: Any) -> torch.Tensor:
        """Return the latents of the control, in place of diffusers' own."""
        return self._control[:, : -conditioning.MASK_CHANNELS].to(self._execution_device)

    def prepare_masks(self, *_: Any, **__: Any) -> torch.Tensor:
        """Return the mask of the control, in place of diffusers' own."""
        return self._control[:, -conditioning.MASK_CHANNELS :].to(self._execution_device)
