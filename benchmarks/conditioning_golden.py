"""Golden tensors of the conditioning "appended": SkyReels-V3's own resizing, pipeline and network, with tiny random weights.

    python -m benchmarks.conditioning_golden SKYREELS_V3 tests/golden/appended.safetensors

SKYREELS_V3 is a checkout of github.com/SkyworkAI/SkyReels-V3 (28c771e). Its code is run on the CPU, from a folder outside the
repository; the file holds the weights, the inputs and the results. The VAE is `Averages`, which has no weights.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import model_zoo  # noqa: F401  # makes the torchvision of PyPI importable

SIZES = [(20, 36), (40, 24)]  # of the pictures, height x width
HEIGHT, WIDTH, FRAMES, STEPS = 32, 48, 9, 3
PROMPT_SCALE, REFERENCE_SCALE, SHIFT = 7.5, 5.0, 5.0
NETWORK = {
    "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32,
    "text_dim": 16, "freq_dim": 32, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip


class Averages(torch.nn.Module):
    """A VAE without weights: 16 channels that are multiples of the means of 8 x 8 pixels of single pictures."""

    dtype, device = torch.float32, torch.device("cpu")
    temperal_downsample = (False, True, True)

    class config(dict):  # noqa: N801
        z_dim, scale_factor_temporal, scale_factor_spatial = 16, 4, 8
        latents_mean, latents_std = [0.1 * n for n in range(16)], [1 + 0.2 * n for n in range(16)]

    def encode(self, pictures: torch.Tensor) -> Any:
        means = torch.nn.functional.avg_pool3d(pictures[:, :, ::4], (1, 8, 8))
        latents = torch.cat([means * (1 + n) for n in range(6)], 1)[:, :16]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents, sample=lambda generator: latents))


GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "appended.safetensors"
VACE = NETWORK | {"num_layers": 2, "vace_layers": [0, 1]}


def pipeline(kind: Any, network: Any) -> Any:
    """Return a pipeline of a class with the VAE without weights."""
    from model_zoo.a2 import pipeline as a2

    made = kind(None, None, Averages(), a2.scheduler("unipc", SHIFT), transformer=network)
    made.set_progress_bar_config(disable=True)
    return made


def difference(kind: str) -> float:
    """Return the largest absolute difference of latents that we sample, and those of SkyReels-V3 or of diffusers for VACE."""
    from diffusers import WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel

    from model_zoo.a2.references import Prepared
    from model_zoo.a2.t2v_pipelines import AppendedPipeline, VacePipeline

    kept = load_file(GOLDEN)
    given = Prepared(np.stack([kept[f"shown{n}"].numpy() for n in range(2)]), np.empty((2, 0, 0, 3), np.uint8))
    how: dict[str, Any] = {"num_frames": FRAMES, "num_inference_steps": STEPS, "guidance_scale": PROMPT_SCALE}
    how |= {"prompt_embeds": kept["prompt"], "negative_prompt_embeds": kept["negative"], "output_type": "latent"}
    if kind == "appended":
        network = WanTransformer3DModel(**NETWORK).eval()
        network.load_state_dict({n.removeprefix("network."): t for n, t in kept.items() if n.startswith("network.")})
        pipe = pipeline(AppendedPipeline, network)
        pipe.reference_slots = 4
        made = pipe(given, reference_guidance=REFERENCE_SCALE, latents=kept["noise"], **how).frames
        return float((made - kept["latents"]).abs().max())
    torch.manual_seed(0)
    branch = WanVACETransformer3DModel(**VACE).eval()
    made = pipeline(VacePipeline, branch)(given, generator=torch.Generator().manual_seed(3), **how).frames
    # diffusers puts each reference before those before it; VACE's authors keep the order, as we do
    pictures = [Image.fromarray(frame) for frame in given.frames[::-1]]
    stock, size = pipeline(WanVACEPipeline, branch), {"height": HEIGHT, "width": WIDTH}
    theirs = stock(reference_images=pictures, generator=torch.Generator().manual_seed(3), **size, **how).frames
    return float((made - theirs).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("skyreels_v3")
    parser.add_argument("out")
    args = parser.parse_args()
    sys.path.insert(0, args.skyreels_v3)
    # the package imports its other models, which need CUDA
    for name in ("", ".pipelines", ".modules", ".modules.reference_to_video"):
        module = ModuleType(f"skyreels_v3{name}")
        module.__path__ = [f"{args.skyreels_v3}/skyreels_v3{name.replace('.', '/')}"]
        sys.modules[module.__name__] = module
    from diffusers import UniPCMultistepScheduler
    from skyreels_v3.modules.reference_to_video.transformer import SkyReelsA2WanI2v3DModel
    from skyreels_v3.pipelines import reference_to_video_pipeline as theirs

    torch.manual_seed(0)
    network = SkyReelsA2WanI2v3DModel(**NETWORK).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    shown = theirs.resize_ref_images([Image.fromarray(picture) for picture in pictures], (WIDTH, HEIGHT))
    schedule = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=SHIFT
    )

    class OnCPU(theirs.WanSkyReelsA2WanT2VPipeline):  # type: ignore[name-defined, misc]
        _execution_device = torch.device("cpu")

        def register_modules(self, **parts: Any) -> None:
            for name, part in (parts | {"_internal_dict": {}}).items():
                object.__setattr__(self, name, part)

        def maybe_free_model_hooks(self) -> None:
            pass

    pipe = OnCPU(None, None, network, Averages(), schedule)
    inputs = {
        "noise": torch.randn(1, 16, (FRAMES - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8),
        "prompt": torch.randn(1, 512, 16),
        "negative": torch.randn(1, 512, 16),
    }
    latents = pipe(
        shown, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=STEPS, guidance_scale=PROMPT_SCALE,
        guidance_scale_img=REFERENCE_SCALE, latents=inputs["noise"], prompt_embeds=inputs["prompt"],
        negative_prompt_embeds=inputs["negative"], output_type="latent",
    ).frames  # fmt: skip
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()} | inputs
    tensors |= {f"picture{n}": torch.from_numpy(picture) for n, picture in enumerate(pictures)}
    tensors |= {f"shown{n}": torch.from_numpy(np.array(picture)) for n, picture in enumerate(shown)}
    save_file({name: tensor.contiguous() for name, tensor in (tensors | {"latents": latents}).items()}, args.out)
    print(f"{args.out}: {len(tensors) + 1} tensors, latents of mean square {float(latents.square().mean()):.3f}")


if __name__ == "__main__":
    main()
