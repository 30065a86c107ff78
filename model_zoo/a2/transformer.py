"""The transformers of the conditionings, loaded from a checkpoint folder; see model_zoo.a2.conditioning."""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import load_file

from model_zoo.a2 import checkpoint


def network_class(kind: str) -> Any:
    """Return diffusers' class of a transformer with this conditioning."""
    return WanVACETransformer3DModel if kind == "vace" else WanTransformer3DModel


def load_transformer(folder: Path, dtype: torch.dtype, quantization_config: Any = None) -> Any:
    """Return the transformer of a checkpoint folder: diffusers' files, or one file with the names of Wan's authors.

    The second is how Phantom (.pth) and RefAlign (.safetensors) publish theirs; the folder's config.json states its sizes. Raises
    ValueError for weights that do not fit it.
    """
    part = folder / "transformer"
    model_class = network_class(checkpoint.conditioning(folder))
    files = [path for path in part.iterdir() if path.suffix in checkpoint.WEIGHTS]
    if len(files) != 1 or files[0].name.startswith("diffusion_pytorch_model"):
        try:
            network, loading_info = model_class.from_pretrained(
                part,
                torch_dtype=dtype,
                quantization_config=quantization_config,
                local_files_only=True,
                output_loading_info=True,
            )
        except ValueError as error:
            if "expected shape" not in str(error):
                raise
            reason = str(error).partition(" because ")[2].partition(". If ")[0]
            raise ValueError(f"the weights in {part} do not fit its config.json: {reason}") from error
        for verb, names in (("lack", loading_info["missing_keys"]), ("also have", loading_info["unexpected_keys"])):
            if names:
                raise ValueError(
                    f"the weights in {part} do not fit its config.json: they {verb} {len(names)}, such as {min(names)}"
                )
        return network
    if quantization_config is not None:
        raise ValueError(
            f"{files[0]} has the names of Wan's authors, which are not quantised when loaded: export it first"
        )
    network = model_class.from_config(model_class.load_config(part))
    state = to_diffusers_names(read_weights(files[0]), set(network.state_dict()))
    missing = sorted(set(network.state_dict()) - set(state))
    if missing:
        raise ValueError(f"{files[0]} lacks {len(missing)} weights of this transformer, such as {missing[0]}")
    try:
        network.load_state_dict({name: tensor for name, tensor in state.items() if name in network.state_dict()})
    except RuntimeError as error:
        raise ValueError(f"{files[0]} does not fit {part / 'config.json'}: {error}") from error
    return network.to(dtype)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file, or of a file of torch.save without running its pickled code."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return state.get("state_dict", state)


def to_diffusers_names(state: dict[str, torch.Tensor], known: set[str]) -> dict[str, torch.Tensor]:
    """Return weights under diffusers' names. Weights that only their training used (RefAlign's alignment) keep other names."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    if known <= set(state):
        return state
    return convert_wan_transformer_to_diffusers(dict(state))
