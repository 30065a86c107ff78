"""diffusers' acceleration features for A2: caches, attention backends, compilation, VAE tiling and quantization.

benchmarks/sampling.py measures the speed-up of each and how far its video is from the exact one.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_zoo.a2.parallel import ParallelGroups, split_tiles, split_tokens

CACHES = ("first-block", "taylorseer", "mag")
WEIGHTS = ("int8", "fp8")


def quantisation(weights: str, flag: str = "--quantization") -> Any:
    """Return diffusers' quantization_config for "int8" or "fp8" weights (torchao), activations unchanged; None for "".

    Raises ValueError if torchao is not installed.
    """
    if not weights:
        return None
    if find_spec("torchao") is None:
        raise ValueError(f"{flag} {weights} needs torchao, which is not installed: pip install torchao")
    from diffusers import TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig({"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[weights]())


def cache(
    transformer: Any,
    kind: str,
    threshold: float = 0.05,
    interval: int = 3,
    ratios: Sequence[float] = (),
    steps: int = 50,
) -> None:
    """Enable a cache that reuses results of earlier steps; "" disables the current one.

    "first-block" (ParaAttention): if the first block's residual differs from that of the last full pass by less than
    `threshold`, the residual of the other blocks is reused. "taylorseer" (arXiv 2503.06923, light form): one of `interval` steps
    is computed, the velocities of the others are extrapolated by a first-order Taylor series; the first 3 steps are always
    computed. "mag" (MagCache, arXiv 2506.09045): after the first fifth of `steps` steps, the blocks' residual is reused, at most
    three times in a row, while its magnitude, predicted by the checkpoint's `ratios` (see `MagCacheCalibration`), has changed by
    less than `threshold`.
    """
    from diffusers import FirstBlockCacheConfig, MagCacheConfig
    from diffusers.hooks import TaylorSeerCacheConfig

    if transformer.is_cache_enabled:
        transformer.disable_cache()
    if kind == "first-block":
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    elif kind == "taylorseer":
        config = TaylorSeerCacheConfig(
            cache_interval=interval,
            taylor_factors_dtype=transformer.dtype,
            # the default identifiers do not match any module of Wan
            cache_identifiers=["proj_out"],
            skip_predict_identifiers=[r"blocks\.\d+"],
        )
        transformer.enable_cache(config)
    elif kind == "mag":
        transformer.enable_cache(
            MagCacheConfig(threshold=threshold, num_inference_steps=steps, mag_ratios=list(ratios))
        )
    elif kind:
        raise ValueError(f"unknown cache {kind!r}: choose {', '.join(CACHES)}")


class MagCacheCalibration:
    """Context manager that measures the magnitude ratios of the cache "mag" (arXiv 2506.09045).

    While open, it observes a transformer that samples exactly. `ratios` is then, for each step, the norm of the residual of all
    blocks divided by that of the previous step, averaged over tokens and over the CFG branches; the first is 1. diffusers
    computes the same sum, but only prints it.
    """

    def __init__(self, transformer: Any, num_branches: int):
        self.transformer, self.num_branches = transformer, num_branches
        self.block_input: Any = None
        self.previous_norms: list[Any] = [None] * num_branches
        self.step_ratios: list[float] = []

    def __enter__(self) -> "MagCacheCalibration":
        blocks = self.transformer.blocks
        self.hooks = [blocks[0].register_forward_pre_hook(self._enter), blocks[-1].register_forward_hook(self._leave)]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _enter(self, _block: Any, inputs: tuple[Any, ...]) -> None:
        self.block_input = inputs[0]

    def _leave(self, _block: Any, _inputs: tuple[Any, ...], output: Any) -> None:
        norm, branch = (output - self.block_input).float().norm(dim=-1), len(self.step_ratios) % self.num_branches
        previous, self.previous_norms[branch] = self.previous_norms[branch], norm
        self.step_ratios.append(1.0 if previous is None else float((norm / (previous + 1e-8)).mean()))

    def ratios(self) -> list[float]:
        """Return one ratio per sampled step, rounded to 5 digits."""
        steps = [
            self.step_ratios[n : n + self.num_branches] for n in range(0, len(self.step_ratios), self.num_branches)
        ]
        return [round(sum(branch_ratios) / len(branch_ratios), 5) for branch_ratios in steps]


def check_attention(name: str, device: str, tokens: int = 1) -> None:
    """Raise ValueError for an attention backend that diffusers does not have, or that cannot run on this machine."""
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        _AttentionBackendRegistry,
        _check_attention_backend_requirements,
    )

    names = [backend.value for backend in AttentionBackendName]
    if name not in names:
        raise ValueError(
            f"--attention-backend {name}: diffusers has {', '.join(n for n in names if not n.startswith('_'))}"
        )
    if device == "cpu" and name not in ("native", "_native_math", "flex"):
        raise ValueError(f"--attention-backend {name} needs a GPU, but the device is the CPU: remove it")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except Exception as error:  # RuntimeError or ImportError, depending on the backend
        raise ValueError(f"--attention-backend {name}: {error}") from error
    if tokens > 1 and not _AttentionBackendRegistry._is_context_parallel_available(AttentionBackendName(name)):
        raise ValueError(
            f"--attention-backend {name} does not support context parallelism: remove it or --context-parallel"
        )


def set_attention_backend(transformer: Any, backend: str) -> None:
    """Set the attention backend of this network only; diffusers' own call also changes the process-wide default."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry, attention_backend

    with attention_backend(_AttentionBackendRegistry.get_active_backend()[0]):
        transformer.set_attention_backend(backend)


def check_tiles(folder: Path) -> None:
    """Raise ValueError for a checkpoint whose VAE is not Wan's."""
    kind = json.loads((folder / "vae" / "config.json").read_text()).get("_class_name")
    if kind != "AutoencoderKLWan":
        raise ValueError(f"--vae-tiling: the VAE in {folder} is a {kind}, which does not support tiling: remove it")


def apply(pipe: Any, groups: ParallelGroups, attention: str = "", tiled: bool = False, compiled: bool = False) -> None:
    """Enable these features in a pipeline, in the required order."""
    if attention:
        set_attention_backend(pipe.transformer, attention)
    pipe.groups = groups
    if groups.tokens:
        split_tokens(pipe.transformer, groups.tokens)
    if tiled:
        pipe.vae.enable_tiling()
        if groups.world:
            split_tiles(pipe.vae, groups.world)
    if compiled:
        pipe.transformer.compile_repeated_blocks()
