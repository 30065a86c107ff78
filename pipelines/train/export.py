"""Export to diffusers' layout: transformer/ vae/ text_encoder/ tokenizer/ image_encoder/ scheduler/."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from model_zoo.a2 import pipeline
from model_zoo.a2.encoders import PARTS


def export(network: Any, begin: Path, folder: Path, chief: bool, lora: bool = False) -> None:
    """Write the folder atomically. Parts that are not trained are hard-linked from the folder that training started from.

    LoRA adapters are written to lora/ and merged into the weights. A collective: all processes must call it; the chief writes.
    """
    from diffusers import WanTransformer3DModel

    state: dict[str, Any] = get_model_state_dict(
        network, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if not chief:
        return
    scratch = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    with torch.device("meta"):
        plain = WanTransformer3DModel.from_config(network.config)
    if lora:
        network.save_lora_adapter(scratch / "lora")
        state = merged(network, state)
    plain.load_state_dict(state, assign=True)
    plain.save_pretrained(scratch / "transformer")
    for part in PARTS:
        shutil.copytree(begin / part, scratch / part, copy_function=link)
    pipeline.scheduler().save_pretrained(scratch / "scheduler")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def merged(network: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights with their LoRA adapters merged, under the names of a network without adapters."""
    from peft.tuners.lora import LoraLayer

    out = {name.replace(".base_layer", ""): t for name, t in state.items() if ".lora_" not in name}
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (state[f"{name}.lora_{side}.default.weight"] for side in "BA")
            out[f"{name}.weight"] = out[f"{name}.weight"] + layer.scaling["default"] * (up @ down)
    return out


def link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the file system does not support hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
