"""Step-distilled networks: LoRA weights for any network of Wan, and the schedules they were distilled for, without guidance.

All three predict the clean video and add fresh noise of the next level, for fixed levels (Yin et al. 2024, arXiv 2405.14867).
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchLCMScheduler
from safetensors.torch import load_file

# noise levels by method: those of its authors' configuration, after their shift
LEVELS: dict[str, tuple[float, ...]] = {
    "lightx2v": tuple(5 * s / (1 + 4 * s) for s in (1.0, 0.75, 0.5, 0.25)),
    "causvid": (0.999, 0.934, 0.862, 0.756, 0.603, 0.41, 0.25, 0.14, 0.074),
    "fastwan": (1.0, 0.757, 0.522),
}


class FewStepScheduler(FlowMatchLCMScheduler):
    """The schedule of a method of LEVELS, whose noise comes from `noise_generator`: the same on every device, by the seed."""

    levels: tuple[float, ...] = ()
    noise_generator: torch.Generator | None = None

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **_: Any) -> None:
        super().set_timesteps(device=device, sigmas=list(self.levels))

    def step(self, model_output: Any, timestep: Any, sample: Any, generator: Any = None, **kwargs: Any) -> Any:
        return super().step(model_output, timestep, sample, generator=self.noise_generator, **kwargs)


def scheduler(name: str, generator: torch.Generator | None = None) -> FewStepScheduler:
    """Return the scheduler of a method of LEVELS."""
    few_step = FewStepScheduler(shift=1.0)
    few_step.levels, few_step.noise_generator = LEVELS[name], generator
    return few_step


def load_lora(transformer: Any, path: Path, scale: float = 1.0) -> int:
    """Add the LoRA weights of a .safetensors file to a transformer and return the number of layers that they change.

    Takes the names of Wan's authors, as LightX2V and CausVid publish them, and those of diffusers and of our exports. Raises
    ValueError for weights that are not those of a LoRA, or of another network.
    """
    state = diffusers_names(load_file(path), path)
    modules = dict(transformer.named_modules())
    layers = sorted({name.partition(".lora_")[0] for name in state if ".lora_" in name})
    if not layers:
        raise ValueError(f"{path} does not hold LoRA weights: its names lack lora_A and lora_B")
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(
            f"{path} is a LoRA for another network: this one lacks {len(unknown)} layers, such as {unknown[0]}"
        )
    for name in layers:
        down, up = state.get(f"{name}.lora_A.weight"), state.get(f"{name}.lora_B.weight")
        shape = tuple(modules[name].weight.shape)
        if down is None or up is None or (len(up), down.shape[1]) != shape:
            sizes = "half of a pair" if down is None or up is None else f"{len(up)} x {down.shape[1]}"
            raise ValueError(
                f"{path} is a LoRA for another network: {name} is {shape[0]} x {shape[1]}, its weights are {sizes}"
            )
    lora = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    transformer.load_lora_adapter(lora, prefix=None, adapter_name="few_step")
    transformer.set_adapters(["few_step"], [scale])
    return len(layers)


def diffusers_names(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Return LoRA weights under the names of diffusers' transformer."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    if any(name.startswith(("diffusion_model.", "blocks.")) and ".self_attn." in name for name in state):
        try:
            wrapped = {f"diffusion_model.{name.removeprefix('diffusion_model.')}": t for name, t in state.items()}
            state = _convert_non_diffusers_wan_lora_to_diffusers(wrapped)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} has names that are not those of a LoRA for Wan: {error}") from error
    return {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
