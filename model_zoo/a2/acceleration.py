"""What diffusers has to sample faster or in less memory, switched on for A2: caches, attention, compilation, tiles, weights.

What each gains and how far its video is from the exact one is measured by benchmarks/sampling.py.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_zoo.a2.parallel import ParallelGroups, share_tiles, share_tokens

CACHES = ("first-block", "taylorseer", "mag")
WEIGHTS = ("int8", "fp8")


def quantisation(weights: str) -> Any:
    """A quantization_config of diffusers for weights in "int8" or "fp8" (torchao), activations as they are; None for "".

    Raises ValueError where torchao is not installed.
    """
    if not weights:
        return None
    if find_spec("torchao") is None:
        raise ValueError(f"--quantization {weights} needs torchao, which is not installed: pip install torchao")
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
    """Let steps use what those before them computed, from now on; "" is none, and ends what was there.

    "first-block" (ParaAttention): where the first block's residual differs from that of the last whole pass by less than
    `threshold`, theirs is reused. "taylorseer" (arXiv 2503.06923, its light form): of `interval` steps one is computed,
    the others' velocities follow its Taylor series of first order; the first 3 steps are always computed. "mag" (MagCache,
    arXiv 2506.09045): of `steps` steps those behind the first fifth reuse the blocks' residual, three in a row at most, while
    its size, as `ratios` of the checkpoint foretell it (see `MagCacheCalibration`), has changed by less than `threshold`.
    """
    from diffusers import FirstBlockCacheConfig, MagCacheConfig
    from diffusers.hooks import TaylorSeerCacheConfig

    if transformer.is_cache_enabled:
        transformer.disable_cache()
    if kind == "first-block":
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    elif kind == "taylorseer":
        how = TaylorSeerCacheConfig(
            cache_interval=interval,
            taylor_factors_dtype=transformer.dtype,
            cache_identifiers=["proj_out"],  # its defaults name no module of Wan's, and would do nothing
            skip_predict_identifiers=[r"blocks\.\d+"],
        )
        transformer.enable_cache(how)
    elif kind == "mag":
        transformer.enable_cache(
            MagCacheConfig(threshold=threshold, num_inference_steps=steps, mag_ratios=list(ratios))
        )
    elif kind:
        raise ValueError(f"no cache called {kind!r}: {', '.join(CACHES)}")


class MagCacheCalibration:
    """How the size of what all blocks add changes from step to step: what the cache "mag" goes by (arXiv 2506.09045).

    While it is open it listens to a transformer that samples exactly. `ratios` are then the mean over tokens, and over the looks
    of a step, of the residual's norm divided by that of the step before; the first is 1. diffusers has the same sum, and
    prints it.
    """

    def __init__(self, transformer: Any, looks: int):
        self.transformer, self.looks = transformer, looks
        self.entered: Any = None
        self.before: list[Any] = [None] * looks
        self.found: list[float] = []

    def __enter__(self) -> "MagCacheCalibration":
        blocks = self.transformer.blocks
        self.hooks = [blocks[0].register_forward_pre_hook(self._enter), blocks[-1].register_forward_hook(self._leave)]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _enter(self, _block: Any, given: tuple[Any, ...]) -> None:
        self.entered = given[0]

    def _leave(self, _block: Any, _given: tuple[Any, ...], left: Any) -> None:
        norm, look = (left - self.entered).float().norm(dim=-1), len(self.found) % self.looks
        before, self.before[look] = self.before[look], norm
        self.found.append(1.0 if before is None else float((norm / (before + 1e-8)).mean()))

    def ratios(self) -> list[float]:
        """One for each step that was sampled, rounded to 5 digits."""
        steps = [self.found[n : n + self.looks] for n in range(0, len(self.found), self.looks)]
        return [round(sum(looks) / len(looks), 5) for looks in steps]


def check_attention(name: str, device: str, tokens: int = 1) -> None:
    """Raises ValueError for an attention backend that diffusers does not have, or that cannot run here."""
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
        raise ValueError(f"--attention-backend {name} needs a GPU, and this samples on the CPU: leave it out")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except Exception as error:  # RuntimeError, ImportError, as each backend likes
        raise ValueError(f"--attention-backend {name}: {error}") from error
    if tokens > 1 and not _AttentionBackendRegistry._is_context_parallel_available(AttentionBackendName(name)):
        raise ValueError(
            f"--attention-backend {name} cannot be shared by processes: leave out it or --context-parallel"
        )


def set_attention_backend(transformer: Any, backend: str) -> None:
    """Let a network attend by a backend, and no other: diffusers' call makes it the default of the whole process, too."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry, attention_backend

    with attention_backend(_AttentionBackendRegistry.get_active_backend()[0]):
        transformer.set_attention_backend(backend)


def check_tiles(folder: Path) -> None:
    """Raises ValueError for a checkpoint whose VAE is not Wan's."""
    kind = json.loads((folder / "vae" / "config.json").read_text()).get("_class_name")
    if kind != "AutoencoderKLWan":
        raise ValueError(f"--vae-tiling: the VAE in {folder} is a {kind}, which has no tiles")


def apply(pipe: Any, groups: ParallelGroups, attention: str = "", tiled: bool = False, compiled: bool = False) -> None:
    """Switch these on in a pipeline, in the order in which they must come."""
    if attention:
        set_attention_backend(pipe.transformer, attention)
    pipe.groups = groups
    if groups.tokens:
        share_tokens(pipe.transformer, groups.tokens)
    if tiled:
        pipe.vae.enable_tiling()
        if groups.everything:
            share_tiles(pipe.vae, groups.everything)
    if compiled:
        pipe.transformer.compile_repeated_blocks()
