"""Find the cause of a non-finite loss or gradient: check inputs and weights before reporting the samples of the step."""

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.train.log import gathered
from pipelines.train.parallelize import local

LARGE = 1e6  # latents and embeddings are of order 1, text embeddings at most in the hundreds


def cause(
    samples: Sequence[Any], odd: Sequence[str], nothing: torch.Tensor, parameters: dict[str, torch.Tensor]
) -> str:
    """Return the cause as a clause for an error message. A collective: all processes must call it and get the same text.

    odd: keys of this process's samples with a non-finite loss. nothing: the condition without references.
    """
    tensors = [(f"{sample.key} ({name})", tensor) for sample in samples for name, tensor in sample.tensors.items()]
    holding = gathered([name for name, tensor in tensors if not finite(tensor)])
    if holding:
        return f"there is NaN or infinity in {listed(holding)}; encode its shard again"
    if not finite(nothing):
        return (
            "there is NaN or infinity in the condition without references, but in none of the samples: remove "
            "encoded/encoding.json and encoded/no_references.safetensors and re-run the command to rebuild them"
        )
    broken = sorted(set(gathered([name for name, parameter in parameters.items() if not finite(local(parameter))])))
    if broken:
        return (
            f"the network has NaN or infinity in {listed(broken)} before this step, but none of the samples does: the folder or "
            "checkpoint that it was loaded from is damaged"
        )
    large = gathered([f"{name}: {tensor.abs().max():.2g}" for name, tensor in tensors if is_large(tensor)])
    if large:
        return f"there are values far outside the range of the encoders in {listed(large)}; encode its shard again"
    return f"after {listed(gathered(list(odd))) or listed(gathered([s.key for s in samples]))}; is the learning rate too high?"


def finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())


def is_large(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and float(tensor.detach().abs().max()) > LARGE


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
