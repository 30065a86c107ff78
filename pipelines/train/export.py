"""Export to diffusers' layout: transformer/ vae/ text_encoder/ tokenizer/ image_encoder/ scheduler/ and model_index.json.

`DiffusionPipeline.from_pretrained` and `WanImageToVideoPipeline.from_pretrained` of stock diffusers load the folder. An
export of the preset tiny names its own autoencoder, which stock diffusers refuses, instead of filling one of Wan's class with
random weights.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from model_zoo.a2 import checkpoint, pipeline, transformer
from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2.encoders import PARTS


def export(
    network: Any, start: Path, folder: Path, is_main: bool, lora: bool = False, sampling: dict[str, Any] | None = None
) -> None:
    """Write the folder atomically. Parts that are not trained are hard-linked from the folder that training started from.

    sampling: settings of `a2data sample` that the network was trained with, written to sampling.json. LoRA adapters are
    written to lora/ and merged into the weights. A collective: all processes must call it; the main process writes.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state: dict[str, Any] = get_model_state_dict(network, options=options)
    if not is_main:
        return
    # the frozen weights as they were, not as rounded for training
    state = transformer.load_transformer(start, torch.float32).state_dict() | state
    scratch = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    network_class = transformer.network_class(a2_conditioning.of(network))
    with torch.device("meta"):
        plain = network_class.from_config(network.config)
    if lora:
        with torch.device("meta"):
            adapted = network_class.from_config(network.config)
            adapted.add_adapter(network.peft_config["default"])
        # the parameters of `network` may be sharded
        adapters = {name: tensor for name, tensor in state.items() if ".lora_" in name}
        adapted.load_state_dict(adapters, strict=False, assign=True)
        adapted.save_lora_adapter(scratch / "lora")
        state = merge_lora(network, state)
    plain.load_state_dict(state, assign=True)
    plain.save_pretrained(scratch / "transformer")
    for part in PARTS:
        if not (start / part).is_dir():  # the image encoder, which only A2 has
            continue
        shutil.copytree(start / part, scratch / part, copy_function=link)
    pipeline.scheduler().save_pretrained(scratch / "scheduler")
    (scratch / "model_index.json").write_text(json.dumps(model_index(scratch), indent=1, sort_keys=True))
    if sampling:
        (scratch / checkpoint.SAMPLING).write_text(json.dumps(sampling, indent=1, sort_keys=True))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def model_index(folder: Path) -> dict[str, Any]:
    """Return diffusers' model_index.json for the parts in a folder: the library and the class of each."""
    import diffusers
    import transformers

    from model_zoo.a2.tiny import PatchAutoencoder

    def declared(file: str, key: str) -> Any:
        return json.loads((folder / file).read_text()).get(key)

    vae = declared("vae/config.json", "_class_name")
    tokenizer = declared("tokenizer/tokenizer_config.json", "tokenizer_class")
    if not hasattr(transformers, tokenizer or ""):  # a class of another version of transformers
        tokenizer = "PreTrainedTokenizerFast"
    kind = checkpoint.conditioning(folder)
    image = {}
    if kind == "a2":
        image["image_encoder"] = ["transformers", declared("image_encoder/config.json", "architectures")[0]]
        image["image_processor"] = ["transformers", "CLIPImageProcessor"]
    pipelines = {"a2": "WanImageToVideoPipeline", "appended": "WanPipeline", "vace": "WanVACEPipeline"}
    return image | {
        "_class_name": pipelines[kind],
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", declared("scheduler/scheduler_config.json", "_class_name")],
        "text_encoder": ["transformers", declared("text_encoder/config.json", "architectures")[0]],
        "tokenizer": ["transformers", tokenizer],
        "transformer": ["diffusers", declared("transformer/config.json", "_class_name")],
        "vae": [PatchAutoencoder.__module__ if vae == PatchAutoencoder.__name__ else "diffusers", vae],
    }


def merge_lora(network: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
