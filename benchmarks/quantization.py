"""Weights of 8 bits: bytes of the transformer in a checkpoint, and drift of the sampled video from bfloat16.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization [CHECKPOINT] [--steps 8]

Without a checkpoint, a small random network with appended references is sampled. The drift is the relative error of the latents
after all steps, and of one forward pass, from those of bfloat16 weights; bfloat16 itself is compared with float32. The last
figures are the bytes of weights in a training of LoRA adapters over them, counted on the meta device. Needs torchao.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import model_zoo  # noqa: F401  # makes the torchvision of PyPI importable

SMALL = {
    "in_channels": 16, "out_channels": 16, "num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 64, "ffn_dim": 1024,
    "text_dim": 64, "freq_dim": 256,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.checkpoint or random_network(Path(folder))
        print("weights    MB saved  drift, one pass  drift, all steps")
        exact: dict[str, Any] = {}
        for weights in ("float32", "bfloat16", "int8", "fp8"):
            network = loaded(root, weights)
            network.save_pretrained(Path(folder) / weights)
            size = sum(file.stat().st_size for file in (Path(folder) / weights).glob("*.safetensors")) / 1e6
            made = one_pass(network), sampled(network, args.steps)
            compared = exact.get("float32" if weights == "bfloat16" else "bfloat16")
            drifts = [float((a - b).norm() / b.norm()) for a, b in zip(made, compared or made, strict=True)]
            print(f"{weights:8} {size:10.1f} {drifts[0]:16.2%} {drifts[1]:17.2%}", flush=True)
            exact[weights] = made
    print("\nGB of weights in a training of LoRA adapters")
    for preset in ("1.3b", "14b"):
        print(f"{preset:6}" + "".join(f"  {name} {gb:5.1f}" for name, gb in training(preset).items()))


def random_network(folder: Path) -> Path:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    WanTransformer3DModel(**SMALL).save_pretrained(folder / "transformer")
    return folder


def loaded(root: Path, weights: str) -> Any:
    from model_zoo.a2.acceleration import quantisation
    from model_zoo.a2.transformer import load_transformer

    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    return load_transformer(root, dtype, quantisation(weights) if weights in ("int8", "fp8") else None).eval()


def inputs(network: Any, noised: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of a forward pass: fixed random text and references."""
    from model_zoo.a2 import conditioning

    kind, some = conditioning.of(network), torch.Generator().manual_seed(1)
    text = torch.randn(1, 512, network.config.text_dim, generator=some)
    shape = {"a2": (20, noised.shape[2]), "appended": (16, 2), "vace": (96, noised.shape[2])}[kind]
    condition = torch.randn(1, *shape, *noised.shape[3:], generator=some)
    image = torch.randn(1, 257, network.config.image_dim, generator=some) if kind == "a2" else None
    given = conditioning.network_inputs(kind, noised, condition, image) | {"encoder_hidden_states": text}
    return {name: tensor.to(network.dtype) for name, tensor in given.items()}


@torch.no_grad()
def one_pass(network: Any) -> torch.Tensor:
    noised = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    return network(timestep=torch.tensor([500.0]), return_dict=False, **inputs(network, noised))[0][:, :, :3].float()


@torch.no_grad()
def sampled(network: Any, steps: int) -> torch.Tensor:
    from model_zoo.a2 import pipeline

    schedule = pipeline.scheduler("euler", 5.0)
    schedule.set_timesteps(steps)
    x = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    for t in schedule.timesteps:
        velocity = network(timestep=t[None], return_dict=False, **inputs(network, x))[0][:, :, :3].float()
        x = schedule.step(velocity, t, x, return_dict=False)[0]
    return x


def training(preset: str) -> dict[str, float]:
    """Return the GB of weights by frozen dtype, with LoRA adapters of rank 16 in float32."""
    from dataclasses import replace

    from model_zoo.a2 import trainable
    from pipelines.train.cost import meta_network, weight_bytes
    from pipelines.train.settings import FROZEN_BYTES, PRESETS, network_config

    network = meta_network(network_config(preset))
    trainable.select(network, "lora", 16)
    settings = PRESETS[preset][1]
    return {dtype: weight_bytes(network, replace(settings, frozen_dtype=dtype)) / 1e9 for dtype in FROZEN_BYTES}


if __name__ == "__main__":
    main()
