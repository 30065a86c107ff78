"""A trained network as a folder in diffusers' layout: transformer/ vae/ text_encoder/ tokenizer/ image_encoder/ scheduler/."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from model_zoo.a2 import pipeline
from model_zoo.a2.encoders import PARTS


def export(network: Any, begin: Path, folder: Path, chief: bool, lora: bool = False) -> None:
    """Write the folder, whole or not at all. What was not trained is linked from the folder that training began with.

    Adapters are written to lora/ and added to the weights. To be called by all processes; one writes.
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
    """The weights with their adapters added, under the names of a network that has none."""
    from peft.tuners.lora import LoraLayer

    out = {name.replace(".base_layer", ""): t for name, t in state.items() if ".lora_" not in name}
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (state[f"{name}.lora_{side}.default.weight"] for side in "BA")
            out[f"{name}.weight"] = out[f"{name}.weight"] + layer.scaling["default"] * (up @ down)
    return out


def link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
