"""Find the cause of a non-finite loss or gradient: check inputs and weights before reporting the samples of the step."""

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.train.log import all_gather
from pipelines.train.parallelize import to_local

LARGE = 1e6  # latents and embeddings are of order 1, text embeddings at most in the hundreds


def find_cause(
    samples: Sequence[Any],
    non_finite_keys: Sequence[str],
    null_condition: torch.Tensor,
    parameters: dict[str, torch.Tensor],
) -> str:
    """Return the cause as a clause for an error message. A collective: all processes must call it and get the same text.

    non_finite_keys: keys of this process's samples with a non-finite loss. null_condition: the condition without references.
    """
    tensors = [(f"{sample.key} ({name})", tensor) for sample in samples for name, tensor in sample.tensors.items()]
    non_finite = all_gather([name for name, tensor in tensors if not is_finite(tensor)])
    if non_finite:
        return f"there is NaN or infinity in {join_names(non_finite)}; encode its shard again"
    if not is_finite(null_condition):
        return (
            "there is NaN or infinity in the condition without references, but in none of the samples: remove "
            "encoded/encoding.json and encoded/no_references.safetensors and re-run the command to rebuild them"
        )
    broken = sorted(
        set(all_gather([name for name, parameter in parameters.items() if not is_finite(to_local(parameter))]))
    )
    if broken:
        return (
            f"the network has NaN or infinity in {join_names(broken)} before this step, but none of the samples does: the "
            "folder or checkpoint that it was loaded from is damaged"
        )
    large = all_gather([f"{name}: {tensor.abs().max():.2g}" for name, tensor in tensors if is_large(tensor)])
    if large:
        return f"there are values far outside the range of the encoders in {join_names(large)}; encode its shard again"
    suspects = all_gather(list(non_finite_keys)), all_gather([sample.key for sample in samples])
    return f"after {join_names(suspects[0]) or join_names(suspects[1])}; is the learning rate too high?"


def is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())


def is_large(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and float(tensor.detach().abs().max()) > LARGE


def join_names(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
